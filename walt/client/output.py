"""Output for programs."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:

    from walt.client.answers import Answer

_PRINTABLE = bytes((10, *range(32, 127)))
_SLICE = 1 << 16  # bytes; large blocks of memory are slow to get, and given back at once


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
    slices = range(0, len(written), _SLICE)
    plain = not any(written[at:at + _SLICE].translate(None, _PRINTABLE) for at in slices)
    member = b',\n  "%s": ' % last.encode()
    end = written.rfind(member)
    number, brace = written[end + len(member):-2], written[-2:]
    if (
        plain and end >= 0 and written.startswith(b'{\n  "') and number.isdigit()
        and brace == b"\n}"
    ):
        for at in range(0, end, _SLICE):
            sys.stdout.write(written[at:min(at + _SLICE, end)].decode("ascii"))
        print("\n}")
        return
    value = answer.json(name)
    del value[last]
    print_json(value)


def _indented(value: object, margin: str) -> str:
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        inside = margin + "  "
        items = [
            f"{inside}{json.dumps(key)}: {_indented(value[key], inside)}" for key in sorted(value)
        ]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        rows = [f"{margin}  {json.dumps(part, sort_keys=True)}" for part in value]
        return "[\n" + ",\n".join(rows) + f"\n{margin}]"
    return json.dumps(value, sort_keys=True)
