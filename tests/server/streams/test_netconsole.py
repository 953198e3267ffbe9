"""Kernel messages of nodes over UDP (spec node-protocols §6.3.3)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import NODE, Platform
from walt.server.streams.kernel_messages import MAX_MESSAGES, MAX_PARTIAL, KernelMessages
from walt.server.streams.netconsole import PATIENCE, Netconsole


class NetconsoleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = one = Platform()
        self.netconsole = Netconsole(one.registry, one.logs, one.clock)

    def receive(self, data: bytes, ip: str | None = NODE.ip) -> None:
        self.netconsole.datagramReceived(data, (str(ip), 6666))

    def test_lines_are_assembled(self) -> None:
        """A line may come in several datagrams, a datagram may hold several lines."""
        self.receive(b"[ 0.1] boo")
        self.assertEqual(self.platform.lines("netconsole"), [])
        self.receive(b"t\n[ 0.2] b\xffd\n[ 0.3]")
        self.assertEqual(self.platform.lines("netconsole"), ["[ 0.1] boot", "[ 0.2] b\\xffd"])

    def test_unknown_source(self) -> None:
        """Datagrams of unknown addresses are dropped, and do not mix with those of nodes."""
        self.receive(b"one", "192.168.1.99")
        self.receive(b"two\n")
        self.assertEqual(self.platform.lines("netconsole"), ["two"])

    def test_line_without_end(self) -> None:
        """What never ends is logged at the bound, not kept."""
        for _ in range(MAX_PARTIAL // 8000 + 1):
            self.receive(b"x" * 8000)
        self.assertEqual(len(self.platform.lines("netconsole")), 1)

    def test_end_that_does_not_come(self) -> None:
        """The last words of a kernel are logged after a moment, and when the server stops."""
        self.receive(b"[ 1.0] whole\n[ 2.0] Kernel pan")
        self.assertEqual(self.platform.lines("netconsole"), ["[ 1.0] whole"])
        self.platform.clock.advance(PATIENCE)
        self.assertEqual(self.platform.lines("netconsole")[1:], ["[ 2.0] Kernel pan"])
        self.receive(b"more")
        self.netconsole.stopProtocol()
        self.assertEqual(self.platform.lines("netconsole")[2:], ["more"])
        self.assertEqual(self.platform.clock.getDelayedCalls(), [])

    def test_extended(self) -> None:
        """Extended messages: time as in plain ones; device names left out; release; fragments."""
        self.receive(b"6,444,501151268,-;netconsole: network logging started\n")
        self.receive(b"4,445,5000001,c;link up\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:01.0\n")
        self.receive(b"6.4.0,3,446,6000000,-,caller=T1;with release\n")
        self.receive(b"6,416,1758426,-,ncfrag=16/31;the 2nd chunk.\n")
        self.receive(b"6,416,1758426,-,ncfrag=0/31;the first chunk,")
        self.receive(b"1, 2;3 no header\n")
        self.assertEqual(self.platform.lines("netconsole"), [
            "[  501.151268] netconsole: network logging started", "[    5.000001] link up",
            "[    6.000000] with release", "[    1.758426] the first chunk,the 2nd chunk.",
            "1, 2;3 no header",
        ])

    def test_lost_fragment(self) -> None:
        """What came of a message is logged, with a mark for what did not."""
        self.receive(b"6,1,1000000,-,ncfrag=5/20;second")
        self.receive(b"6,2,2000000,-;next\n")
        self.platform.clock.advance(PATIENCE)
        self.assertEqual(
            self.platform.lines("netconsole"),
            ["[    2.000000] next", "[    1.000000] [...]second[...]"],
        )
        for number in range(MAX_MESSAGES + 1):
            self.receive(b"6,%d,1000000,-,ncfrag=0/20;x" % number)
        self.assertEqual(len(self.platform.lines("netconsole")), 3)

    @given(st.lists(st.binary(max_size=30) | st.from_regex(
        rb"\A6,[0-9]{1,2},1,-,ncfrag=[0-9]{1,2}/[0-9]{1,2};[a-z\n ]{0,9}\Z"
    ), max_size=8))
    def test_anything(self, datagrams: list[bytes]) -> None:
        """Any datagrams give lines; little is kept."""
        kernel = KernelMessages()
        for one in datagrams:
            for line in kernel.feed(one):
                self.assertNotIn(b"\n", line)
        kernel.rest()
        self.assertFalse(kernel.waiting)

    def test_late_database(self) -> None:
        """What cannot be stored is dropped, and counted."""
        self.platform.logs.most_pending = 3
        for _ in range(5):
            self.receive(b"line\n")
        self.platform.clock.advance(1)
        self.receive(b"after\n")
        self.assertEqual(
            self.platform.lines("netconsole"),
            ["line", "line", "<3 datagrams dropped!>", "after"],
        )
