"""Answers of servers, which may be of another release, or not a server at all."""

from __future__ import annotations

import json

from walt.client.errors import Failure
from walt.common.ampbox import join_value

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

# How a value looks: a type, a tuple of types, a list with the look of each of its items, or a
# dict with the looks of values that must be there.
NULL = type(None)
NUMBER = (int, float)


class Answer(dict):
    """What a call returned: texts by name. A name that is missing is the server's fault.

    Long values come in pieces, which are joined when somebody wants the whole.
    """

    def __getitem__(self, name: bytes) -> bytes:
        if name + b"+1" in self:
            self[name] = join_value(name, self)
        return dict.__getitem__(self, name)

    def text(self, name: bytes) -> str:
        """Return a value as text, an empty one if there is none."""
        return self[name].decode(errors="replace") if name in self else ""

    def pieces(self, name: bytes) -> list[bytes]:
        """Return the pieces of a value, in their order."""
        found = [dict.__getitem__(self, name)]
        while (piece := dict.get(self, b"%s+%d" % (name, len(found)))) is not None:
            found.append(piece)
        return found

    def __missing__(self, name: bytes) -> bytes:
        raise senseless(f"it lacks {name.decode(errors='replace')}")

    def json(self, name: str, look: Any = object) -> Any:
        """Return a JSON value. Raises Failure when it is none, or does not look as it should."""
        try:
            value = json.loads(self[name.encode()])
        except (ValueError, RecursionError):
            raise senseless(f"{name} is not JSON") from None
        if look is not object:
            wrong = looks_wrong(value, look, name)
            if wrong:
                raise senseless(wrong)
        return value


def senseless(what: str) -> Failure:
    """Return what to raise when an answer of the server cannot be."""
    return Failure(
        f"communication issue: the answer of the server makes no sense ({what[:200]});"
        " is it a WalT server of this release?"
    )


def looks_wrong(value: Any, look: Any, where: str) -> str:
    """Return what is wrong with a value, nothing if it looks as it should."""
    if isinstance(look, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        return next(filter(None, (looks_wrong(part, look[0], f"{where}[…]") for part in value)), "")
    if isinstance(look, dict):
        if not isinstance(value, dict):
            return f"{where} is no object"
        for name, inside in look.items():
            if name not in value:
                return f"{where}.{name} is missing"
            wrong = looks_wrong(value[name], inside, f"{where}.{name}")
            if wrong:
                return wrong
        return ""
    number = look is int or look == NUMBER
    if not isinstance(value, look) or (number and isinstance(value, bool)):
        return f"{where} is of type {type(value).__name__}"
    return ""
