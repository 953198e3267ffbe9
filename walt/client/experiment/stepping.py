"""Steps of experiments on the nodes of their roles."""

from __future__ import annotations

import re
from pathlib import Path

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.experiment.archive import fresh, write
from walt.client.experiment.channels import NO_FILE
from walt.client.experiment.detached import PLACE, Outcome, attached, perform, prelude
from walt.client.experiment.model import EVERYBODY
from walt.client.experiment.parallel import at_once
from walt.client.scripting.running import Program
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from walt.client.experiment.archive import Folder
    from walt.client.experiment.channels import Shells
    from walt.client.experiment.model import Limits, Step

AHEAD = 32  # points whose directories are made at once
PATIENCE = 120.0  # seconds for a server or a node that is away
TOLD = 500  # characters of an error that are told


class StepFailed(Exception):
    """A step did not end well."""


class StepLost(StepFailed):
    """Nobody knows how a command ended."""


class Steps:
    """Does steps, keeps what they printed and left in `folder`, and ends what they started."""

    def __init__(
        self, folder: Folder, manifest: dict[str, Any], scripts: Mapping[str, str],
        limits: Limits, shells: Shells, check: Callable[[], None],
    ) -> None:
        self._shells = shells
        self._check_lease = check
        self._folder = folder
        self._manifest = manifest
        self._roles: dict[str, list[str]] = manifest["roles"]
        self._scripts = scripts
        self._limits = limits
        self._programs: list[tuple[Step, str, str, Program, dict[str, Any]]] = []
        self._place = f"{PLACE}/{manifest['run']}"

    def do(
        self, scope: str, order: int, step: Step, values: Mapping[str, str],
        record: dict[str, Any], *, follow: bool = False,
    ) -> None:
        """Do a step on all nodes of its role at once. Raises StepFailed, StepLost."""
        roles = list(self._roles) if step.role == EVERYBODY else [step.role]
        work = {name: role for role in roles for name in self._roles[role]}
        entries = {
            name: self._entry(record, order, step, role, name) for name, role in work.items()
        }
        if "number" in record:
            # The nodes know what was begun, too, and outlive the power of this machine.
            self._folder.write_point(record, lasting=False)
        directory = f"{self._place}-{scope}"
        ahead = [f"{self._place}-{name}" for name in _next(scope)]
        command = step.command if step.script is None else self._scripts[step.script]
        limit = step.timeout or self._limits.step

        def before(name: str) -> str:
            return prelude(self._environment(work[name], name, values), directory, ahead)

        if step.start:
            self._start(scope, order, step, command, before, entries, limit)
            return
        outcomes = at_once(work, lambda name: perform(
            self._shells, name, f"{self._manifest['run']}-{scope}-{order}", before(name), command,
            limit, follow=follow, patience=max(PATIENCE, self._limits.boot),
        ))
        for name, outcome in outcomes.items():
            self._keep(scope, order, name, outcome, entries[name])
        for name, outcome in outcomes.items():
            if outcome.outcome == "unknown":
                raise StepLost(f"{name} lost the command: {outcome.error or 'it booted meanwhile'}")
            if outcome.outcome == "timeout":
                raise StepFailed(f"{name}: no end after {limit:g} s: {_what(step)}")
            _check(name, step, outcome)
        for name, role in work.items():
            self._save(scope, step, name, role)

    def _entry(
        self, record: dict[str, Any], order: int, step: Step, role: str, name: str
    ) -> dict[str, Any]:
        """Return the record of a command on a node, which is new or was begun before."""
        for known in record["commands"]:
            if known["step"] == order and known["node"] == name:
                found: dict[str, Any] = known
                return found
        entry = {
            "step": order, "role": role, "node": name, "outcome": "begun", "status": None,
            "seconds": None, "background": step.start, "command": step.script or step.command,
        }
        record["commands"].append(entry)
        return entry

    def _start(
        self, scope: str, order: int, step: Step, command: str, before: Callable[[str], str],
        entries: Mapping[str, dict[str, Any]], limit: float,
    ) -> None:
        for name, entry in entries.items():
            place = f"{self._place}-{scope}-{order}"
            self._check_lease()
            program = Program(name, attached(before(name), command, place))
            self._programs.append((step, scope, name, program, entry))
            if step.ready is not None:
                try:
                    program.ready(step.ready, limit)
                except TimeoutException:
                    raise StepFailed(f"{name}: {step.ready!r} was not printed") from None
                except Failure as failure:
                    raise StepFailed(f"{name}: {failure}") from None

    def end(self) -> None:
        """End what runs in the background; one that ended by itself must have ended well."""
        programs, self._programs = self._programs, []
        outcomes = [
            (step, scope, name, entry, self._ended(scope, name, program, entry))
            for step, scope, name, program, entry in programs
        ]
        for step, scope, name, entry, outcome in outcomes:
            _check(name, step, outcome)
            self._save(scope, step, name, entry["role"])

    def drop(self) -> None:
        """End what runs in the background; what became of it does not matter any more."""
        programs, self._programs = self._programs, []
        for _, scope, name, program, entry in programs:
            self._ended(scope, name, program, entry)

    def _ended(
        self, scope: str, name: str, program: Program, entry: dict[str, Any]
    ) -> Outcome:
        running = program.running
        program.stop()
        status, error = 0, program.error
        if not running:
            try:
                status = program.wait(0).status
            except (Failure, TimeoutException) as failure:
                status, error = -1, f"{error}{failure}"
        outcome = Outcome("stopped" if running else "ended", status, program.output, error, 0.0)
        self._keep(scope, entry["step"], name, outcome, entry)
        return outcome

    def _keep(
        self, scope: str, order: int, name: str, outcome: Outcome, entry: dict[str, Any]
    ) -> None:
        entry.update(outcome=outcome.outcome, status=outcome.status, seconds=outcome.seconds)
        for kind, text in (("out", outcome.output), ("err", outcome.error)):
            if text:
                path = Path("commands", scope, f"{order:02d}-{name}.{kind}")
                write(self._folder.path / path, text.encode(errors="replace"))
                entry[kind] = path.as_posix()

    def _save(self, scope: str, step: Step, name: str, role: str) -> None:
        """Fetch what the step left, into role/file, or role/node/file where there are more."""
        parts = (role, name) if len(self._roles[role]) > 1 else (role,)
        place = self._folder.place(scope.partition("-t")[0], *parts)
        for file in step.save:
            limit = max(PATIENCE, step.timeout or self._limits.step)
            try:
                with fresh(place / file) as target:
                    status = self._shells.fetch(
                        name, f"{self._place}-{scope}/{file}", target.write, limit
                    )
                    if status:
                        raise StepFailed(f"{name}: {file} " + (
                            f"is no file; write `tar -cf {file}.tar {file}`"
                            if status == NO_FILE else "was not saved: there is no such file"
                        ))
            except TimeoutException:
                raise StepFailed(
                    f"{name}: {file} was not saved: it takes more than {limit:g} s"
                ) from None
            except (Failure, OSError) as failure:
                raise StepFailed(
                    f"{name}: {file} was not saved: {in_words(failure)}"
                ) from None

    def _environment(
        self, role: str, name: str, values: Mapping[str, str]
    ) -> dict[str, str]:
        found = {**values, "WALT_ROLE": role, "WALT_NODE": name}
        nodes = self._manifest["nodes"]
        for other, names in self._roles.items():
            prefix = f"WALT_{other.upper().replace('-', '_')}"
            found[f"{prefix}_NAMES"] = " ".join(names)
            found[f"{prefix}_IP"] = " ".join(nodes[node]["ip"] for node in names)
        return found


def _next(scope: str) -> list[str]:
    """Return the scopes of the points that come after one, as far as these are first tries."""
    if not scope.startswith("p") or not scope.endswith("-t1"):
        return []
    number = int(scope[1:6])
    return [f"p{later:05d}-t1" for later in range(number + 1, number + AHEAD)]


def _check(name: str, step: Step, outcome: Outcome) -> None:
    if outcome.status != 0:
        raise StepFailed(
            f"{name}: status {outcome.status}: {_what(step)}: "
            + _of_people(outcome.error.strip() or outcome.output.strip())[-TOLD:]
        )


def _of_people(text: str) -> str:
    """Return an error without what shells call the file that has the command: a name of ours."""
    ours = rf"^(?:\S+: )?(?:\d+: )?{re.escape(PLACE)}/\S+\.command: "
    return re.sub(ours, "", text, flags=re.MULTILINE)


def _what(step: Step) -> str:
    return step.script or step.command.strip().splitlines()[0][:60]
