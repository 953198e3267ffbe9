"""An experiment file becomes an experiment; all that is wrong with it is told at once."""

from __future__ import annotations

import math
import re
import shlex
import warnings
from pathlib import Path

from walt.client.errors import WRONG_WORDS, Failure
from walt.client.experiment.document import Errors, Value, read
from walt.client.experiment.model import (
    EVERYBODY,
    MOST_LINKS,
    MOST_POINTS,
    RESERVED,
    ROLE,
    SETTING,
    VARIABLE,
    Experiment,
    Limits,
    Link,
    Measure,
    Role,
    Step,
)
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Collection

VARIED = re.compile(r"\$\{?[A-Z_]")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")  # of a script, of what a step saves
LATENCY = re.compile(r"[0-9]{1,6}(ms|us)")
BANDWIDTH = re.compile(r"[0-9]{1,6}(Mbps|Gbps)")
KEYS = (
    "name", "licence", "program", "roles", "links", "variables", "repetitions", "setup",
    "measure", "teardown", "results", "logs", "limits",
)
STEP_KEYS = ("start", "ready", "timeout", "save")
LONGEST = 40_000  # octets of a command or a script: they travel as words of a command line
COLUMNS = ("point", "rep", "outcome", "seconds", "reason")  # of the table of points
DAY = 86400.0


def load(path: Path) -> tuple[Experiment, str, dict[str, str]]:
    """Return the experiment of a file, its text, and the texts of its scripts by name.

    Raises Failure with everything that is wrong, a line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Failure(f"{path} cannot be read: {in_words(error)}") from None
    errors = Errors()
    experiment = parsed(text, errors)
    scripts = {} if experiment is None else _scripts(experiment, path.parent, errors)
    if errors or experiment is None:
        raise Failure(errors.told(path.name), WRONG_WORDS)
    return experiment, text, scripts


def parsed(text: str, errors: Errors) -> Experiment | None:
    """Return the experiment of a text; what is wrong with it is added to `errors`."""
    root = read(text, errors)
    if root is None:
        return None
    fields = root.fields(*KEYS)
    program = fields["program"].name(FILE, "the name of a program") if "program" in fields else ""
    for key in ("name", "roles") if program else ("name", "roles", "measure"):
        if key not in fields and isinstance(root.content, dict):
            root.error(f"{key} is missing")
    name = fields["name"].name(NAME, "a name of letters, digits, ., _ and -") \
        if "name" in fields else ""
    roles = _roles(fields["roles"]) if "roles" in fields else ()
    known = {role.name for role in roles}
    links = _links(fields["links"], roles) if "links" in fields else ()
    variables = _variables(fields["variables"]) if "variables" in fields else {}
    repetitions = fields["repetitions"].whole(1, MOST_POINTS) if "repetitions" in fields else 1
    if math.prod(map(len, variables.values())) * repetitions > MOST_POINTS:
        root.error(f"there are more than {MOST_POINTS} points")
    steps = {
        key: _steps(fields[key], known) if key in fields else ()
        for key in ("setup", "measure", "teardown")
    }
    saved = {
        f"{role}/{file}" for step in steps["measure"] for file in step.save
        for role in (known if step.role == EVERYBODY else {step.role})
    }
    return Experiment(
        name=name, licence=fields["licence"].text(200) if "licence" in fields else "",
        program=program,
        roles=roles, links=links, variables=variables, repetitions=repetitions, **steps,
        results=_results(fields["results"], saved, program) if "results" in fields else (),
        streams=_streams(fields["logs"]) if "logs" in fields else None,
        limits=_limits(fields["limits"]) if "limits" in fields else Limits(),
    )


def _roles(value: Value) -> tuple[Role, ...]:
    found = []
    for name, entry in value.fields().items():
        if not ROLE.fullmatch(name):
            entry.error("a role is named by small letters, digits and -")
        if name in (EVERYBODY, *STEP_KEYS):
            entry.error(f"{name} means something else; name the role otherwise")
        fields = entry.fields("model", "image", "count", "settings")
        settings = fields["settings"].fields() if "settings" in fields else {}
        for key, setting in settings.items():
            if not SETTING.fullmatch(key):
                setting.error("this is not the name of a setting")
        found.append(Role(
            name,
            model=_unvaried(fields["model"]).text(100) if "model" in fields else Role.model,
            image=_unvaried(fields["image"]).text(200) if "image" in fields else Role.image,
            count=fields["count"].whole(1, 1000) if "count" in fields else Role.count,
            settings={key: _unvaried(setting).text(500) for key, setting in settings.items()},
        ))
    if not found:
        value.error("at least one role is needed")
    return tuple(found)


def _links(value: Value, roles: Collection[Role]) -> tuple[Link, ...]:
    known = {role.name: role for role in roles}
    found: list[Link] = []
    for entry in value.items():
        fields = entry.fields("between", "neighbours", "latency", "bandwidth")
        if "between" not in fields:
            entry.error("between is missing: two roles, as in `between: [sender, receiver]`")
            continue
        names = [word.text(100) for word in fields["between"].items()]
        if len(names) != 2 or not set(names) <= known.keys():
            fields["between"].error("expected two roles of this file, as in [sender, receiver]")
            continue
        neighbours = "neighbours" in fields and fields["neighbours"].yes()
        limits = {
            key: fields[key].name(pattern, f"such as {example}") if key in fields else ""
            for key, pattern, example in (
                ("latency", LATENCY, "8ms or 500us"), ("bandwidth", BANDWIDTH, "100Mbps or 1Gbps"),
            )
        }
        if neighbours and any(limits.values()):
            entry.error("neighbours have the network of the platform, which has no such limits")
        if not neighbours and any("networks" in known[name].settings for name in names):
            entry.error("it gives its roles networks, and one of them has a setting networks")
        if any(
            set(link.between) == set(names) and link.neighbours == neighbours for link in found
        ):
            entry.error("this link is there twice")
        found.append(Link((names[0], names[1]), neighbours, **limits))
    if len(found) > MOST_LINKS:
        value.error(f"there are more than {MOST_LINKS} links")
    return tuple(found)


def _variables(value: Value) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, entry in value.fields().items():
        if not VARIABLE.fullmatch(name):
            entry.error("a variable is named by capital letters, digits and _")
        elif RESERVED.fullmatch(name):
            entry.error("programs take this variable for something else; name it otherwise")
        values = entry.items() if isinstance(entry.content, list) else [entry]
        found[name] = tuple(word.text(1000) for word in values)
        if not found[name]:
            entry.error("at least one value is needed")
    return found


def _steps(value: Value, roles: Collection[str]) -> tuple[Step, ...]:
    found = []
    for entry in value.items():
        fields = entry.fields()
        who = [key for key in fields if key not in STEP_KEYS]
        if len(who) != 1:
            entry.error("expected one role with its command, as in `- sender: uname -a`")
            continue
        (role,) = who
        if role not in (EVERYBODY, *roles):
            fields[role].error(f"there is no role {role[:40]}")
        command, script = _work(fields[role])
        save = fields.get("save")
        files = () if save is None else tuple(
            _unvaried(word).name(FILE, "the name of a file")
            for word in (save.items() if isinstance(save.content, list) else [save])
        )
        start = "start" in fields and fields["start"].yes()
        if "ready" in fields and not start:
            fields["ready"].error("it goes with `start: yes`")
        found.append(Step(
            role, command.replace("\r\n", "\n"), script, start,
            fields["ready"].text(1000) if "ready" in fields else None,
            fields["timeout"].seconds(7 * DAY) if "timeout" in fields else None, files,
            entry.line,
        ))
    return tuple(found)


def _unvaried(value: Value) -> Value:
    """Return a value that is the same for all points; one that asks for a variable is an error."""
    if isinstance(value.content, str) and VARIED.search(value.content):
        value.error(
            "variables reach commands alone: this is the same for all points (each has a directory"
            " of its own)"
        )
    return value


def _work(value: Value) -> tuple[str, str | None]:
    """Return the command of a step, or the name of its script."""
    if not isinstance(value.content, dict):
        command = value.text(LONGEST)
        if not command.strip():
            value.error("a command is missing")
        return command, None
    fields = value.fields("script")
    if "script" not in fields:
        value.error("expected a command, or script: FILE")
        return "", None
    return "", fields["script"].name(FILE, "the name of a file beside this one")


def _results(value: Value, saved: Collection[str], program: str) -> tuple[Measure, ...]:
    found = []
    for name, entry in value.fields().items():
        if not NAME.fullmatch(name):
            entry.error("a result is named by letters, digits, ., _ and -")
        if name in COLUMNS:
            entry.error(f"tables have another column {name}; name the result otherwise")
        fields = entry.fields(*(() if program else ("file", "pattern")), "tolerance")
        for key in () if program else ("file", "pattern"):
            if key not in fields:
                entry.error(f"{key} is missing")
        file = fields["file"].text(200) if "file" in fields else ""
        if file and file not in saved:
            fields["file"].error("no step of `measure` saves it; write role/file")
        pattern = fields["pattern"].text(1000) if "pattern" in fields else "()"
        if "pattern" in fields and _groups(fields["pattern"]) not in (1, None):
            fields["pattern"].error("one group ( ) is needed, around the number")
        found.append(Measure(
            name, file, pattern,
            _share(fields["tolerance"]) if "tolerance" in fields else Measure.tolerance,
        ))
    return tuple(found)


def _share(value: Value) -> float:
    """Return a share, of a text such as 5% or a number from 0 to 1."""
    text = value.text(20).strip()
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        value.error("expected a share from 0% to 100%")
        return 0.0
    return share


def _streams(value: Value) -> str:
    fields = value.fields("streams")
    if "streams" not in fields:
        value.error("streams is missing: a regular expression, `.` for all")
        return "."
    _groups(fields["streams"])
    return fields["streams"].text(1000)


def _groups(value: Value) -> int | None:
    """Return how many groups a regular expression has, None when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(value.text(1000)).groups
    except (re.error, OverflowError, RecursionError, Warning) as error:
        value.error(f"this is no regular expression: {error}")
        return None


def _limits(value: Value) -> Limits:
    fields = value.fields("boot", "step", "retries")
    return Limits(
        boot=fields["boot"].seconds(DAY) if "boot" in fields else Limits.boot,
        step=fields["step"].seconds(7 * DAY) if "step" in fields else Limits.step,
        retries=fields["retries"].whole(0, 10) if "retries" in fields else Limits.retries,
    )


def _scripts(experiment: Experiment, directory: Path, errors: Errors) -> dict[str, str]:
    """Return the texts of scripts, with the ends of lines that shells of nodes understand."""
    found = {}
    for step in (*experiment.setup, *experiment.measure, *experiment.teardown):
        if step.script is None:
            _check_length(step.command, step.line, errors)
            continue
        if step.script in found or not FILE.fullmatch(step.script):
            continue
        path = directory / step.script
        try:
            data = path.read_bytes()
            found[step.script] = data.decode().replace("\r\n", "\n")
            _check_length(found[step.script], step.line, errors)
        except (OSError, ValueError) as error:
            errors.append((
                step.line, f"the script {step.script} cannot be read: {in_words(error)}"
            ))
    return found


def _check_length(text: str, line: int, errors: Errors) -> None:
    if len(shlex.quote(text).encode()) > LONGEST:
        errors.append((line, f"this command is longer than {LONGEST} bytes, quotes included"))
