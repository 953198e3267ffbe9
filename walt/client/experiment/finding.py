"""Numbers in texts of nodes, found by expressions of strangers: within some time, or not at all."""

from __future__ import annotations

import re
import signal
import threading

LIMIT = 5.0  # seconds for one search
LARGEST = 1e300


def number(pattern: str, text: str, *, limit: float = LIMIT) -> float:
    """Return the number that the group of a pattern finds.

    Raises ValueError where there is none, or when the search takes more than `limit` seconds.
    """
    match = _searched(re.compile(pattern), text, limit)
    found = match[1] if match is not None else None
    try:
        value = float(found or "")
    except ValueError:
        raise ValueError("there is no such number") from None
    if not abs(value) < LARGEST:
        raise ValueError(f"{found} is no number to go on with")
    return value


def _searched(pattern: re.Pattern[str], text: str, limit: float) -> re.Match[str] | None:
    """Search; a signal ends it, which the main thread of a command alone can ask for."""
    if threading.current_thread() is not threading.main_thread():
        return pattern.search(text)

    def late(signum: int, frame: object) -> None:
        raise ValueError(f"the search took more than {limit:g} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return pattern.search(text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
