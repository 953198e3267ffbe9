"""What ends a command early."""

from __future__ import annotations

# Exit statuses, those of `walt help show statuses`.
FAILED, WRONG_WORDS, PLANNED, INTERRUPTED = 1, 2, 3, 130


class Failure(Exception):
    """A failure to show on stderr (nothing when empty); `status` is the exit status."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class NoServer(Failure):
    """Nothing answers where the server should be."""


class UsageError(Exception):
    """A mistake in the command line: shown on stderr, exit status 2."""


class HelpWanted(Exception):
    """`-h` or `--help` among the switches: help on stdout, exit status 0."""


class Refused(Failure):
    """The server refused a call; `code` is the wire code of the error."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text, WRONG_WORDS if code == "WRONG_EXPRESSION" else FAILED)
        self.code = code


class NotConfigured(Failure):
    """Nothing says which server to use: `main` asks, where somebody can answer."""

    def __init__(self) -> None:
        super().__init__(
            "no WalT server is known here. Run walt in a terminal to be asked for it,"
            " or set WALT_SERVER and WALT_USERNAME."
        )
