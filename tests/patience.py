"""Time limits of tests: they end what hangs, and never decide because a machine is busy."""

from __future__ import annotations

SLOWEST = 3  # times slower than a quiet machine: others use it, or all lanes boot nodes


def patient(seconds: float) -> float:
    """Return the limit of what takes less than `seconds` on a quiet machine."""
    return SLOWEST * seconds


def within(seconds: int) -> tuple[str, str]:
    """Return the switch by which `walt node wait` gives up."""
    return "--timeout", str(SLOWEST * seconds)
