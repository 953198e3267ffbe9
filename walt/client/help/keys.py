"""What a person typed, from the bytes that terminals send (ECMA-48, xterm's ctlseqs)."""

from __future__ import annotations

import re
from typing import Callable, Iterator

_SEQUENCE = re.compile(
    rb"\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]"  # CSI
    rb"|\x1bO[@-~]"  # SS3
    rb"|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"  # UTF-8
    rb"|[^\x1b]",
    re.DOTALL,
)
_BEGUN = re.compile(
    rb"\x1b(?:O|\[[0-?]{0,32}[ -/]{0,4})?"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2}"
)
TYPED = "typed "  # what precedes a character, in the name of a key

_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up",
    b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page-up", b"\x1b[6~": "page-down", b" ": "page-down",
    b"\x1b[H": "home", b"\x1bOH": "home", b"\x1b[1~": "home", b"\x1b[7~": "home",
    b"\x1b[F": "end", b"\x1bOF": "end", b"\x1b[4~": "end", b"\x1b[8~": "end",
    b"\t": "next-link", b"\x1b[Z": "previous-link",
    b"\r": "open", b"\n": "open",
    b"\x7f": "back", b"\x08": "back",
    b"q": "quit", b"/": "search", b"n": "next-match", b"N": "previous-match",
    b"\x03": "interrupt",
}


class Keys:
    """Names the keys in a stream of bytes; what means nothing to the pager is dropped.

    While `typing` tells that a text is being typed, characters are `typed x`.
    """

    def __init__(self, typing: Callable[[], bool] = lambda: False) -> None:
        self._pending = b""
        self._typing = typing

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the name of each key; a sequence may come in several parts."""
        data = self._pending + data
        self._pending = b""
        at = 0
        while at < len(data):
            if _BEGUN.fullmatch(data, at):
                self._pending = data[at:]
                return
            match = _SEQUENCE.match(data, at)
            if match is None:
                at += 1  # the escape key alone
                continue
            at = match.end()
            name = self._name(match[0])
            if name is not None:
                yield name

    def _name(self, key: bytes) -> str | None:
        if self._typing():
            char = key.decode(errors="replace")
            if len(char) == 1 and char.isprintable():
                return TYPED + char
        return _NAMES.get(key)
