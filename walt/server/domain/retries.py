"""When to try again what failed: each thing at its own growing pace."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

FIRST = 5.0  # seconds before the first retry; each further one takes twice as long
LONGEST = 300.0

_K = TypeVar("_K", bound=Hashable)


class _Failure(NamedTuple):
    reason: str
    pause: float
    due: float


class Retries(Generic[_K]):
    """What failed, why, and when its turn comes again. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._failures: dict[_K, _Failure] = {}

    def failed(self, key: _K, now: float, reason: str) -> bool:
        """Note a failure; return whether it is news (another one, or for another reason)."""
        before = self._failures.get(key)
        pause = FIRST if before is None else min(LONGEST, 2 * before.pause)
        self._failures[key] = _Failure(reason, pause, now + pause)
        return before is None or before.reason != reason

    def succeeded(self, key: _K) -> bool:
        """Forget the failures of something; return whether there was one."""
        return self._failures.pop(key, None) is not None

    def is_due(self, key: _K, now: float) -> bool:
        """Tell whether something may be tried now: it never failed, or has waited long enough."""
        failure = self._failures.get(key)
        return failure is None or failure.due <= now

    def next_due(self) -> float | None:
        """Return when the next retry is due, None when nothing failed."""
        return min((failure.due for failure in self._failures.values()), default=None)

    @property
    def reasons(self) -> Mapping[_K, str]:
        """What failed at its last try, and why."""
        return {key: failure.reason for key, failure in self._failures.items()}
