"""Files of environment variables, as systemd reads them (systemd.exec(5), EnvironmentFile=).

They look like shell, and are not: nothing is expanded or run, and a value ends with its line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLANKS = " \t"
_ESCAPED = '"\\`$'  # what a backslash takes its meaning from, in double quotes


def variables(text: str) -> dict[str, str]:
    """Return the variables of a file; lines that are no assignment say nothing, as with systemd."""
    found = {}
    for key, value in _assignments(text.replace("\r", "\n")):
        if _NAME.fullmatch(key):
            found[key] = value
    return found


def arguments(value: str) -> list[str]:
    """Split a value as systemd does for `$NAME` in a command line: at blanks outside quotes."""
    words = shlex.shlex(value, posix=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        return list(words)
    except ValueError:  # a quote that does not end
        return value.split()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        after = len(text) if end < 0 else end + 1
        key, equals, _ = line.partition("=")
        if not line.strip() or line.lstrip()[0] in "#;" or not equals:
            at = after
            continue
        value, at = _value(text, at + len(key) + 1)
        yield key.strip(), value


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at a place of a text, and where the next line begins."""
    while True:  # quoted parts come first, and are joined
        while at < len(text) and text[at] in _BLANKS:
            at += 1
        if at >= len(text) or text[at] not in "\"'":
            break
        part, at = _quoted(text, at + 1, text[at])
        more, at_more = _value(text, at)
        return part + more, at_more
    value, kept = "", 0  # blanks at the end do not count, but escaped ones
    while at < len(text) and text[at] != "\n":
        char, at = text[at], at + 1
        if char == "\\" and at < len(text):
            char, at = text[at], at + 1
            if char == "\n":
                continue
            kept = len(value) + 1
        value += char
        if char not in _BLANKS:
            kept = len(value)
    return value[:kept], at + 1


def _quoted(text: str, at: int, quote: str) -> tuple[str, int]:
    """Return what is in quotes, which may have several lines, and where it goes on after them."""
    value = ""
    while at < len(text) and text[at] != quote:
        char, at = text[at], at + 1
        if char == "\\" and quote == '"' and at < len(text):
            following, at = text[at], at + 1
            if following == "\n":
                continue
            char = following if following in _ESCAPED else char + following
        value += char
    return value, at + 1
