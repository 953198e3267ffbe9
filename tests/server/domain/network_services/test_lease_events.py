from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.leases import Sighting, proposed_name
from walt.server.domain.network_services.lease_events import (
    LeaseAssembler,
    acknowledged,
    client_text,
    offered,
)

MAC, IP = "0:c:1:2:3:4", "192.168.1.7"
NASTY = [
    b"", b'"', b"\n", b"$(reboot)", b"walt-lease 1:2:3:4:5:6 1.2.3.4 end 0 unknown",
    "é".encode(), b"\xff\xfe", b"x" * 255, b"a\0\0", b"`;'|&",
]


def hexed(raw: bytes) -> str:
    """Return bytes as dhcpd's binary-to-ascii does: no leading zeros."""
    return ":".join(f"{byte:x}" for byte in raw)


def lines(vci: bytes, uci: bytes, name: bytes, end: str = "0 unknown", mac: str = MAC,
          ip: str = IP) -> list[str]:
    """Return the lines of one event."""
    head = f"walt-lease {mac} {ip}"
    return [f"{head} vci {hexed(vci)}", f"{head} uci {hexed(uci)}",
            f"{head} name {hexed(name)}", f"{head} end {end}"]


raw_texts = st.binary(max_size=255) | st.sampled_from(NASTY)


class LeaseAssemblerTests(SynchronousTestCase):
    @given(raw_texts, raw_texts, raw_texts)
    def test_any_text_stays_data(self, vci: bytes, uci: bytes, name: bytes) -> None:
        """Whatever a client sends comes out as that field of that event, nothing else."""
        assembler = LeaseAssembler()
        events = [event for line in lines(vci, uci, name) if (event := assembler.feed(line))]
        self.assertEqual(events, [Sighting(
            "00:0c:01:02:03:04", IP, client_text(vci), client_text(uci),
            proposed_name(client_text(name), "00:0c:01:02:03:04"),
        )])

    @given(st.text(max_size=300))
    def test_other_lines_are_ignored(self, line: str) -> None:
        """No line of another kind raises or gives an event."""
        self.assertIsNone(LeaseAssembler().feed(line))
        self.assertIsNone(LeaseAssembler().feed(f"walt-lease {line}"))

    @given(st.binary(max_size=255))
    def test_text_of_clients(self, raw: bytes) -> None:
        """Any bytes become text that can be sent on; UTF-8 is understood."""
        client_text(raw).encode()

    def test_interleaved_events(self) -> None:
        """Lines of two leases in turn give two right events."""
        assembler = LeaseAssembler()
        first = lines(b"a", b"", b"")
        second = lines(b"b", b"", b"", mac="2:0:0:0:0:9", ip="192.168.1.9")
        found = []
        for one, two in zip(first, second, strict=True):
            found += [event for event in map(assembler.feed, (one, two)) if event]
        self.assertEqual([(e.mac[-2:], e.vci) for e in found], [("04", "a"), ("09", "b")])

    def test_known_device(self) -> None:
        """The closing line tells what dhcpd knows of the device."""
        assembler = LeaseAssembler()
        for line in lines(b"walt.node.rpi-4-b", b"", b"pi", "1 unknown"):
            event = assembler.feed(line)
        assert event is not None
        self.assertEqual(event.known_as, "unknown")
        self.assertTrue(event.is_news)

    def test_damaged_lines(self) -> None:
        """Lines cut or made up are ignored; memory stays bounded."""
        assembler = LeaseAssembler()
        for line in (
            "walt-lease 1:2:3:4:5 192.168.1.7 end 0 unknown",
            "walt-lease 1:2:3:4:5:6 999.1.1.1 end 0 unknown",
            "walt-lease 1:2:3:4:5:6 192.168.1.7 end 2 unknown",
            "walt-lease 1:2:3:4:5:6 192.168.1.7 vci 12:3g",
        ):
            self.assertIsNone(assembler.feed(line))
        for number in range(1000):
            assembler.feed(f"walt-lease 1:2:3:4:{number >> 8:x}:{number & 255:x} {IP} vci 61")
        self.assertLessEqual(len(assembler._open), 64)


class OfferedTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """MAC and address are where dhcpd writes them."""
        mac = "b8:27:eb:00:00:01"
        for line, found in (
            (f"DHCPOFFER on 10.0.3.5 to {mac} via walt-net", (mac, "10.0.3.5")),
            (f"DHCPOFFER on 10.0.3.5 to {mac} (a name) via walt-net", (mac, "10.0.3.5")),
            (f"DHCPDISCOVER from {mac} (DHCPOFFER on 10.0.3.5 to {mac} )", None),
            (f"DHCPOFFER on x to {mac} via walt-net", None), ("DHCPOFFER on 10.0.3.5", None),
        ):
            self.assertEqual(offered(line), found, line)


class AcknowledgedTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """The MAC is where dhcpd writes it; a client's name comes after it."""
        mac = "52:54:00:00:00:01"
        for line, found in (
            (f"DHCPACK on 192.168.1.5 to {mac} via walt-net", mac),
            (f"DHCPACK on 192.168.1.5 to {mac} (DHCPACK on x) via walt-net", mac),
            (f"DHCPREQUEST for 192.168.1.5 from {mac} (x DHCPACK on 192.168.1.5 to {mac} )", None),
            (f"DHCPACK to 192.168.1.5 ({mac}) via walt-net", None),
            ("DHCPACK on 192.168.1.5 to 52:54:00", None), ("", None),
        ):
            self.assertEqual(acknowledged(line), found, line)
