"""Clocks of the nodes of a run, asked for before it, after it, and every five minutes.

Nodes and server are asked from here; offsets are those beside the server's clock. The clock between
them is this machine's monotonic one: nobody sets that.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.experiment.archive import CLOCKS, write_json
from walt.client.experiment.clocks import (
    EXCHANGES,
    Clock,
    Exchange,
    Sample,
    best,
    relative,
    samples_of,
)
from walt.client.experiment.lease import LeaseLost
from walt.client.experiment.parallel import at_once
from walt.client.experiment.ptp import question, state_of
from walt.client.scripting.link import LINK

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from walt.client.experiment.channels import Shells

EVERY = 300.0  # seconds
SOON = 20.0  # seconds for an answer
FIFO = "/var/lib/walt/logs.fifo"  # a node that has it stamps its log lines itself
_MOMENT = re.compile(r"(\d{9,11})(\.\d{3,9})?")
# A busybox whose date knows no %N has adjtimex, which asks the kernel.
_TIME = (
    "t=$(date +%s.%N); case $t in *.*[!0-9]* | *.) adjtimex 2>/dev/null; date +%s ;;"
    " *) echo $t ;; esac"
)
_KERNEL = re.compile(r"time\.tv_sec: *(\d{9,11})\s+time\.tv_usec: *(\d{1,6})\s")
# Who stamps log lines; then what PTP says of itself.
_STATE = f"[ -p {FIFO} ] && echo node || echo server\n{question()}true"


def exchange(shells: Shells, node: str) -> tuple[Exchange, float]:
    """Ask a node for its time; return that, and the resolution of the answer in seconds.

    Raises Failure, TimeoutException.
    """
    sent = time.monotonic()
    result = shells.run(node, _TIME, SOON)
    received = time.monotonic()
    kernel, found = _KERNEL.search(result.output), _MOMENT.search(result.output)
    if kernel is not None:
        return Exchange(sent, int(kernel[1]) + int(kernel[2]) / 1e6, received), 0.0
    if found is None:
        raise Failure(f"{node} tells no time: {result.error[:100] or result.output[:100]!r}")
    return Exchange(sent, float(found[0]), received), 0.0 if found[2] else 1.0


def _sample(shells: Shells, node: str) -> Sample | None:
    try:
        found = [exchange(shells, node) for _ in range(EXCHANGES)]
    except (Failure, TimeoutException, OSError):
        return None  # it boots, perhaps: there are other moments
    return best((exchanged for exchanged, _ in found), found[0][1])


def _server() -> Sample:
    exchanges = []
    for _ in range(EXCHANGES):
        sent = time.monotonic()
        answer = LINK.call("cs.server.time", time_limit=SOON)
        received = time.monotonic()
        exchanges.append(Exchange(sent, float(answer[b"time"]), received))
    return best(exchanges)


class ServerTime:
    """The clock of the server: asked for where it can be, else as it was when it was asked."""

    def __init__(self) -> None:
        self._ahead: float | None = None  # of the monotonic clock here

    def now(self) -> float:
        """Return its time, in epoch seconds."""
        try:
            found = _server()
            self._ahead = found.offset
        except (Failure, TimeoutException, OSError, ValueError):
            pass  # it is away
        return time.time() if self._ahead is None else time.monotonic() + self._ahead


class ClockWatch:
    """Samples of the clocks of nodes, kept in a folder; it goes on with what is there.

    `shells` are its own: what is measured does not wait for it.
    """

    def __init__(self, folder: Path, names: Sequence[str], shells: Shells) -> None:
        self._path = folder / CLOCKS
        self._names = names
        self._shells = shells
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._rows: dict[str, list[list[float]]] = {name: [] for name in names}
        self._stamps: dict[str, str] = {}
        self._ptp: dict[str, dict[str, str | float]] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._path.read_text())
            for name in names:
                self._rows[name] = [
                    [float(number) for number in row] for row in found["nodes"][name]
                    if len(row) == 3
                ]

    def take(self) -> None:
        """Ask all clocks, and write what is known."""
        with self._lock:
            try:
                server = _server()
                states = at_once(self._names, self._state)
                found = at_once(self._names, lambda name: _sample(self._shells, name))
            except (Failure, TimeoutException, OSError, ValueError, LeaseLost):
                return  # the server is away, or the nodes are others': there are other moments
            for name, sample in found.items():
                if sample is not None:
                    compared = relative(sample, server)
                    self._rows[name].append([compared.moment, compared.offset, compared.error])
            for name, lines in states.items():
                if lines:
                    self._stamps[name] = lines[0]
                state = state_of("\n".join(lines[1:]))
                if state is not None:
                    self._ptp[name] = state
            self._write()

    def _state(self, name: str) -> list[str]:
        try:
            return self._shells.run(name, _STATE, SOON).output.splitlines()
        except (Failure, TimeoutException, OSError):
            return []

    def _write(self) -> None:
        steps = {
            name: [[step.after, step.before, step.seconds] for step in clock.steps()]
            for name, clock in self.clocks().items()
        }
        write_json(self._path, {
            "reference": "server", "nodes": self._rows, "stamps": self._stamps,
            "steps": {name: found for name, found in steps.items() if found}, "ptp": self._ptp,
        })

    def clocks(self) -> dict[str, Clock]:
        """Return the clocks of nodes that have told their time."""
        return {name: Clock(samples_of(rows)) for name, rows in self._rows.items() if rows}

    def stamping(self) -> dict[str, Clock]:
        """Return the clocks by which nodes stamp their own log lines."""
        return {
            name: clock for name, clock in self.clocks().items()
            if self._stamps.get(name) == "node"
        }

    def __enter__(self) -> ClockWatch:
        self.take()
        self._thread = threading.Thread(target=self._go_on, name="walt-clocks", daemon=True)
        self._thread.start()
        return self

    def _go_on(self) -> None:
        try:
            while not self._over.wait(EVERY):
                self.take()
        finally:
            LINK.close()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if exc[0] is None or not issubclass(exc[0], KeyboardInterrupt):  # type: ignore[arg-type]
            self.take()
        self._shells.close()
