"""Latency and bandwidth of the networks of virtual nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.machines import Attachment, parse_networks
from walt.common.traffic_shaping import BURST, DelayLine, Limits

FRAME = 1500


class NetworksTests(SynchronousTestCase):
    def test_order_and_units(self) -> None:
        """Networks keep their order; limits come in µs and bit/s."""
        self.assertEqual(parse_networks("home[lat=8ms,bw=2Gbps],walt-net,lab[bw=5Mbps]"), (
            Attachment("home", Limits(8000, 2 * 10**9)), Attachment("walt-net"),
            Attachment("lab", Limits(0, 5 * 10**6)),
        ))
        self.assertFalse(Limits())

    def test_delay(self) -> None:
        """What the machines take anyway is not added, and there is always some delay."""
        self.assertEqual(
            [Limits(us).delay_us for us in (0, 1, 300, 301, 8000)], [0, 1, 1, 1, 7700]
        )


class DelayLineTests(SynchronousTestCase):
    def test_latency_alone(self) -> None:
        """Each frame leaves after the delay, however many there are."""
        line = DelayLine(Limits(10_300))
        self.assertEqual([line.departure(5.0, FRAME, FRAME * n) for n in range(3)], [5.01] * 3)
        self.assertIsNone(line.departure(5.0, FRAME, 1 << 30))

    def test_bandwidth(self) -> None:
        """Frames leave one after the other at the rate; a full queue drops what comes."""
        line = DelayLine(Limits(0, 12_000_000))  # one frame of 1,500 bytes per ms
        leaves = [line.departure(0.0, FRAME, FRAME * n) for n in range(1000)]
        self.assertEqual(leaves[:3], [0.001, 0.002, 0.003])
        self.assertEqual(len([one for one in leaves if one is not None]), BURST // FRAME)
        self.assertEqual(line.departure(50.0, FRAME, 0), 50.001)

    @given(
        st.integers(0, 50_000), st.integers(0, 10**9),
        st.lists(st.tuples(st.floats(0, 0.1), st.integers(14, 9000)), max_size=50),
    )
    def test_order(self, latency: int, bandwidth: int, frames: list[tuple[float, int]]) -> None:
        """Frames never overtake each other, nor leave before their latency is over."""
        line, now, last = DelayLine(Limits(latency, bandwidth)), 0.0, 0.0
        for pause, size in frames:
            now += pause
            leaves = line.departure(now, size, 0)
            if leaves is not None:
                self.assertGreaterEqual(leaves, max(last, now + Limits(latency).delay_us / 1e6))
                last = leaves
