"""Lines from nodes (spec node-protocols §6.3.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.streams.platform import EPOCH, FROM_NODE, NODE, Platform
from walt.server.streams import ingest
from walt.server.streams.base import Peer

HEAD = b"0\nexp1\nNO_TIMESTAMPS\n"
STAMPED = b"0\nexp1\nTIMESTAMPS_INSIDE\n"


class IngestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()

    def test_server_timestamps(self) -> None:
        """The example of the specification: reception time, then a clean end."""
        connection = self.platform.connect(
            FROM_NODE, b"REQ_NEW_INCOMING_LOGS\nexp1\nNO_TIMESTAMPS\nline one\nline two\nCLOSE\n"
        )
        self.assertEqual(
            self.platform.stored("exp1"), [(EPOCH, "line one"), (EPOCH, "line two")]
        )
        self.assertTrue(connection.transport.disconnecting)
        self.assertEqual(connection.raw(), b"")
        connection.leave()
        self.assertEqual(len(self.platform.lines("exp1")), 2)

    def test_own_timestamps(self) -> None:
        """Each line starts with its epoch time; absurd ones become the reception time."""
        self.platform.connect(FROM_NODE, STAMPED + (
            b"1699999999.123456 line one\n5 very old\n1700000002 in the future\n"
            b"nan not a number\ninf never\n1e400 overflow\n1699999999\nno stamp at all\nCLOSE\n"
        ))
        self.assertEqual(self.platform.stored("exp1"), [
            (1699999999.123456, "line one"), (EPOCH, "very old"), (EPOCH, "in the future"),
            (EPOCH, "not a number"), (EPOCH, "never"), (EPOCH, "overflow"),
            (1699999999.0, ""), (EPOCH, "no stamp at all"),
        ])

    def test_close_counts_at_the_end_only(self) -> None:
        """A CLOSE followed by a line is a line like the others."""
        connection = self.platform.connect(FROM_NODE, HEAD + b"CLOSE\nmore\nCLOSE\n")
        self.assertEqual(self.platform.lines("exp1"), ["CLOSE", "more"])
        self.assertTrue(connection.closed)

    def test_close_in_segments(self) -> None:
        """CLOSE cut in two still ends the stream properly."""
        connection = self.platform.connect(FROM_NODE, HEAD + b"line\nCLO")
        self.assertFalse(connection.closed)
        connection.send(b"SE\n")
        self.assertTrue(connection.closed)
        connection.leave()
        self.assertEqual(self.platform.lines("exp1"), ["line"])

    def test_close_without_newline(self) -> None:
        """An unfinished CLOSE is no end."""
        connection = self.platform.connect(FROM_NODE, HEAD + b"line\nCLOSE")
        connection.leave()
        self.assertEqual(self.platform.lines("exp1"), ["line", "CLOSE", "<disconnected!>"])

    def test_disconnection(self) -> None:
        """The partial line and a mark are logged."""
        connection = self.platform.connect(FROM_NODE, HEAD + b"line\nparti")
        connection.leave()
        self.assertEqual(self.platform.lines("exp1"), ["line", "parti", "<disconnected!>"])

    def test_disconnection_before_the_header(self) -> None:
        """Nothing is logged for a stream that never began."""
        for data in (b"0\n", b"0\nexp1\n", b"0\nexp1\nNO_TIME"):
            self.platform.connect(FROM_NODE, data).leave()
        self.assertEqual(self.platform.lines("exp1"), [])

    def test_many_lines_without_end(self) -> None:
        """They share what one device may have the server keep; nothing of them is lost."""
        self.platform.ingestion.limits.unfinished_of_device = 1000
        first, second = (self.platform.connect(FROM_NODE, HEAD + b"a" * 500) for _ in range(2))
        second.send(b"b")
        self.assertTrue(second.closed)
        self.assertFalse(first.closed)
        second.leave()
        self.assertEqual(self.platform.lines("exp1"), ["a" * 500 + "b", "<disconnected!>"])
        first.send(b"c" * 400 + b"\n" + b"d" * 900)
        self.assertFalse(first.closed)
        first.send(b"\n" + b"e" * 1000)
        self.assertFalse(first.closed)
        self.platform.ingestion.limits.unfinished = 1000
        first.send(b"f")
        self.assertTrue(first.closed)

    def test_split_utf8(self) -> None:
        """A character cut by a segment is whole in the log; bad bytes are shown."""
        connection = self.platform.connect(FROM_NODE, HEAD)
        for byte in "héé\n".encode():
            connection.send(bytes([byte]))
        connection.send(b"bad \xff byte, nul \0\n")
        self.assertEqual(
            self.platform.lines("exp1"), ["héé", "bad \\xff byte, nul \\x00"]
        )

    def test_unknown_issuer(self) -> None:
        """A peer that is no device is not heard."""
        for peer in (Peer("192.168.1.99", False), Peer(None, True, "alice")):
            connection = self.platform.connect(peer, HEAD + b"line\n")
            self.assertTrue(connection.closed)
        self.assertEqual(self.platform.lines("exp1"), [])

    def test_issuer_is_the_peer(self) -> None:
        """The MAC of the device that has this address."""
        self.platform.connect(FROM_NODE, HEAD + b"line\nCLOSE\n")
        self.platform.lines("exp1")
        self.assertEqual({one.issuer for one in self.platform.store.lines}, {NODE.mac})

    def test_many_streams(self) -> None:
        """A device that makes up stream names fills one stream with the lines of the last ones."""
        self.platform.ingestion.limits.streams = 2
        for name in ("a", "b", "c", "a", "d"):
            self.platform.connect(
                FROM_NODE, f"0\n{name}\nNO_TIMESTAMPS\nof {name}\nCLOSE\n".encode()
            )
        self.assertEqual(self.platform.lines("a"), ["of a", "of a"])
        self.assertEqual(self.platform.lines("b"), ["of b"])
        self.assertEqual(self.platform.lines(ingest.OTHER_STREAM), ["of c", "of d"])

    def test_header_without_end(self) -> None:
        """A name that never ends is cut off."""
        connection = self.platform.connect(FROM_NODE, b"0\n" + b"x" * (ingest.MAX_HEADER + 1))
        self.assertTrue(connection.transport.aborted)

    def test_line_without_end(self) -> None:
        """A line above the limit is cut off."""
        self.platform.ingestion.limits.line = 1000
        connection = self.platform.connect(FROM_NODE, HEAD + b"x" * 1001)
        self.assertTrue(connection.transport.aborted)

    def test_congestion(self) -> None:
        """A sender waits while the database is behind."""
        self.platform.logs.most_pending = 3
        connection = self.platform.connect(FROM_NODE, HEAD + b"1\n2\n3\n4\n")
        self.assertEqual(connection.transport.producerState, "paused")
        self.platform.clock.advance(1)
        self.assertEqual(connection.transport.producerState, "producing")
        self.assertEqual(self.platform.lines("exp1"), ["1", "2", "3", "4"])

    @given(
        st.lists(st.binary(max_size=20).filter(lambda one: b"\n" not in one), max_size=8),
        st.integers(1, 9),
    )
    def test_any_segments(self, lines: list[bytes], size: int) -> None:
        """Lines do not depend on segments; all arrive, but for a final CLOSE."""
        platform = Platform()
        connection = platform.connect(FROM_NODE)
        data = HEAD + b"".join(line + b"\n" for line in lines) + b"CLOSE\n"
        for at in range(0, len(data), size):
            if not connection.closed:
                connection.send(data[at:at + size])
        connection.leave()
        got = platform.lines("exp1")
        if b"CLOSE" not in lines:
            self.assertEqual(len(got), len(lines))
