"""Boot files through stream request 12."""

from __future__ import annotations

import pickle
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.services import FakeBootFiles
from tests.fakes.transports import TcpTransport
from tests.server.streams.platform import Platform
from walt.server.streams.base import Peer, StreamProtocol
from walt.server.wire.fake_tftp import FakeTftpRequest

MAC, IP = "52:54:00:00:00:01", "192.168.1.2"
NODE = Peer(IP, False)


class _Transport(TcpTransport):
    """Asks for the whole file at once."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Ask for everything at once."""
        self.producer = producer
        while self.producer is not None:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The file was sent."""
        self.producer = None


class FakeTftpTests(SynchronousTestCase):
    def ask(self, *pieces: bytes, peer: Peer = NODE) -> _Transport:
        """Send a request in pieces; return the transport."""
        files = FakeBootFiles({(MAC, "start.ipxe"): b"#!ipxe\n", (IP, "empty"): b""})
        protocol = StreamProtocol(
            {"12": lambda *words: FakeTftpRequest(files, Platform().registry, *words)},
            peer, Clock(),
        )
        transport = _Transport()
        protocol.makeConnection(transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        return transport

    def test_answers(self) -> None:
        """A file by MAC or address, or what is wrong."""
        for given, answer in (
            ({"node_mac": MAC, "path": "/start.ipxe"}, b"OK\n7\n#!ipxe\n"),
            ({"node_ip": IP, "path": "/empty"}, b"OK\n0\n"),
            ({"node_ip": IP, "path": "/ghost"}, b"NO SUCH FILE\n"),
            ({"node_ip": IP}, b"NO SUCH FILE\n"),
            ({"path": "/start.ipxe"}, b"NO MAC OR IP SPECIFIED\n"),
            ("text", b"NO MAC OR IP SPECIFIED\n"),
        ):
            for protocol in (2, 3, 4, 5):
                data = b"12\n" + pickle.dumps(given, protocol)
                for pieces in ([data], [data[:7], data[7:]]):
                    transport = self.ask(*pieces)
                    self.assertEqual(transport.value(), b"READY\n" + answer)
                    self.assertTrue(transport.disconnecting)

    def test_others(self) -> None:
        """A node has its own files; who is nobody has none; users have all."""
        for given in ({"node_mac": MAC, "path": "/start.ipxe"}, {"node_ip": IP, "path": "/empty"}):
            data = b"12\n" + pickle.dumps(given, 4)
            others = (Peer("192.168.1.3", False), Peer("192.168.1.99", False), Peer(None, False))
            for peer in others:
                self.assertEqual(self.ask(data, peer=peer).value(), b"READY\nNO SUCH FILE\n")
            for peer in (Peer(IP, False), Peer(None, True, "ann")):
                self.assertIn(b"READY\nOK\n", self.ask(data, peer=peer).value())
        self.assertIn(b"NO SUCH FILE", self.ask(
            b"12\n" + pickle.dumps({"node_ip": IP, "path": ("empty", "empty")}, 4)
        ).value())

    def test_hostile(self) -> None:
        """What is no pickle, or wants to call something, ends the connection."""
        for data in (b"hello", pickle.dumps(print, 4), b"\x80" + b"A" * 20_000):
            transport = self.ask(b"12\n", data)
            self.assertTrue(transport.aborted, data[:20])
            self.assertEqual(transport.value(), b"READY\n")
