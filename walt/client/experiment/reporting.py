"""What the server is told of a run while it goes on: who runs it, and how far it is.

A thread tells it: no point waits for that. What is run, what it gives and why it fails is not told.
"""

from __future__ import annotations

import threading

from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.experiment.model import FINAL
from walt.client.scripting.link import LINK

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

EVERY = 20.0  # seconds between two words, if nothing happens
PACE = 1.0  # seconds between two words, whatever happens
SOON = 10.0  # seconds for an answer
AT_LAST = 2.0  # seconds that a run waits at its end
PREPARING, RUNNING = "preparing", "running"


class Reports:
    """Tells of the run of a manifest, with so many points, on nodes of these names.

    `tell` shows a line, from another thread: why the server shows this run to nobody, once.
    """

    def __init__(
        self, manifest: Mapping[str, Any], points: int, names: Sequence[str],
        tell: Callable[[str], object],
    ) -> None:
        self._tell_user = tell
        self._outcomes: dict[int, str] = {}  # by point, those that ended last come last
        self._refused = False
        self._told: dict[str, Any] = {
            "run": manifest["run"], "name": manifest["name"], "nodes": list(names),
            "began": manifest["began"], "points": points, "state": PREPARING, "point": 0,
            "failed": 0, "failed_point": 0,
        }
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, outcomes: Mapping[int, str]) -> None:
        """Begin to tell; `outcomes` are those of points that an earlier part began."""
        for number, outcome in sorted(outcomes.items()):
            self._note(number, outcome)
        self._over.clear()
        self._changed.set()
        self._thread = threading.Thread(target=self._go_on, name="walt-reports", daemon=True)
        self._thread.start()

    def note(self, number: int, outcome: str) -> None:
        """A point ended."""
        self._note(number, outcome)
        self._told["state"] = RUNNING
        self._changed.set()

    def _note(self, number: int, outcome: str) -> None:
        if outcome not in FINAL:
            return  # it is measured again
        self._outcomes.pop(number, None)
        self._outcomes[number] = outcome
        failed = [point for point, outcome in self._outcomes.items() if outcome != "done"]
        self._told.update(
            point=number, failed=len(failed), failed_point=failed[-1] if failed else 0
        )

    def state(self, state: str) -> None:
        """The run is in another state."""
        self._told["state"] = state
        self._changed.set()

    def end(self) -> None:
        """Tell the last state, and no more."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._over.set()
            self._changed.set()
            thread.join(AT_LAST)

    def _go_on(self) -> None:
        try:
            while True:
                self._changed.wait(EVERY)
                self._changed.clear()
                over = self._over.is_set()
                self._tell()
                if over:
                    return
                self._over.wait(PACE)
        finally:
            LINK.close()

    def _tell(self) -> None:
        try:
            LINK.call("cs.experiments.report", time_limit=SOON, **self._told)
        except Refused as refused:
            if not self._refused:
                self._refused = True
                self._tell_user(f"others do not see that this run goes on: {refused}")
        except (Failure, TimeoutException, OSError):
            pass  # it is told again, if the server is there then
