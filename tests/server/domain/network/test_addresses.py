from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv4Interface

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.network.addresses import AddressPlan, dotted, parse_address


class AddressPlanTests(SynchronousTestCase):
    def test_contiguous_runs(self) -> None:
        """Free addresses come as runs, without the server's, the used and the special ones."""
        plan = AddressPlan(IPv4Interface("192.168.1.1/28"), ["192.168.1.5", "192.168.1.6"])
        self.assertEqual(
            plan.free_ranges(),
            (("192.168.1.2", "192.168.1.4"), ("192.168.1.7", "192.168.1.14")),
        )
        self.assertEqual(plan.lowest_free(), IPv4Address("192.168.1.2"))
        self.assertFalse(plan.contains("192.168.1.0"))
        self.assertFalse(plan.contains("192.168.1.15"))
        self.assertTrue(plan.is_free("192.168.1.7"))
        self.assertFalse(plan.is_free("192.168.1.5"))

    def test_full_subnet(self) -> None:
        """Nothing is left: no range, no lowest address."""
        plan = AddressPlan(IPv4Interface("192.168.1.1/30"), ["192.168.1.2"])
        self.assertEqual(plan.free_ranges(), ())
        self.assertIsNone(plan.lowest_free())

    def test_odd_addresses_are_ignored(self) -> None:
        """Texts that are no addresses, and foreign addresses, use nothing."""
        plan = AddressPlan(IPv4Interface("192.168.1.1/30"), ["10.0.0.1", "x", "", "1.2.3", "::1"])
        self.assertEqual(plan.free_ranges(), (("192.168.1.2", "192.168.1.2"),))

    @given(st.integers(16, 30), st.sets(st.integers(0, 300), max_size=60), st.integers(1, 2))
    def test_runs_are_the_complement(self, prefix: int, used: set[int], offset: int) -> None:
        """Ranges hold each free host once, in order, and never touch each other."""
        network = IPv4Interface(f"10.7.0.{offset}/{prefix}")
        base = int(network.network.network_address)
        plan = AddressPlan(network, [dotted(base + one) for one in used])
        free = list(plan.free_addresses())
        taken = {dotted(base + one) for one in used} | {str(network.ip)}
        expected = [str(h) for h in list(network.network.hosts())[:400] if str(h) not in taken]
        self.assertEqual(free[:len(expected)], expected)
        runs = [(int(IPv4Address(a)), int(IPv4Address(b))) for a, b in plan.free_ranges()]
        for (_, end), (start, _) in itertools.pairwise(runs):
            self.assertGreater(start, end + 1)

    def test_parse_address(self) -> None:
        """IPv6-mapped addresses count as IPv4, anything odd as nothing."""
        self.assertEqual(parse_address("::ffff:10.0.0.1"), IPv4Address("10.0.0.1"))
        self.assertIsNone(parse_address("10.0.0.1/24"))
        self.assertIsNone(parse_address("::1"))
