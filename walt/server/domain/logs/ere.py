"""POSIX extended regular expressions, in time proportional to the text.

RE2 reads them as POSIX does and never backtracks, so that no expression can
hold the server up. PostgreSQL reads the same expressions in stored lines with
its `(?e)` prefix; what RE2 refuses (back-references, `\\d`, repetitions that
multiply) is refused before it gets there. Python's `re` has another syntax,
another meaning, and no bound.
"""

from __future__ import annotations

import re2

from walt.common.errors import WrongExpression

MAX_LENGTH = 2000
MAX_MEMORY = 1 << 20  # bytes of one compiled expression


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

    def found_in(self, text: str) -> bool:
        """Tell whether the expression matches somewhere in `text`."""
        return self._compiled.search(_encodable(text)) is not None


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()
