"""Boxes on their way: in their order, and long ones bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPullProducer
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walt.rpc.outbox import AT_ONCE, Outbox

PART = bytes(1 << 16)
LONG = [b"long", *[PART] * 9, b"end"]


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = StringTransport()
        self.told: list[bool] = []
        self.outbox = Outbox(self.transport, self.told.append)

    def drain(self) -> int:
        """Take what is written until nothing waits; return how often more was asked for."""
        asked = 0
        while self.transport.producer is not None:
            self.transport.producer.resumeProducing()
            asked += 1
        return asked

    def test_interface(self) -> None:
        """It is what a transport asks for more."""
        verifyObject(IPullProducer, self.outbox)

    def test_short(self) -> None:
        """What is short is written at once."""
        self.outbox.send([b"a", b"b"])
        self.assertEqual(self.transport.value(), b"ab")
        self.assertIsNone(self.transport.producer)

    def test_long(self) -> None:
        """What is long is written as it is taken; what comes meanwhile waits for its end."""
        self.outbox.send(LONG)
        self.outbox.send([b"next"])
        self.assertLess(len(self.transport.value()), AT_ONCE + len(PART))
        self.assertGreater(self.drain(), 1)
        self.assertEqual(self.transport.value(), b"".join(LONG) + b"next")
        self.outbox.send([b"last"])
        self.assertEqual(self.transport.value()[-8:], b"nextlast")

    def test_gone(self) -> None:
        """A peer that went away is sent nothing."""
        self.outbox.send(LONG)
        self.transport.clear()
        self.transport.producer.stopProducing()
        self.transport.producer.resumeProducing()
        self.assertEqual(self.transport.value(), b"")

    def test_full(self) -> None:
        """Who does not take what it is sent is told of, be it in short boxes, until it does."""
        for box in (LONG, [b"x" * (1 << 10)]):
            self.setUp()
            count = 0
            while not self.told:
                self.outbox.send(box)
                count += 1
            self.assertLessEqual(count << 10, AT_ONCE + (1 << 10))
            self.assertEqual(self.told, [True])
            self.drain()
            self.assertEqual(self.told, [True, False])
            self.assertEqual(self.transport.value(), b"".join(box) * count)

    @given(st.lists(st.tuples(st.sampled_from([[b"x", b"y"], LONG]), st.booleans()), max_size=6))
    def test_any_order(self, steps: Sequence[tuple[list[bytes], bool]]) -> None:
        """Whatever is sent, whenever the peer takes some: the bytes are those of the boxes."""
        self.setUp()
        for box, taken in steps:
            self.outbox.send(box)
            if taken and self.transport.producer is not None:
                self.transport.producer.resumeProducing()
        self.drain()
        self.assertEqual(
            self.transport.value(), b"".join(b"".join(box) for box, _ in steps)
        )
