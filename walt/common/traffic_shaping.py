"""Latency and bandwidth of the networks of virtual nodes (spec node-protocols §8.5)."""

from __future__ import annotations

from dataclasses import dataclass

BASE_LATENCY_US = 300  # what a frame takes from one virtual machine to the next anyway
BURST = 256_000  # bytes that pass at full speed after a pause, beyond what is on the way
UNLIMITED_QUEUE = 16 << 20  # bytes waiting for their latency when no bandwidth is set
FRAME = 1500  # bytes, to count the frames that a delayed line holds
FASTEST = 10 * 10**9  # bit/s assumed where no bandwidth is set
TBF_WAIT_US = 300  # longest wait for bandwidth where no latency is set


@dataclass(frozen=True)
class Limits:
    """Limits of what a machine receives: one-way latency in µs, bandwidth in bit/s; 0: none."""

    latency_us: int = 0
    bandwidth: int = 0

    def __bool__(self) -> bool:
        return bool(self.latency_us or self.bandwidth)

    @property
    def delay_us(self) -> int:
        """The delay to add to each frame, in µs; 0 when no latency is set."""
        return max(1, self.latency_us - BASE_LATENCY_US) if self.latency_us else 0

    @property
    def burst(self) -> int:
        """Bytes sent at once after a pause: what the line holds during its latency, and more."""
        return BURST + self.latency_us * self.bandwidth // 8_000_000


NO_LIMITS = Limits()


class DelayLine:
    """When each frame leaves a limited line; frames keep their order.

    Times are seconds of any one clock.
    """

    def __init__(self, limits: Limits) -> None:
        self._delay = limits.delay_us / 1e6
        self._rate = limits.bandwidth / 8  # bytes per second
        self._burst = limits.burst if limits.bandwidth else UNLIMITED_QUEUE
        self._free_at = 0.0

    def departure(self, now: float, size: int, waiting: int) -> float | None:
        """Return when a frame of `size` bytes leaves, None when it is dropped.

        `waiting` is the bytes already accepted and not yet gone: like a router,
        the line drops what comes when its queue is full.
        """
        if waiting + size > self._burst:
            return None
        if self._rate:
            self._free_at = max(now, self._free_at) + size / self._rate
            return self._free_at + self._delay
        return now + self._delay


def disciplines(limits: Limits) -> list[list[str]]:
    """Return the arguments of `tc qdisc add dev TAP` (tc-netem(8), tc-tbf(8))."""
    found = []
    if limits.latency_us:
        held = limits.delay_us * (limits.bandwidth or FASTEST) // 8_000_000 // FRAME
        found.append([
            "root", "handle", "1:", "netem", "delay", f"{limits.delay_us}us",
            "limit", str(1000 + held),
        ])
    if limits.bandwidth:
        found.append([
            *(["parent", "1:1"] if found else ["root"]), "handle", "2:", "tbf",
            "rate", f"{limits.bandwidth}bit", "burst", str(limits.burst),
            "latency", f"{limits.latency_us or TBF_WAIT_US}us",
        ])
    return found
