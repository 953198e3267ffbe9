"""One-time codes in links to the web pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from walt.common.errors import Denied, LimitExceeded
from walt.server.domain.access.web_model import Entry, Way

VALIDITY = 120.0  # seconds
MAX_OF_USER, MAX_PENDING = 10, 200
RANDOM_BYTES = 16  # 128 bits


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret: with 128 random bits it tells nothing about it."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


class WebLinks:
    """Codes that were given out and not used; only their digests are kept, and only in memory.

    `now` returns epoch seconds, `random` that many random bytes.
    """

    def __init__(self, now: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._now = now
        self._random = random
        self._pending: dict[str, tuple[Entry, float]] = {}

    def make(self, entry: Entry) -> tuple[str, float]:
        """Return a code and the moment it ends. Raises LimitExceeded."""
        self._drop_old()
        own = [code for code, (pending, _) in self._pending.items() if pending.user == entry.user]
        if len(own) >= MAX_OF_USER:
            del self._pending[own[0]]  # the oldest: who asks again wants the newest
        if len(self._pending) >= MAX_PENDING:
            raise LimitExceeded(f"{MAX_PENDING} links to the pages wait for use: try again later")
        code, expires = self._random(RANDOM_BYTES).hex(), self._now() + VALIDITY
        self._pending[digest(code)] = entry, expires
        return code, expires

    def take(self, code: str, origin: str, way: Way | None) -> Entry:
        """Return who asked for a code; it is worth nothing afterwards. Raises Denied."""
        self._drop_old()
        entry, _ = self._pending.pop(digest(code), (None, 0.0))
        if entry is None or entry.origin != origin or entry.way != way:
            raise Denied(
                "this link was used, or is older than two minutes; type: walt web"
            )
        return entry

    def cancel(self, matches: Callable[[Entry], bool]) -> None:
        """Forget codes."""
        for code, (entry, _) in list(self._pending.items()):
            if matches(entry):
                del self._pending[code]

    def _drop_old(self) -> None:
        now = self._now()
        for code, (_, expires) in list(self._pending.items()):
            if expires <= now:
                del self._pending[code]
