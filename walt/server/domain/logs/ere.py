"""POSIX extended regular expressions, in time proportional to the text.

RE2 reads them as POSIX does and never backtracks, so that no expression can
hold the server up. PostgreSQL reads the same expressions in stored lines with
its `(?e)` prefix; what RE2 refuses (back-references, `\\d`, repetitions that
multiply) is refused before it gets there, and so is what the two read
differently: POSIX leaves that undefined. Python's `re` has another syntax,
another meaning, and no bound.
"""

from __future__ import annotations

import re

import re2

from walt.common.errors import WrongExpression

MAX_LENGTH = 2000
MAX_MEMORY = 1 << 20  # bytes of one compiled expression
MAX_REPETITION = 255  # RE_DUP_MAX of POSIX, and of PostgreSQL
CLASSES = "alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit"

_PIECE = re.compile(
    r"(?s)(?P<escaped>\\.)"
    r"|(?P<bracket>\[\^?\]?(?:\[:(?:" + CLASSES + r"):\]|[^\]\[]|\[(?![:.=]))*\])"
    r"|(?P<count>\{([0-9]+)(?:,([0-9]*))?\})|(?P<repeated>[*+?])|(?P<start>[\^(|$])"
    r"|(?P<unclosed>\[|\{(?=[0-9]))|(?P<other>.)"
)


def _options() -> re2.Options:
    options = re2.Options()
    options.posix_syntax = True
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    return options


class Expression:
    """One compiled expression, searched anywhere in a text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise WrongExpression(
                f"a regular expression may not have more than {MAX_LENGTH} characters"
            )
        if "\0" in text:
            raise WrongExpression("a regular expression may not hold a NUL")
        try:
            self._compiled = re2.compile(_encodable(text), _options())
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if error.args else "refused"
            raise WrongExpression(
                f'"{text[:200]}" is not a valid extended regular expression: {reason}'
            ) from None
        undefined = _undefined(text)
        if undefined is not None:
            raise WrongExpression(f'"{text[:200]}": {undefined}')

    def found_in(self, text: str) -> bool:
        """Tell whether the expression matches somewhere in `text`."""
        return self._compiled.search(_encodable(text)) is not None


def _undefined(text: str) -> str | None:
    """Return what POSIX does not define in an expression that RE2 takes, None without any."""
    repeatable = False
    for piece in _PIECE.finditer(text):
        kind, written = piece.lastgroup, piece[0]
        if kind == "escaped" and written[1].isalnum():
            return f"write what {written} stands for itself (a tab by Ctrl-v Tab); see log-show"
        if kind == "bracket" and "\\" in written:
            return (
                f"in {written} a backslash is itself, not a sign for something else: put ] first,"
                " - last, and nothing before other characters"
            )
        if kind == "unclosed":
            return f"write \\{written} for the character {written}"
        if kind in ("count", "repeated"):
            if not repeatable:
                return f"there is nothing that {written} could repeat"
            if kind == "count" and max(map(int, filter(None, piece.group(4, 5)))) > MAX_REPETITION:
                return f"{written} repeats more than {MAX_REPETITION} times"
        repeatable = kind in ("escaped", "bracket", "other")
    return None


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()
