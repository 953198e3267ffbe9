"""The relay that delays frames where the kernel cannot, on a fake tap."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from walt.common.traffic_shaping import Limits
from walt.server.tools import frame_relay


class FakeTap:
    """Remembers what it is sent."""

    def __init__(self, name: str, reactor: Any, received: Any) -> None:
        self.name, self.received = name, received
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> None:
        """Take a frame."""
        self.sent.append(frame)


class StoppableClock(Clock):
    """A clock that can be stopped, as the reactor."""

    stopped = False

    def stop(self) -> None:
        """Note the stop."""
        self.stopped = True


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(frame_relay, "Tap", FakeTap)
        self.clock = StoppableClock()
        self.relay = frame_relay.Relay("wt0", Limits(10_300), self.clock)
        self.transport = StringTransport()
        self.relay.makeConnection(self.transport)
        self.tap: Any = self.relay._tap

    def received(self) -> bytes:
        """Return what the machine got since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    def test_frames_to_the_machine_are_delayed(self) -> None:
        """Each goes behind its length, after the latency, in order."""
        self.tap.received(b"one")
        self.clock.advance(0.005)
        self.tap.received(b"second")
        self.clock.advance(0.0049)
        self.assertEqual(self.received(), b"")
        self.clock.advance(0.0002)
        self.assertEqual(self.received(), struct.pack("!I", 3) + b"one")
        self.clock.advance(0.005)
        self.assertEqual(self.received(), struct.pack("!I", 6) + b"second")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_frames_of_the_machine_pass_at_once(self) -> None:
        """Also when they come in pieces."""
        data = struct.pack("!I", 5) + b"frame"
        for byte in data:
            self.relay.dataReceived(bytes([byte]))
        self.assertEqual(self.tap.sent, [b"frame"])

    def test_late_machine(self) -> None:
        """A machine that does not read loses frames; memory is not used for them."""
        self.transport.producer.pauseProducing()
        self.tap.received(b"lost")
        self.clock.advance(1)
        self.transport.producer.resumeProducing()
        self.assertEqual(self.received(), b"")
        self.tap.received(b"kept")
        self.clock.advance(1)
        self.assertIn(b"kept", self.received())

    def test_a_tap_that_is_gone(self) -> None:
        """A machine that ended before its relay was up: nothing is opened."""
        frame_relay.run("wt-is-not-there", Limits(10_300), self.clock)
        self.assertFalse(self.clock.stopped)

    def test_end_of_the_machine(self) -> None:
        """The relay ends with it."""
        self.relay.connectionLost()
        self.assertTrue(self.clock.stopped)
