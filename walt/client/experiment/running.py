"""Run an experiment: reserve, boot, set up, measure point by point, tear down, collect."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from statistics import median

import walt
from walt.client.errors import Failure
from walt.client.exceptions import (
    NodeNotOwnedException,
    NodeReservedException,
    NoSuchImageNameException,
    TimeoutException,
)
from walt.client.experiment.archive import FORMAT, MOST_POINT, write_json
from walt.client.experiment.channels import Channels
from walt.client.experiment.detached import PLACE
from walt.client.experiment.duties import LONGEST_RESERVATION, RELEASE, TEARDOWN, Duties
from walt.client.experiment.finding import number
from walt.client.experiment.holding import Holding
from walt.client.experiment.lease import Lease, LeasedShells, LeaseLost
from walt.client.experiment.model import FINAL
from walt.client.experiment.parallel import at_once
from walt.client.experiment.preparing import FACTS, Preparing
from walt.client.experiment.reporting import RUNNING, Reports
from walt.client.experiment.stepping import TOLD, StepFailed, StepLost, Steps
from walt.client.experiment.timing import ClockWatch, ServerTime
from walt.client.scripting.nodes import NodeSet, find
from walt.client.scripting.reserving import Reservation
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    from walt.client.experiment.archive import Folder
    from walt.client.experiment.casting import Cast
    from walt.client.experiment.channels import Shells
    from walt.client.experiment.model import Experiment, Point, Step
    from walt.client.scripting.running import Result

    T = TypeVar("T")

SOON = 60.0  # seconds for a short command
RELEASED = "released"  # the state of a run that was given up: what it held is given back
# What the API raises beside Failure.
OF_THE_API = (
    NodeNotOwnedException, NodeReservedException, NoSuchImageNameException, TimeoutException,
)


def manifest_of(experiment: Experiment, cast: Cast, text: str) -> dict[str, Any]:
    """Return the manifest of a run that begins now."""
    began = time.time()
    return {
        "format": FORMAT, "name": experiment.name, "licence": experiment.licence,
        "run": hashlib.sha256(f"{began} {experiment.name}".encode()).hexdigest()[:12],
        "began": began, "ended": None, "state": "running", "spans": [],
        "walt": {"client": walt.__version__, "server": ""},
        "definition": hashlib.sha256(text.encode()).hexdigest(),
        "roles": cast.nodes, "nodes": {}, "images": {}, "layers": {}, "owes": [],
        "booted": {role.name: role.image for role in experiment.roles},
    }


def new_record(point: Point, tries: int = 1) -> dict[str, Any]:
    """Return the record of a point that begins now."""
    return {
        "number": point.number, "repetition": point.repetition, "values": dict(point.values),
        "tries": tries, "outcome": "running", "reason": "", "commands": [], "results": {},
        "began": time.time(), "seconds": 0.0,
    }


class Runner:
    """One run. `tell` shows a line about how it goes. Raises Failure for what does not fit."""

    def __init__(
        self, experiment: Experiment, scripts: Mapping[str, str], folder: Folder,
        manifest: dict[str, Any], tell: Callable[[str], object],
    ) -> None:
        self._experiment = experiment
        self._scripts = scripts
        self._folder = folder
        self._manifest = manifest
        self._roles: dict[str, list[str]] = manifest["roles"]
        self._names = sorted({name for names in self._roles.values() for name in names})
        self._tell = tell
        self._lease = Lease()
        self._time = ServerTime()
        self._shells: Shells = LeasedShells(Channels(), self._lease)
        self._clocks = ClockWatch(
            folder.path, self._names, LeasedShells(Channels(), self._lease)
        )
        self._holding = Holding(manifest, tell)
        self._duties = Duties(folder, manifest, self._names, self._holding, tell)
        self._steps = Steps(
            folder, manifest, scripts, experiment.limits, self._shells, self._lease.check
        )
        self._preparing = Preparing(
            experiment, folder, manifest, self._lease, self._holding, tell
        )
        self._place = f"{PLACE}/{manifest['run']}"
        self._stays = False  # what the run took, for it is gone on with
        self._span = len(manifest["spans"])
        self._points = experiment.points()
        self._reports = Reports(manifest, len(self._points), self._names, tell)
        self._outcomes: dict[int, str] = {}
        self._tries: dict[int, int] = {}  # how often points were measured that are done again
        self._before_points: dict[str, Any] = {"commands": []}
        steps = (*experiment.setup, *experiment.measure, *experiment.teardown)
        if {role.name for role in experiment.roles} != set(self._roles) or any(
            step.script is not None and step.script not in scripts for step in steps
        ):
            raise Failure("the archive has not the roles and scripts that its experiment tells")

    def run(
        self, before: Mapping[int, dict[str, Any]], *, force: bool, again: bool = False,
        begun: Callable[[], object] = lambda: None,
    ) -> bool:
        """Run what is left, after the points that are known; return whether all points are done.

        `force` disturbs other people, who were asked before: their nodes are booted, and with it
        taken. With `again`, points that failed, or whose end nobody knows, are left, too. `begun`
        is called when the nodes are ours. What an earlier part owes is done in any case. Raises
        Failure.
        """
        if again:
            self._tries = {
                number: point["tries"] for number, point in before.items()
                if point["outcome"] in FINAL and point["outcome"] != "done"
            }
            before = {
                number: point for number, point in before.items() if number not in self._tries
            }
        try:
            self._know(before)
            if not self._is_final():
                if self._manifest["state"] == RELEASED:
                    raise Failure(
                        "what this run held was given back by `walt experiment release`: it cannot"
                        " be gone on with, only done again"
                    )
                with self.going(before, force=force, begun=begun):
                    self._measure(before)
            elif self._duties:
                self._finish("done")
            return self._is_done()
        finally:
            self._folder.leave()

    def release(self, before: Mapping[int, dict[str, Any]]) -> bool:
        """Do what an earlier part of the run owes, and measure no more; return whether that is all.

        Raises Failure.
        """
        try:
            self._know(before)
            if self._duties:
                self._finish("done" if self._is_final() else RELEASED)
            return RELEASE not in self._duties
        finally:
            self._folder.leave()

    def _know(self, before: Mapping[int, dict[str, Any]]) -> None:
        self._outcomes = {number: point["outcome"] for number, point in before.items()}

    @contextmanager
    def going(
        self, before: Mapping[int, dict[str, Any]], *, force: bool,
        begun: Callable[[], object] = lambda: None,
    ) -> Iterator[None]:
        """Have the nodes ready for points, which are measured within; see `run`.

        The folder is left at the end; one that was made for nothing is removed.
        """
        reserved = False
        try:
            if force:
                self._begin_part()
                self._preparing.boot(True, measured=bool(self._outcomes))
            reservation = Reservation(
                "*", len(self._names), ",".join(self._names), LONGEST_RESERVATION, 0
            )
            with reservation:
                reserved = True
                self._lease.begin(reservation)
                begun()
                if not force:
                    self._begin_part()
                try:
                    with self._set_up_for(before, booted=force):
                        self._reports.state(RUNNING)
                        yield
                finally:
                    if not self._stays:
                        self._lease.ask()
                        self._duties.give_back(self._names)
        except OF_THE_API as error:
            told = str(error).partition("; force=True")[0] or "it took too long"
            raise Failure(told) from None
        except LeaseLost as lost:
            raise Failure(str(lost)) from None
        except KeyboardInterrupt:
            if force and not reserved:
                self._stays = True
                self._end_part("interrupted")
            raise
        finally:
            if force and not reserved and not self._stays:
                self._undo()
            self._shells.close()
            self._reports.end()
            if not self._manifest["spans"]:
                self._folder.discard()
            self._folder.leave()

    def _begin_part(self) -> None:
        """Note that nodes are touched from now on, and what is owed with that."""
        self._reports.begin(self._outcomes)
        self._begin_span()
        self._duties.begin()

    def _begin_span(self) -> None:
        """Begin a time whose log lines are kept; those in which nobody ended ended by a kill."""
        now = self._time.now()
        apart, last = now - time.time(), self._folder.last_written()
        for span in self._manifest["spans"]:
            if span[1] is None:
                span[1] = max(span[0], last + apart)
        self._manifest["spans"].append([now, None])

    def _end_part(self, state: str) -> None:
        self._manifest["spans"][-1][1] = self._time.now()
        self._manifest["ended"] = time.time()
        self._manifest["state"] = state
        self._reports.state(state)
        self._folder.write_manifest(self._manifest)

    def _finish(self, state: str, *, begun: bool = False) -> None:
        """Do what is owed, as far as nodes can be had; no point is measured. Raises Failure.

        It is a part of the run of its own, or the end of one that has `begun`.
        """
        with self._duties.reserving() as ours:
            if not begun:
                self._begin_span()
            if TEARDOWN in self._duties:
                if ours == {*self._names} and self._set_up_there():
                    self._tear_down()
                elif self._experiment.teardown:
                    self._tell("there is no teardown: the nodes are not as they were set up")
                self._duties.done(TEARDOWN)
            self._end_part(state)
            self._collect()
            self._duties.give_back(ours)

    def _collect(self) -> None:
        self._duties.collect(
            self._experiment.streams, self._clocks.stamping(), self._time.now(),
            last=not self._stays,
        )

    def _undo(self) -> None:
        """Nodes of others were booted, some at least, and cannot be had."""
        try:
            self._finish("failed", begun=True)
        except (Failure, OSError) as error:
            self._tell(f"images and settings are as the run had them: {in_words(error)}")

    def _is_final(self) -> bool:
        return all(self._outcomes.get(point.number) in FINAL for point in self._points)

    def _is_done(self) -> bool:
        return all(self._outcomes.get(point.number) == "done" for point in self._points)

    @contextmanager
    def _set_up_for(
        self, before: Mapping[int, dict[str, Any]], *, booted: bool
    ) -> Iterator[None]:
        state = "failed"
        try:
            if booted or not before or not self._set_up_there():
                if not booted:
                    self._preparing.boot(False, measured=bool(self._outcomes))
                self._preparing.note_facts(self._each(FACTS))
                self._duties.check_images()
                self._set_up()
            with self._clocks:
                yield
            self._lease.check()
            state = "done" if self._is_final() else "interrupted"  # a program may leave its loop
        except KeyboardInterrupt:
            # Nobody goes on with a program: it gives back what it took.
            state, self._stays = "interrupted", not self._experiment.program
            raise
        except LeaseLost:
            state, self._stays = "interrupted", True
            raise
        finally:
            self._close(state)

    # -- before the points -------------------------------------------------------

    def _each(self, command: str) -> dict[str, Result]:
        """Run a short command on all nodes."""
        return at_once(self._names, lambda name: self._shells.run(name, command, SOON))

    def _set_up_there(self) -> bool:
        """Tell whether all nodes run since they were set up for this run."""
        try:
            found = self._each(f"test -e {self._place}-up")
        except (Failure, TimeoutException):
            return False
        return all(result.status == 0 for result in found.values())

    def _set_up(self) -> None:
        self._beside_points("setup", self._experiment.setup)
        self._each(f"mkdir -p {PLACE} && touch {self._place}-up")

    def set_up(self, step: Step) -> dict[str, Any]:
        """Do a step before the points; return the record of all of these. Raises Failure."""
        record = self._before_points
        with self._scope("setup", record) as scope:
            self._steps.do(
                scope, len(record["commands"]) and record["commands"][-1]["step"] + 1, step, {},
                record,
            )
        return record

    def _beside_points(self, name: str, steps: tuple[Step, ...]) -> None:
        """Do what comes before or after the points, once in each part of a run."""
        record: dict[str, Any] = {"commands": []}
        with self._scope(name, record) as scope:
            for order, step in enumerate(steps):
                self._steps.do(scope, order, step, {}, record)

    @contextmanager
    def _scope(self, name: str, record: dict[str, Any]) -> Iterator[str]:
        """Give the name of the steps of a scope; its record is kept, however it ends."""
        scope = f"{name}-{self._span}"
        try:
            yield scope
            self._steps.end()
        except StepFailed as failed:
            raise Failure(f"{name}: {failed}") from None
        finally:
            self._steps.drop()
            write_json(self._folder.path / f"{scope}.json", record)

    # -- points ------------------------------------------------------------------

    def _measure(self, before: Mapping[int, dict[str, Any]]) -> None:
        for point in self._points:
            known = before.get(point.number)
            if known is not None and known["outcome"] in FINAL:
                continue
            self.check_lease()
            record = self._point(point, known)
            self.note(point, record)
            if record["outcome"] == "unknown" and point is not self._points[-1]:
                self._boot_again()

    def check_lease(self) -> None:
        """Raise LeaseLost when somebody else has the nodes."""
        self._lease.check()

    def note(self, point: Point, record: dict[str, Any]) -> None:
        """Tell how a point ended."""
        self._outcomes[point.number] = record["outcome"]
        self._reports.note(point.number, record["outcome"])
        words = " ".join(
            f"{name}={median(values):g}" for name, values in record["results"].items()
        )
        reason = f": {record['reason']}" if record["reason"] else ""
        self._tell(
            f"point {point.number} of {len(self._points)}, {point}:"
            f" {record['outcome']}{reason} {words}".rstrip()
        )

    def _boot_again(self) -> None:
        """A node booted within a point: what was set up there is set up again."""
        self._lease.ask()
        try:
            NodeSet(find(",".join(self._names))).wait(self._experiment.limits.boot)
        except TimeoutException:
            raise Failure("a node did not boot again") from None
        self._set_up()

    def _close(self, state: str) -> None:
        """Tear down, unless somebody goes on with it later; collect what the platform knows."""
        try:
            if not self._stays:
                self._lease.ask()
                self._tear_down()
            self._end_part(state)
            self._collect()
        except (KeyboardInterrupt, LeaseLost):
            self._stays = True
            self._end_part("interrupted")
            raise

    def _tear_down(self) -> None:
        left = "-*"
        try:
            self._beside_points("teardown", self._experiment.teardown)
        except (Failure, TimeoutException) as failure:
            self._tell(f"teardown: {failure}")
            left = "-up"
        try:
            self._each(f"rm -rf {self._place}{left}")
        except (Failure, TimeoutException) as failure:
            self._tell(f"teardown: {failure}")
        self._duties.done(TEARDOWN)

    def _point(self, point: Point, known: dict[str, Any] | None) -> dict[str, Any]:
        """Measure a point, or go on with one that was begun; return its record."""
        earlier = self._tries.get(point.number, 0)
        tries = earlier + 1 if known is None else known["tries"]
        while True:
            record = known or new_record(point, tries)
            self._try(point, record, again=known is not None)
            if record["outcome"] != "failed" or tries - earlier > self._experiment.limits.retries:
                return record
            self._tell(f"point {point.number}: {record['reason']}; it is tried again")
            known, tries = None, tries + 1

    def _try(self, point: Point, record: dict[str, Any], *, again: bool) -> None:
        steps, begun = self._experiment.measure, {entry["step"] for entry in record["commands"]}
        with self.measuring(record):
            if again and any(step.start for step in steps) and begun:
                raise StepLost("what ran in the background ended with the run before")
            for order, step in enumerate(steps):
                self.do(point, record, order, step, follow=order in begun)
            self._steps.end()
            self._results(point, record)

    def do(
        self, point: Point, record: dict[str, Any], order: int, step: Step, *,
        follow: bool = False,
    ) -> None:
        """Do a step of a point. Raises StepFailed, StepLost."""
        self._steps.do(f"p{point.number:05d}-t{record['tries']}", order, step, {
            **point.values, "WALT_POINT": str(point.number),
            "WALT_REPETITION": str(point.repetition),
        }, record, follow=follow)

    @contextmanager
    def measuring(self, record: dict[str, Any]) -> Iterator[None]:
        """Keep how a point ends that is measured within; one that fails is no failure of the run.
        """
        record.update(outcome="running", reason="")
        try:
            yield
            self._steps.end()
            record["outcome"] = "done"
        except StepLost as lost:
            record.update(outcome="unknown", reason=str(lost))
        except StepFailed as failed:
            record.update(outcome="failed", reason=str(failed))
        except LeaseLost:
            record["outcome"] = "unknown"
            raise
        except BaseException as stopped:
            record.update(outcome="interrupted", reason=str(stopped)[:TOLD])
            raise
        finally:
            self._steps.drop()
            if self._lease.lost and record["outcome"] != "interrupted":
                record.update(outcome="unknown", reason=(
                    f"the nodes were not reserved for this run any more: {self._lease.lost}"
                ))
            record["seconds"] = time.time() - record["began"]
            self._folder.write_point(record)

    def _results(self, point: Point, record: dict[str, Any]) -> None:
        for measure in self._experiment.results:
            role, _, file = measure.file.partition("/")
            names = self._roles[role]
            found = []
            for name in names:
                parts = (role, name, file) if len(names) > 1 else (role, file)
                path = self._folder.place(f"p{point.number:05d}", *parts)
                try:
                    with path.open(errors="replace") as text:
                        found.append(number(measure.pattern, text.read(MOST_POINT)))
                except (OSError, ValueError) as error:
                    raise StepFailed(
                        f"{measure.name}: {file} of {name}: {in_words(error)}"
                    ) from None
            record["results"][measure.name] = found
