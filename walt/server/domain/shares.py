"""How much one user may have open at the same time (docs/limits.md)."""

from __future__ import annotations

from collections import Counter

from walt.common.errors import LimitExceeded

MAX_SESSIONS = 200  # RPC connections of one user
MAX_STREAMS = 500  # shells, transfers, builds, readers of logs… of one user
# Each of these keeps a connection to the database, which has 60 (or more).
MAX_LOG_READERS, ALL_LOG_READERS = 10, 40  # readers and counts of stored lines: of a user, of all
MAX_WEB_READERS, ALL_WEB_READERS = 4, 8  # log queries of the web API: of an address, of all
# Children that read archived lines: of a user, of all; the web API is one user of them.
MAX_ARCHIVE_READERS, ALL_ARCHIVE_READERS = 3, 8


class Shares:
    """Counts what each user has open, up to a limit; `what` names it in the plural.

    With `together`, there is also a limit for all users.
    """

    def __init__(self, limit: int, what: str, together: int | None = None) -> None:
        self.limit = limit
        self._what = what
        self._together = together
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many are open, of all users."""
        return self._open.total()

    def enter(self, user: str) -> None:
        """Count one more. Raises LimitExceeded."""
        if self._open[user] >= self.limit:
            raise LimitExceeded(
                f"{user} has {self.limit} {self._what} open, which is the limit: close some"
            )
        if self._together is not None and self.total >= self._together:
            raise LimitExceeded(
                f"{self._together} {self._what} are open, which is the limit: try again later"
            )
        self._open[user] += 1

    def leave(self, user: str) -> None:
        """Count one less."""
        self._open[user] -= 1
        if self._open[user] <= 0:
            del self._open[user]
