"""Output for programs."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:

    from walt.client.answers import Answer

_PRINTABLE = bytes((10, *range(32, 127)))
_ENDS = 4  # pieces at the beginning and at the end of a value that are looked at


def print_json(value: object) -> None:
    """Print a value as JSON, sorted, one row a line (`grep` and `diff` like it)."""
    # json.dumps(indent=…) is 4 times slower: it leaves the encoder written in C.
    print(_indented(value, ""))


def print_written(answer: Answer, name: str, last: str) -> None:
    """Print a JSON value of an answer as `print_json` does, without its member `last`.

    Servers write it in this form, with that member, a number, at its end: 10,000 rows are
    printed as they are, if they cannot be anything but such a text.
    """
    # One large block of memory is slow to get, and given back at once.
    pieces = answer.pieces(name.encode())
    head, tail = b"".join(pieces[:_ENDS]), b"".join(pieces[-_ENDS:])
    plain = not any(piece.translate(None, _PRINTABLE) for piece in pieces)
    member = b',\n  "%s": ' % last.encode()
    end = tail.rfind(member)
    number, brace = tail[end + len(member):-2], tail[-2:]
    if (
        plain and end >= 0 and head.startswith(b'{\n  "') and number.isdigit()
        and brace == b"\n}"
    ):
        for piece in (*pieces[:-_ENDS], tail[:end]):
            sys.stdout.write(piece.decode("ascii"))
        print("\n}")
        return
    value = answer.json(name, {last: int})
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
