"""What a person typed, from the bytes that terminals send (ECMA-48, xterm's ctlseqs)."""

from __future__ import annotations

import re
from typing import Iterator

_SEQUENCE = re.compile(
    rb"\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]"  # CSI
    rb"|\x1bO[@-~]"  # SS3
    rb"|[^\x1b]"
)
_BEGUN = re.compile(rb"\x1b(?:O|\[[0-?]{0,32}[ -/]{0,4})?")

_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up",
    b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page-up", b"\x1b[6~": "page-down", b" ": "page-down",
    b"\x1b[H": "home", b"\x1bOH": "home", b"\x1b[1~": "home", b"\x1b[7~": "home",
    b"\x1b[F": "end", b"\x1bOF": "end", b"\x1b[4~": "end", b"\x1b[8~": "end",
    b"\t": "next-link", b"\x1b[Z": "previous-link",
    b"\r": "open", b"\n": "open",
    b"\x7f": "back", b"\x08": "back",
    b"q": "quit",
    b"\x03": "interrupt",
}


class Keys:
    """Names the keys in a stream of bytes; what means nothing to the pager is dropped."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the name of each key; a sequence may come in several parts."""
        data = self._pending + data
        self._pending = b""
        at = 0
        while at < len(data):
            match = _SEQUENCE.match(data, at)
            if match is not None:
                at = match.end()
                name = _NAMES.get(match[0])
                if name is not None:
                    yield name
            elif _BEGUN.fullmatch(data, at):
                self._pending = data[at:]
                return
            else:
                at += 1  # the escape key alone
