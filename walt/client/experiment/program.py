"""Experiments that a Python program measures, instead of a file: the archive is the same.

    from walt.client import experiment

    with experiment.Run("sizes", roles={"a": {}, "b": {}}, variables={"SIZE": [56, 1400]}) as run:
        for point in run.points():
            with point:
                point.do("a", 'ping -q -c 5 -s "$SIZE" "$WALT_B_IP" > rtt.txt', save=["rtt.txt"])
                point.result("rtt_ms", mean_of(point.file("a", "rtt.txt")))
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from walt.client.errors import Failure
from walt.client.experiment.archive import LARGEST_NUMBER, Folder
from walt.client.experiment.casting import cast
from walt.client.experiment.document import Errors
from walt.client.experiment.model import EVERYBODY, Step
from walt.client.experiment.origin import commit_of
from walt.client.experiment.reading import COLUMNS, FILE, LONGEST, parsed
from walt.client.experiment.running import Runner, manifest_of, new_record
from walt.client.experiment.stepping import StepFailed
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType
    from typing import Any

    from walt.client.experiment.model import Experiment, Point

UNNAMED = "program.py"  # of a program that was typed, or whose name no archive has
LARGEST_PROGRAM = 1 << 20  # bytes


def _program() -> tuple[Path | None, str]:
    """Return the file that measures, None without one, and its name in the archive.

    It is the one that made the Run: what was started may be pytest, or a notebook's server.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back  # of a class that inherits from Run
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    for file in (frame and frame.f_code.co_filename, main):
        path = Path(file or "")
        if path.is_file():
            return path, path.name if FILE.fullmatch(path.name) else UNNAMED
    return None, UNNAMED


class Run(AbstractContextManager["Run"]):
    """A run: nodes are reserved, booted and set up within the `with` block.

    What is told is as in experiment files; `logs` is a pattern of streams, `map` has names of
    nodes by role. `force` disturbs other people, `with_images` keeps the images, too. Raises
    Failure.
    """

    def __init__(
        self, name: str, *, roles: Mapping[str, Any], links: Sequence[Any] = (),
        variables: Mapping[str, Any] | None = None, repetitions: int = 1,
        results: Mapping[str, Any] | None = None, logs: str | None = None,
        limits: Mapping[str, Any] | None = None, licence: str = "", to: str | None = None,
        map: Mapping[str, Sequence[str]] | None = None, force: bool = False,
        with_images: bool = False, tell: Callable[[str], object] = print,
    ) -> None:
        path, program = _program()
        told = {
            "name": name, "licence": licence, "program": program, "roles": roles,
            "links": list(links), "variables": variables or {}, "repetitions": repetitions,
            "results": results or {}, "logs": None if logs is None else {"streams": logs},
            "limits": limits or {},
        }
        if "retries" in (limits or {}):
            raise Failure("limits.retries is for files: a program tries again by its own loop")
        # What a file may say is checked in one place.
        self._text = _as_yaml({key: value for key, value in told.items() if value})
        errors = Errors()
        experiment = parsed(self._text, errors)
        if errors or experiment is None:
            raise Failure("\n".join(text for _, text in errors))
        self._experiment: Experiment = experiment
        self._scripts = _scripts(path, program)
        if not self._scripts:
            tell(
                "the program is not kept: it has no file" if path is None
                else f"the program is not kept: {path} is larger than {LARGEST_PROGRAM} bytes"
            )
        self._commit = None if path is None else commit_of(path)
        self._given = {role: list(nodes) for role, nodes in (map or {}).items()}
        self._force = force
        self._with_images = with_images
        self._tell = tell
        self.folder = Path(to or time.strftime(f"{experiment.name}-%Y%m%d-%H%M%S"))
        self._going: AbstractContextManager[None] | None = None
        self._runner: Runner | None = None

    def __enter__(self) -> Run:
        found = cast(self._experiment, self._given)
        wrong = [f"missing: {line}" for line in found.missing]
        wrong += [f"reserved by a program that runs: {name}" for name in found.reserved]
        if not self._force:
            wrong += [f"disturbs: {line}; force=True goes on" for line in found.disturbed]
        if wrong:
            raise Failure("\n".join(wrong))
        folder = Folder(self.folder)
        manifest = manifest_of(self._experiment, found, self._text) | {
            "commit": self._commit, "map": self._given, "with_images": self._with_images,
        }
        runner = Runner(self._experiment, self._scripts, folder, manifest, self._tell)
        self._going = runner.going(
            {}, force=bool(found.disturbed)
        )
        folder.begin(manifest, self._text, self._scripts)
        self._going.__enter__()
        self._runner = runner
        return self

    def __exit__(self, *exc: Any) -> bool | None:
        going, self._going, self._runner = self._going, None, None
        return None if going is None else going.__exit__(*exc)

    def _now(self) -> Runner:
        if self._runner is None:
            raise Failure("a run is used within its `with` block")
        return self._runner

    def do(self, role: str, command: str, *, timeout: float | None = None) -> None:
        """Run a command before the points. Raises Failure for a status other than 0."""
        self._now().set_up(self._step(role, command, timeout))

    def points(self) -> Iterator[Measurement]:
        """Yield what is to be measured, each to be used in a `with` block."""
        for point in self._experiment.points():
            self._now().check_lease()
            yield Measurement(self, point)

    def _step(
        self, role: str, command: str, timeout: float | None, save: Sequence[str] = (),
        **more: Any,
    ) -> Step:
        if role not in (EVERYBODY, *(known.name for known in self._experiment.roles)):
            raise Failure(f"there is no role {role}")
        if not command.strip() or "\0" in command or len(shlex.quote(command).encode()) > LONGEST:
            raise Failure(f"a command has up to {LONGEST} bytes, quotes included, and no NUL")
        files = (save,) if isinstance(save, str) else tuple(save)
        for file in files:
            if not FILE.fullmatch(file):
                raise Failure(f"{file!r} is not the name of a file")
        return Step(role, command, timeout=timeout, save=files, **more)


class Measurement(AbstractContextManager["Measurement"]):
    """A point. A step that fails ends its block, and fails this point alone."""

    def __init__(self, run: Run, point: Point) -> None:
        self._run = run
        self._point = point
        self._record = new_record(point)
        self._order = 0
        self._measuring: AbstractContextManager[None] | None = None

    @property
    def values(self) -> dict[str, str]:
        """The values of the variables, as commands find them."""
        return dict(self._point.values)

    @property
    def number(self) -> int:
        """Its number, counted from 1."""
        return self._point.number

    @property
    def outcome(self) -> str:
        """What became of it: running, done, failed, unknown or interrupted."""
        return str(self._record["outcome"])

    def __enter__(self) -> Measurement:
        self._measuring = self._run._now().measuring(self._record)
        self._measuring.__enter__()
        return self

    def __exit__(self, *exc: Any) -> bool | None:
        measuring, self._measuring = self._measuring, None
        if measuring is None:
            return None
        handled = measuring.__exit__(*exc)
        self._run._now().note(self._point, self._record)
        return handled

    def do(
        self, role: str, command: str, *, timeout: float | None = None,
        save: Sequence[str] = (),
    ) -> dict[str, str]:
        """Run a command on the nodes of a role; return what each node printed.

        `timeout` is in seconds; files of `save` are fetched (see `file`).
        """
        order = self._do(self._run._step(role, command, timeout, save))
        return {
            entry["node"]: self._printed(entry) for entry in self._record["commands"]
            if entry["step"] == order
        }

    def start(
        self, role: str, command: str, *, ready: str | None = None,
        timeout: float | None = None, save: Sequence[str] = (),
    ) -> None:
        """Run a command until the end of the point; return when it has printed `ready`."""
        self._do(self._run._step(role, command, timeout, save, start=True, ready=ready))

    def _do(self, step: Step) -> int:
        if self._measuring is None:
            raise Failure("a point is measured within its `with` block")
        order, self._order = self._order, self._order + 1
        self._run._now().do(self._point, self._record, order, step)
        return order

    def _printed(self, entry: Mapping[str, Any]) -> str:
        if "out" not in entry:
            return ""
        try:
            return (self._run.folder / entry["out"]).read_text(errors="replace")
        except OSError as error:
            raise Failure(in_words(error)) from None

    def file(self, role: str, name: str, node: str | None = None) -> Path:
        """Return where a file is that a step saved; `node` where the role has several."""
        parts = (role, name) if node is None else (role, node, name)
        return self._run.folder.joinpath("files", f"p{self._point.number:05d}", *parts)

    def result(self, name: str, value: float) -> None:
        """Keep a result. It fails the point when it is no number."""
        if name in COLUMNS:
            raise Failure(f"tables have another column {name}; name the result otherwise")
        if not FILE.fullmatch(name):
            raise Failure("a result is named by letters, digits, ., _ and -")
        number = float(value)
        if not abs(number) < LARGEST_NUMBER:
            raise StepFailed(f"{name}: {number} is no number to go on with")
        self._record["results"].setdefault(name, []).append(number)


def _as_yaml(value: object) -> str:
    """Return JSON that is YAML: that has no pairs of surrogates for what is beyond 16 bits."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub("[^ -~\n]", lambda found: f"\\U{ord(found[0]):08x}", text)


def _scripts(path: Path | None, program: str) -> dict[str, str]:
    if path is None or path.stat().st_size > LARGEST_PROGRAM:
        return {}
    return {program: path.read_text(errors="replace")}
