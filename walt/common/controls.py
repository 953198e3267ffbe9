"""Control characters in texts that others made."""

from __future__ import annotations

# Control characters (ECMA-48 §5.2-5.3, both sets) but newline and tab; line separators and
# what turns the direction of writing (Unicode 15, UAX #9 §2): they show one thing as another.
_OBEYED = {
    number: chr(number).encode("unicode_escape").decode()
    for first, last in (
        (0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F), (0x61C, 0x61C), (0x200E, 0x200F),
        (0x2028, 0x202E), (0x2066, 0x2069),
    )
    for number in range(first, last + 1)
}


def visible(text: str) -> str:
    r"""Return a text with what a terminal obeys written as in Python (`\x1b`)."""
    return text.translate(_OBEYED)
