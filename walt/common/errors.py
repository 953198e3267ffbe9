"""Errors that people and programs meet, with their wire code and exit status.

Each class takes ONE string: the sentence shown to the user, which says what
happened and what to do. The wire code is what AMP peers see.
"""

from __future__ import annotations

import errno


class WaltError(Exception):
    """Base of every declared error; exit status 1."""

    code = "WALT_ERROR"
    exit_status = 1


class NotFound(WaltError):
    """A device, image, stream or file that does not exist."""

    code = "NOT_FOUND"


class Invalid(WaltError):
    """A value that breaks a rule: name, setting, set, date, address."""

    code = "INVALID"


class WrongExpression(Invalid):
    """What is no regular expression: a word of the command line that nobody can have meant."""

    code = "WRONG_EXPRESSION"
    exit_status = 2


class Busy(WaltError):
    """Another task holds the object; try again later."""

    code = "BUSY"


class Conflict(WaltError):
    """The object exists already, or is in use."""

    code = "CONFLICT"


class Denied(WaltError):
    """The caller may not do this (design D7)."""

    code = "DENIED"


def not_yours(holder: str | None, user: str) -> Denied:
    """Return what is raised when the holder of a certificate states another user."""
    return Denied(
        f"this certificate is for {holder}: you cannot act as {user} with it (unset"
        " WALT_USERNAME, or remove walt.username from ~/.walt/config)"
    )


class CredentialsNeeded(WaltError):
    """A registry wants a user name and a password; the text names its label."""

    code = "CREDENTIALS_NEEDED"


class VersionMismatch(WaltError):
    """Client and server speak different versions; the text tells how to upgrade."""

    code = "VERSION_MISMATCH"


class Unavailable(WaltError):
    """A service, node or registry that does not answer."""

    code = "UNAVAILABLE"


class CommandFailed(WaltError):
    """An external program failed; the text holds its last words."""

    code = "COMMAND_FAILED"


class LimitExceeded(WaltError):
    """A value or a count above a documented limit."""

    code = "LIMIT_EXCEEDED"


class InternalError(WaltError):
    """A bug: the server logged the details under the reference given."""

    code = "INTERNAL"


class ConfigurationError(WaltError):
    """server.conf is wrong; the text lists every error, one a line."""

    code = "CONFIGURATION"


ERRORS: dict[str, type[WaltError]] = {
    cls.code: cls
    for cls in (
        WaltError, NotFound, Invalid, WrongExpression, Busy, Conflict, Denied, CredentialsNeeded,
        VersionMismatch, Unavailable, CommandFailed, LimitExceeded, InternalError,
        ConfigurationError,
    )
}


def disk_refuses(error: BaseException | None) -> Unavailable | None:
    """Return what a person is told when the server's disk is full, None for another error."""
    if not isinstance(error, OSError):
        return None
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return None
    place = f" {error.filename}" if error.filename else ""
    return Unavailable(f"the server cannot write{place}: {error.strerror}; free some space on it")


def in_words(error: object) -> str:
    """Return why something failed, in words for people: no number of an error."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.removeprefix(f"[Errno {error.errno}] ")
        return f"{error.filename}: {text}" if error.filename else text
    return str(error) or type(error).__name__
