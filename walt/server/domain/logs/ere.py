"""POSIX extended regular expressions, through the C library (regcomp(3)).

PostgreSQL reads the same expressions in stored lines with its `(?e)` prefix;
Python's `re` has another syntax and another meaning.
"""

from __future__ import annotations

import ctypes

from walt.common.errors import Invalid

_REG_EXTENDED = 1
_REG_NOSUB = 8
_REGEX_T_SIZE = 64  # sizeof(regex_t) with glibc and musl on 64-bit machines
MAX_LENGTH = 2000

_libc = ctypes.CDLL(None)


class Expression:
    """One compiled expression, searched anywhere in a text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise Invalid(f"a regular expression may not have more than {MAX_LENGTH} characters")
        if "\0" in text:
            raise Invalid("a regular expression may not hold a NUL")
        self._buffer = ctypes.create_string_buffer(_REGEX_T_SIZE * 2)
        code = _libc.regcomp(self._buffer, text.encode(), _REG_EXTENDED | _REG_NOSUB)
        if code != 0:
            message = ctypes.create_string_buffer(200)
            _libc.regerror(code, self._buffer, message, len(message))
            reason = message.value.decode(errors="replace")
            raise Invalid(f'"{text[:200]}" is not a valid extended regular expression: {reason}')
        self._compiled = True

    def found_in(self, text: str) -> bool:
        """Tell whether the expression matches somewhere in `text`."""
        raw = text.replace("\0", " ").encode(errors="replace")
        return bool(_libc.regexec(self._buffer, raw, 0, None, 0) == 0)

    def __del__(self) -> None:
        if getattr(self, "_compiled", False):
            _libc.regfree(self._buffer)
