"""The logo at the right of the help, where it fits (spec user-surface §1.2, U-013)."""

from __future__ import annotations

import os
import sys

from walt.client.terminal import styled

WIDTH = 32
SPACING = 3
_BLUE, _ORANGE, _PLAIN = "\033[38;5;32m", "\033[38;5;208m", "\033[0m"

# A switch above, four nodes below, links between; "o" marks the nodes.
DRAWING = (
    "        .--------------.        ",
    "        |  W a l T     |        ",
    "        |  = = = = = = |        ",
    "        '--------------'        ",
    "          |   |  |   |          ",
    "    .-----'   |  |   '-----.    ",
    "    |     .---'  '---.     |    ",
    "    |     |          |     |    ",
    "   (o)   (o)        (o)   (o)   ",
)


def beside(text: str) -> str:
    """Return `text` with the logo at its right, or `text` alone.

    The logo needs 256 colours, the wish for them, and a wide terminal.
    """
    lines = text.split("\n")
    needed = max(len(line) for line in lines) + SPACING
    if not _many_colours() or _columns() < needed + WIDTH:
        return text
    out = []
    for number, line in enumerate(lines):
        if number < len(DRAWING):
            drawn = DRAWING[number].replace("o", f"{_ORANGE}o{_BLUE}")
            line = f"{line.ljust(needed)}{_BLUE}{drawn}{_PLAIN}"
        out.append(line)
    return "\n".join(out)


def _many_colours() -> bool:
    if not styled():
        return False
    return (
        "256color" in os.environ.get("TERM", "")
        or os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    )


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0
