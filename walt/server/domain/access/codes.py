"""One-time enrolment codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from walt.common.errors import Denied, LimitExceeded
from walt.server.domain.access.model import Holder

VALIDITY = 600.0  # seconds
MAX_PENDING = 100
_RANDOM_BYTES = 10  # 80 bits, 16 characters of base 32


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.replace("-", "").strip().lower().encode()).digest()


class EnrolmentCodes:
    """Codes given out and not used yet; only their digests are kept, and only in memory.

    `now` returns epoch seconds, `random` that many random bytes.
    """

    def __init__(self, now: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._now = now
        self._random = random
        self._pending: dict[bytes, tuple[Holder, float]] = {}

    def create(self, holder: Holder) -> tuple[str, float]:
        """Return a new code and the moment it ends. Raises LimitExceeded."""
        self._drop_old()
        if len(self._pending) >= MAX_PENDING:
            raise LimitExceeded(f"{MAX_PENDING} enrolments are pending: wait for some to expire")
        raw = base64.b32encode(self._random(_RANDOM_BYTES)).decode().lower()
        code = "-".join(raw[at:at + 4] for at in range(0, len(raw), 4))
        expires = self._now() + VALIDITY
        self._pending[_digest(code)] = (holder, expires)
        return code, expires

    def redeem(self, code: str) -> Holder:
        """Return for whom a code was made; it is worth nothing afterwards. Raises Denied."""
        self._drop_old()
        wanted = _digest(code)
        for known in list(self._pending):
            if hmac.compare_digest(known, wanted):
                return self._pending.pop(known)[0]
        raise Denied(
            "this enrolment code is unknown, used, or older than 10 minutes; ask for a new one"
        )

    def cancel(self, name: str) -> None:
        """Forget the codes made for a holder."""
        for known, (holder, _) in list(self._pending.items()):
            if holder.name == name:
                del self._pending[known]

    def _drop_old(self) -> None:
        for known, (_, expires) in list(self._pending.items()):
            if expires <= self._now():
                del self._pending[known]
