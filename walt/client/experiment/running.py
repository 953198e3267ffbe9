"""Run an experiment: reserve, boot, set up, measure point by point, tear down, collect."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import time
from pathlib import Path
from statistics import median

import walt
from walt.client.errors import Failure, Refused
from walt.client.exceptions import TimeoutException
from walt.client.experiment.archive import BOOTS, FORMAT, LOGS, Folder, write, write_json
from walt.client.experiment.detached import PLACE, Outcome, perform, prelude
from walt.client.experiment.model import EVERYBODY
from walt.client.scripting.boots import boots_of
from walt.client.scripting.images import OwnImage
from walt.client.scripting.link import LINK
from walt.client.scripting.logs import get_logs
from walt.client.scripting.nodes import NodeSet, find
from walt.client.scripting.reserving import Reservation
from walt.client.scripting.running import Program, run

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    from walt.client.experiment.casting import Cast
    from walt.client.experiment.model import Experiment, Point, Step

    T = TypeVar("T")

FINAL = ("done", "failed", "unknown")  # points that are never measured again
LONGEST_RESERVATION = 7 * 86400.0  # seconds
FACTS = "uname -srm; sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1; nproc"
TOLD = 500  # characters of an error that are told


def manifest_of(experiment: Experiment, cast: Cast, text: str) -> dict[str, Any]:
    """Return the manifest of a run that begins now."""
    began = time.time()
    return {
        "format": FORMAT, "name": experiment.name, "licence": experiment.licence,
        "run": hashlib.sha256(f"{began} {experiment.name}".encode()).hexdigest()[:12],
        "began": began, "ended": None, "state": "running",
        "walt": {"client": walt.__version__, "server": ""},
        "definition": hashlib.sha256(text.encode()).hexdigest(),
        "roles": cast.nodes, "nodes": {}, "images": {},
        "booted": {role.name: role.image for role in experiment.roles},
    }


def at_once(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """Do something for each name at the same time; raise the first failure after all ended.

    Ctrl-C leaves at once: what was begun goes on without us.
    """
    results: dict[str, T] = {}
    failures: list[BaseException] = []

    def on(name: str) -> None:
        try:
            results[name] = work(name)
        except BaseException as failure:
            failures.append(failure)
        finally:
            LINK.close()

    threads = [threading.Thread(target=on, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
    if failures:
        raise failures[0]
    return results


class _Failed(Exception):
    """A step did not end well."""


class Runner:
    """One run. `tell` shows a line about how it goes."""

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
        self._programs: list[tuple[str, str, Program, dict[str, Any]]] = []
        self._place = f"{PLACE}/{manifest['run']}"

    def run(self, before: Mapping[int, dict[str, Any]], *, force: bool) -> bool:
        """Run what is left, after the points that are known; return whether all points are done.

        `force` disturbs other people, who were asked before. Raises Failure.
        """
        text = ",".join(self._names)
        with Reservation("*", len(self._names), text, LONGEST_RESERVATION, 0):
            if not before or not self._set_up_there():
                self._boot(force)
                self._facts()
                self._scope("setup", self._experiment.setup)
            return self._measure(before)

    # -- before the points -------------------------------------------------------

    def _set_up_there(self) -> bool:
        """Tell whether all nodes run since they were set up for this run."""
        try:
            found = at_once(self._names, lambda name: run(name, f"test -e {self._place}-up", 60.0))
        except (Failure, TimeoutException):
            return False
        return all(result.status == 0 for result in found.values())

    def _boot(self, force: bool) -> None:
        experiment = self._experiment
        for role in experiment.roles:
            if role.settings:
                LINK.call(
                    "cs.devices.set_config", devices=",".join(self._roles[role.name]),
                    settings=[f"{key}={value}" for key, value in role.settings.items()],
                    nodes_only=True,
                )
        began = time.monotonic()
        for role in experiment.roles:
            names = ",".join(self._roles[role.name])
            self._tell(f"booting {names} with {role.image}")
            if not NodeSet(find(names)).boot(role.image, force=force):
                raise Failure(f"{names} could not be rebooted")
        try:
            NodeSet(find(",".join(self._names))).wait(experiment.limits.boot)
        except TimeoutException:
            late = [name for name in self._names if not find(name)[0].booted]
            raise Failure(
                f"not booted after {experiment.limits.boot:g} s: {', '.join(late)}"
                f" (`walt node boots {','.join(late)}` tells the stage)"
            ) from None
        self._tell(f"booted in {time.monotonic() - began:.1f} s")

    def _facts(self) -> None:
        """Note what the nodes are."""
        told = at_once(self._names, lambda name: run(name, FACTS, 60.0))
        for node in find(",".join(self._names)):
            kernel, cpu, processors = (*told[node.name].output.splitlines(), "", "", "")[:3]
            self._manifest["nodes"][node.name] = {
                "mac": node.mac, "ip": node.ip, "model": node.model, "virtual": node.virtual,
                "image": node.image.fullname, "kernel": kernel, "cpu": cpu,
                "processors": processors, "settings": node.config._values(),
            }
            # The id of an image is the hash of its configuration, which lists its layers.
            if isinstance(node.image, OwnImage):
                self._manifest["images"][node.image.fullname] = node.image.id
        self._manifest["walt"]["server"] = LINK.server_version
        self._folder.write_manifest(self._manifest)

    def _scope(self, scope: str, steps: tuple[Step, ...]) -> None:
        """Do what comes before or after the points."""
        record: dict[str, Any] = {"commands": []}
        try:
            for number, step in enumerate(steps):
                self._step(scope, number, step, {}, record)
        except _Failed as failed:
            raise Failure(f"{scope}: {failed}") from None
        finally:
            self._end_programs()
            write_json(self._folder.path / f"{scope}.json", record)
        if scope == "setup":
            at_once(self._names, lambda name: run(name, f"touch {self._place}-up", 60.0))

    # -- points ------------------------------------------------------------------

    def _measure(self, before: Mapping[int, dict[str, Any]]) -> bool:
        points, began, state = self._experiment.points(), self._manifest["began"], "done"
        try:
            for point in points:
                known = before.get(point.number)
                if known is not None and known["outcome"] in FINAL:
                    continue
                record = self._point(point, known)
                words = " ".join(
                    f"{name}={_short(values)}" for name, values in record["results"].items()
                )
                reason = f": {record['reason']}" if record["reason"] else ""
                self._tell(
                    f"point {point.number} of {len(points)}, {point}: {record['outcome']}"
                    f"{reason} {words}".rstrip()
                )
                if record["outcome"] == "unknown" and point is not points[-1]:
                    self._boot_again()
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except BaseException:
            state = "failed"
            raise
        finally:
            self._close(state, began)
        return all(
            json.loads(path.read_text())["outcome"] == "done"
            for path in (self._folder.path / "points").glob("*.json")
        )

    def _boot_again(self) -> None:
        """A node booted within a point: what was set up there is set up again."""
        try:
            NodeSet(find(",".join(self._names))).wait(self._experiment.limits.boot)
        except TimeoutException:
            raise Failure("a node did not boot again") from None
        self._scope("setup", self._experiment.setup)

    def _close(self, state: str, began: float) -> None:
        """Tear down, and collect what the platform knows of the run."""
        try:
            self._scope("teardown", self._experiment.teardown)
        except (Failure, TimeoutException) as failure:
            self._tell(str(failure))
        self._manifest.update(state=state, ended=time.time())
        self._folder.write_manifest(self._manifest)
        try:
            boots = boots_of(",".join(self._names), 100)
            write_json(self._folder.path / BOOTS, [
                boot._asdict() for boot in boots if boot.asked is None or boot.asked >= began - 1
            ])
            self._collect_logs(began)
        except (Failure, TimeoutException) as failure:
            self._tell(f"logs and boots were not collected: {failure}")

    def _collect_logs(self, began: float) -> None:
        pattern = self._experiment.streams
        if pattern is None:
            return
        wanted = re.compile(pattern)
        lines = get_logs(
            ",".join(self._names), False, f"-{time.time() - began + 1:.0f}s:", -1, True,
            _Names(),  # type: ignore[arg-type]
        )
        beside = self._folder.path / f".{LOGS}.new"
        with gzip.open(beside, "wt", encoding="utf-8") as file:
            for log in lines:
                if wanted.search(log.stream):
                    file.write(json.dumps(
                        [log.timestamp.timestamp(), str(log.issuer), log.stream, log.line]
                    ) + "\n")
        beside.rename(self._folder.path / LOGS)

    def _point(self, point: Point, known: dict[str, Any] | None) -> dict[str, Any]:
        """Measure a point, or go on with one that was begun; return its record."""
        tries = 1 if known is None else known["tries"]
        while True:
            record = known or {
                "number": point.number, "repetition": point.repetition,
                "values": dict(point.values), "tries": tries, "outcome": "running",
                "reason": "", "commands": [], "results": {}, "began": time.time(), "seconds": 0.0,
            }
            self._try(point, record, again=known is not None)
            if record["outcome"] != "failed" or tries > self._experiment.limits.retries:
                return record
            self._tell(f"point {point.number}: {record['reason']}; it is tried again")
            known, tries = None, tries + 1

    def _try(self, point: Point, record: dict[str, Any], *, again: bool) -> None:
        scope = f"p{point.number:04d}-t{record['tries']}"
        steps, begun = self._experiment.measure, {entry["step"] for entry in record["commands"]}
        record.update(outcome="running", reason="")
        values = {
            **point.values, "WALT_POINT": str(point.number),
            "WALT_REPETITION": str(point.repetition),
        }
        try:
            if again and any(step.start for step in steps) and begun:
                raise _Lost("what ran in the background ended with the run before")
            for number, step in enumerate(steps):
                self._step(scope, number, step, values, record, follow=number in begun)
            self._end_programs()
            self._results(point, record)
            record["outcome"] = "done"
        except _Lost as lost:
            record.update(outcome="unknown", reason=str(lost))
        except _Failed as failed:
            record.update(outcome="failed", reason=str(failed))
        except BaseException as stopped:
            record.update(outcome="interrupted", reason=str(stopped)[:TOLD])
            raise
        finally:
            self._end_programs()
            record["seconds"] = time.time() - record["began"]
            self._folder.write_point(record)

    # -- steps -------------------------------------------------------------------

    def _step(
        self, scope: str, number: int, step: Step, values: Mapping[str, str],
        record: dict[str, Any], *, follow: bool = False,
    ) -> None:
        """Do a step on all nodes of its role at once. Raises _Failed, _Lost."""
        roles = list(self._roles) if step.role == EVERYBODY else [step.role]
        work = {name: role for role in roles for name in self._roles[role]}
        command = step.command if step.script is None else self._scripts[step.script]
        limit = step.timeout or self._experiment.limits.step
        entries = {}
        for name, role in work.items():
            entry = next((
                one for one in record["commands"] if one["step"] == number and one["node"] == name
            ), None)
            if entry is None:
                entry = {
                    "step": number, "role": role, "node": name, "outcome": "begun",
                    "status": None, "seconds": None, "background": step.start,
                    "command": step.script or step.command,
                }
                record["commands"].append(entry)
            entries[name] = entry
        if "number" in record:
            self._folder.write_point(record)
        directory = f"{self._place}-{scope}"

        def before(name: str) -> str:
            return prelude(self._environment(work[name], name, values), directory)

        if step.start:
            self._start(scope, step, command, before, entries, limit)
            return
        outcomes = at_once(work, lambda name: perform(
            name, f"{self._manifest['run']}-{scope}-{number}", before(name), command, limit,
            follow=follow,
        ))
        for name, outcome in outcomes.items():
            self._keep(scope, number, name, outcome, entries[name])
        for name, outcome in outcomes.items():
            if outcome.outcome == "unknown":
                raise _Lost(f"{name} lost the command: it booted meanwhile")
            if outcome.outcome == "timeout":
                raise _Failed(f"{name}: no end after {limit:g} s: {_what(step)}")
            if outcome.status != 0:
                raise _Failed(
                    f"{name}: status {outcome.status}: {_what(step)}: "
                    + (outcome.error.strip() or outcome.output.strip())[-TOLD:]
                )
        self._save(scope, step, work, directory)

    def _start(
        self, scope: str, step: Step, command: str, before: Callable[[str], str],
        entries: Mapping[str, dict[str, Any]], limit: float,
    ) -> None:
        for name, entry in entries.items():
            program = Program(name, f"{before(name)}\n{command}")
            self._programs.append((scope, name, program, entry))
            if step.ready is not None:
                try:
                    program.ready(step.ready, limit)
                except TimeoutException:
                    raise _Failed(f"{name}: {step.ready!r} was not printed") from None
                except Failure as failure:
                    raise _Failed(f"{name}: {failure}") from None

    def _end_programs(self) -> None:
        """End what runs in the background, and keep what it printed."""
        programs, self._programs = self._programs, []
        for scope, name, program, entry in programs:
            running = program.running
            program.stop()
            outcome = Outcome(
                "stopped" if running else "ended", 0, program.output, program.error, 0.0
            )
            self._keep(scope, entry["step"], name, outcome, entry)

    def _keep(
        self, scope: str, number: int, name: str, outcome: Outcome, entry: dict[str, Any]
    ) -> None:
        entry.update(outcome=outcome.outcome, status=outcome.status, seconds=outcome.seconds)
        for kind, text in (("out", outcome.output), ("err", outcome.error)):
            if text:
                path = Path("commands", scope, f"{number:02d}-{name}.{kind}")
                write(self._folder.path / path, text.encode(errors="surrogateescape"))
                entry[kind] = path.as_posix()

    def _save(self, scope: str, step: Step, work: Mapping[str, str], directory: str) -> None:
        """Fetch what the step left, into role/file, or role/node/file where there are more."""
        point = int(scope[1:5]) if scope[0] == "p" and scope[1:5].isdecimal() else 0

        def fetch(name: str) -> None:
            parts = (work[name], name) if len(self._roles[work[name]]) > 1 else (work[name],)
            place = self._folder.place(point, *parts)
            place.mkdir(parents=True, exist_ok=True)
            for file in step.save:
                try:
                    find(name)[0].get(f"{directory}/{file}", str(place / file))
                except Refused as refused:
                    raise _Failed(f"{name}: {file} was not saved: {refused}") from None

        at_once(work, fetch)

    def _results(self, point: Point, record: dict[str, Any]) -> None:
        for measure in self._experiment.results:
            role, _, file = measure.file.partition("/")
            names = self._roles[role]
            found = []
            for name in names:
                parts = (role, name, file) if len(names) > 1 else (role, file)
                text = self._folder.place(point.number, *parts).read_text(errors="replace")
                match = re.search(measure.pattern, text)
                try:
                    found.append(float(match[1] if match else ""))
                except ValueError:
                    raise _Failed(f"{measure.name}: {file} of {name} has no such number") from None
            record["results"][measure.name] = found

    def _environment(
        self, role: str, name: str, values: Mapping[str, str]
    ) -> dict[str, str]:
        found = {**values, "WALT_ROLE": role, "WALT_NODE": name}
        nodes = self._manifest["nodes"]
        for other, names in self._roles.items():
            prefix = f"WALT_{other.upper().replace('-', '_')}"
            found[f"{prefix}_NAMES"] = " ".join(names)
            found[f"{prefix}_IP"] = " ".join(nodes[one]["ip"] for one in names)
        return found


class _Lost(_Failed):
    """Nobody knows how a command ended."""


class _Names:
    """Issuers of log lines, by their names alone."""

    def __getitem__(self, name: str) -> str:
        return name


def _what(step: Step) -> str:
    return step.script or step.command.strip().splitlines()[0][:60]


def _short(values: list[float]) -> str:
    return f"{median(values):g}"
