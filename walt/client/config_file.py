"""`~/.walt/config`: which server, which user, registry accounts (spec user-surface §4.1).

YAML of groups and scalars, which is all that WalT writes; anything else is left to the
library ruamel.yaml, when it is there.
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Values = dict[str, str]  # "walt.server": "host.example"

# Not a secret: it keeps a password from being read over a shoulder (spec user-surface §4.1).
MASK = b"RAND0M STRING T0 HIDE A PASSW0RD"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
HEADER = """\
# Configuration of the walt command.
# Remove a line to be asked for its value again.
"""
COMMENTS = {
    "walt": "The platform.",
    "walt.server": "IP address or host name of the server",
    "walt.username": "your name on the platform",
    "registries": "Accounts at image registries. Passwords are masked, not encrypted.",
}


class NotSimple(Exception):
    """The file holds more than groups and scalars."""


def path() -> str:
    """Return where the file is."""
    return os.path.join(os.path.expanduser("~"), ".walt", "config")


def masked(data: bytes) -> bytes:
    """Mask or unmask the bytes of a password."""
    return bytes(byte ^ MASK[at % len(MASK)] for at, byte in enumerate(data))


def read() -> Values:
    """Return the values of the file; an unusable one is told, and is as good as none."""
    place = path()
    try:
        with open(place, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        text = _adopted(place)
    except (OSError, UnicodeDecodeError) as error:
        from walt.common.errors import in_words  # only failures need it: 0.6 ms

        return _unusable(place, in_words(error))
    try:
        return modern(parse(text))
    except NotSimple as error:
        return _with_library(place, text, error)


def _adopted(place: str) -> str:
    """Move the file of former releases here; return its text."""
    former = os.path.join(os.path.expanduser("~"), ".waltrc")
    try:
        with open(former, encoding="utf-8") as stream:
            text = stream.read()
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.rename(former, place)
        os.chmod(place, 0o600)
    except (OSError, UnicodeDecodeError):
        return ""
    return text


def _unusable(place: str, error: object) -> Values:
    print(f"WARNING: {place} cannot be used and is ignored: {error}", file=sys.stderr)
    return {}


def _with_library(place: str, text: str, reason: NotSimple) -> Values:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        return _unusable(place, reason)
    try:
        found = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, TypeError) as error:
        return _unusable(place, str(error).splitlines()[0])
    if not isinstance(found, dict):
        return _unusable(place, "it is not a mapping")
    return modern(_flat(found))


def _flat(values: Mapping[Any, Any], above: str = "") -> Values:
    flat: Values = {}
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            flat.update(_flat(value, f"{name}."))
        elif value is not None:
            flat[name] = str(value)
    return flat


def parse(text: str) -> Values:
    """Read groups and scalars; keys are joined by dots. Raises NotSimple."""
    values: Values = {}
    groups: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#") or stripped == "---":
            continue
        key, colon, rest = stripped.partition(":")
        if not colon or not _KEY.fullmatch(key) or (rest and not rest.startswith(" ")):
            raise NotSimple(f"line {number} is not understood")
        depth = len(line) - len(line.lstrip(" "))
        while groups and groups[-1][0] >= depth:
            groups.pop()
        name = ".".join([*(group for _, group in groups), key])
        value = _scalar(rest.strip(), number)
        if value is None:
            groups.append((depth, key))
        else:
            values[name] = value
    return values


def _scalar(text: str, number: int) -> str | None:
    """Return the text of a scalar, None for nothing. Raises NotSimple."""
    if not text or text.startswith("#"):
        return None
    if text[0] in "'\"":
        found = re.match(r"'((?:[^']|'')*)'\s*(#.*)?$|(\"(?:[^\"\\]|\\.)*\")\s*(#.*)?$", text)
        if found is None:
            raise NotSimple(f"line {number}: the quotes are not understood")
        if found[3] is None:
            return found[1].replace("''", "'")
        try:
            return str(json.loads(found[3]))
        except ValueError:
            raise NotSimple(f"line {number}: the quotes are not understood") from None
    if text[0] in "[]{}&*!|>%@`,?-" and (text[0] != "-" or text[1:2] in ("", " ")):
        raise NotSimple(f"line {number} is not understood")
    return text.split(" #", 1)[0].rstrip()


def modern(values: Values) -> Values:
    """Return values of former releases under their present names."""
    hub_user, hub_password = values.get("hub.username"), values.get("hub.password")
    user, password = values.get("username"), values.get("password")
    found = {
        "walt.server": values.get("server"),
        "walt.username": user or hub_user,
        "registries.hub.username": hub_user or user,
        "registries.hub.password": hub_password or password,
    }
    if found["registries.hub.password"] is None:
        found["registries.hub.username"] = None  # a name alone is no account
    former = ("server", "username", "password", "hub.username", "hub.password")
    kept = {name: value for name, value in values.items() if name not in former}
    return {**{name: value for name, value in found.items() if value is not None}, **kept}


def save(values: Values) -> None:
    """Write the file anew, with comments; only its owner may read it. Raises OSError."""
    place = path()
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    temporary = f"{place}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(render(values))
        stream.flush()
        os.fsync(descriptor)
    os.replace(temporary, place)


def render(values: Values) -> str:
    """Return the text of a file with these values."""
    lines = [HEADER]
    shown: list[str] = []
    # The platform first; scalars of a group before the groups in it.
    order = sorted(values, key=lambda name: (
        not name.startswith("walt."), name.split(".")[:-1], name.split(".")[-1]
    ))
    for name in order:
        *groups, key = name.split(".")
        common = 0
        while common < min(len(groups), len(shown)) and groups[common] == shown[common]:
            common += 1
        for depth in range(common, len(groups)):
            lines += _commented(".".join(groups[:depth + 1]), depth)
            lines.append(f"{'  ' * depth}{groups[depth]}:")
        shown = groups
        lines += _commented(name, len(groups))
        lines.append(f"{'  ' * len(groups)}{key}: {_written(values[name])}")
    return "\n".join(lines) + "\n"


def _commented(name: str, depth: int) -> list[str]:
    return [f"{'  ' * depth}# {COMMENTS[name]}"] if name in COMMENTS else []


def _written(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def update(changes: Mapping[str, str | None], what: str) -> None:
    """Change values of the file (None removes one), and tell that `what` was saved."""
    values = dict(read())
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
    save(values)
    print(f"{what} saved in {path()}; remove lines there to be asked again.")
