"""How much one user may have open at the same time (docs/limits.md)."""

from __future__ import annotations

from collections import Counter

from walt.common.errors import LimitExceeded

MAX_SESSIONS = 200  # RPC connections of one user
MAX_STREAMS = 500  # shells, transfers, builds, readers of logs… of one user


class Shares:
    """Counts what each user has open, up to a limit; `what` names it in the plural."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self._what = what
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
        self._open[user] += 1

    def leave(self, user: str) -> None:
        """Count one less."""
        self._open[user] -= 1
        if self._open[user] <= 0:
            del self._open[user]
