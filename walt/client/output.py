"""Output for programs."""

from __future__ import annotations

import json

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.answers import Answer

_PRINTABLE = bytes((10, *range(32, 127)))


def cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the server as tables show it.

    Names have dashes; yes and no, dates of this machine, sizes and models in short.
    """
    shown = {}
    for name, value in row.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif name in ("created", "expires", "trouble_time") and value is not None:
            value = moment(value)
        elif name == "size" and value is not None:
            value = readable(value)
        elif name == "compatibility":
            from walt.common.models import compact_models

            value = compact_models(value)
        shown[name.replace("_", "-")] = value
    return shown


def moment(seconds: float) -> str:
    """Return a moment, in seconds since 1970, in the local time of this machine."""
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M:%S", localtime(seconds))


def readable(size: int) -> str:
    """Return a number of bytes in a few letters."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def pip_install(package: str) -> str:
    """Return the command that installs a package for the Python that runs walt."""
    import shlex
    import sys

    return f"{shlex.quote(sys.executable)} -m pip install {package}"


def print_json(value: object) -> None:
    """Print a value as JSON, sorted, one row a line (`grep` and `diff` like it)."""
    # json.dumps(indent=…) is 4 times slower: it leaves the encoder written in C.
    print(_indented(value, ""))


def print_written(answer: Answer, name: str, last: str) -> None:
    """Print a JSON value of an answer as `print_json` does, without its member `last`.

    Servers write it in this form, with that member, a number, at its end: 10,000 rows are
    printed as they are, if they cannot be anything but such a text.
    """
    written = answer[name.encode()]
    start, _, end = written.rpartition(b',\n  "%s": ' % last.encode())
    number, brace = end[:-2], end[-2:]
    plain = not written.translate(None, _PRINTABLE)
    if plain and start.startswith(b'{\n  "') and number.isdigit() and brace == b"\n}":
        print(start.decode("ascii") + "\n}")
        return
    value = answer.json(name)
    del value[last]
    print_json(value)


def _indented(value: object, margin: str) -> str:
    if isinstance(value, dict) and any(isinstance(one, (dict, list)) for one in value.values()):
        inside = margin + "  "
        items = [
            f"{inside}{json.dumps(key)}: {_indented(value[key], inside)}" for key in sorted(value)
        ]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        rows = [f"{margin}  {json.dumps(one, sort_keys=True)}" for one in value]
        return "[\n" + ",\n".join(rows) + f"\n{margin}]"
    return json.dumps(value, sort_keys=True)
