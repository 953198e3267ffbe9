"""The relay between a device and a peer: who ends it, and what it keeps."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from walt.common.ethernet import FrameDecoder, encode
from walt.vpn.relay import MOST_WAITING, End, relay


class Cable:
    """A relay in a thread; `tap` is what stands for the network behind its device."""

    def __init__(self, case: SynchronousTestCase, *, watched: bool = False,
                 until: float | None = None) -> None:
        # A socket that keeps the ends of messages stands for the device.
        self.tap, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer, peer = socket.socketpair()
        self.server, server = socket.socketpair()
        for one in (self.tap, tap, self.peer, peer, self.server, server):
            case.addCleanup(one.close)
        for one in (self.tap, self.peer):
            one.settimeout(20)
        self.ends: list[End] = []
        out = os.dup(peer.fileno())
        case.addCleanup(os.close, out)

        def run() -> None:
            self.ends.append(relay(
                tap.fileno(), peer.fileno(), out, server.fileno() if watched else None, until
            ))

        self.thread = threading.Thread(target=run)
        self.thread.start()
        case.addCleanup(self.thread.join)
        case.addCleanup(self.peer.close)

    def end(self) -> End:
        """Wait for its end; return it."""
        self.thread.join(30)
        return self.ends[0]

    def read(self, decoder: FrameDecoder, count: int) -> list[bytes]:
        """Return frames that the peer gets."""
        found: list[bytes] = []
        while len(found) < count:
            found += decoder.feed(self.peer.recv(65536))
        return found


def reached(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds."""
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.01)
    return False


class RelayTests(SynchronousTestCase):
    def test_both_ways(self) -> None:
        """Frames go through whole, in their order, however the stream is cut."""
        cable = Cable(self)
        frames = [bytes([number]) * (14 + number) for number in range(200)]
        stream = b"".join(map(encode, frames))
        for start in range(0, len(stream), 97):
            self.assertTrue(cable.peer.send(stream[start:start + 97]))
        self.assertEqual([cable.tap.recv(2000) for _ in frames], frames)
        for one in frames:
            cable.tap.send(one)
        self.assertEqual(cable.read(FrameDecoder(), len(frames)), frames)
        cable.peer.shutdown(socket.SHUT_WR)
        self.assertFalse(cable.end().fault)

    def test_no_frames(self) -> None:
        """A peer that sends something else, or too long frames, is left."""
        for data in (b"\xff\xff", b"\x05\xeb", b"\0\0", b"GET / HTTP/1.1\r\n\r\n"):
            cable = Cable(self)
            cable.peer.send(data)
            self.assertIn("no frames", cable.end().reason)

    def test_cut_within_a_frame(self) -> None:
        """The end of the stream is the end of the tunnel, wherever it is."""
        whole = encode(b"x" * 60)
        for cut in range(len(whole)):
            cable = Cable(self)
            cable.peer.send(whole[:cut])
            cable.peer.shutdown(socket.SHUT_WR)
            self.assertEqual(cable.end(), End("the peer has closed the tunnel", False))

    def test_a_peer_that_never_reads(self) -> None:
        """It costs the limit and no more; the network behind goes on, and so do its frames."""
        cable = Cable(self)
        cable.tap.setblocking(False)
        sent = 0

        def full() -> bool:
            nonlocal sent
            try:
                for _ in range(100):
                    cable.tap.send(b"f" * 1514)
                    sent += 1
            except BlockingIOError:
                time.sleep(0.05)
                try:
                    cable.tap.send(b"f" * 1514)
                    sent += 1
                except BlockingIOError:
                    return True
            return False

        self.assertTrue(reached(full))
        self.assertTrue(sent * 1514 > MOST_WAITING)
        cable.peer.send(encode(b"up" * 50))
        cable.tap.setblocking(True)
        self.assertEqual(cable.tap.recv(2000), b"up" * 50)
        # It begins to read: all that was taken arrives whole.
        self.assertEqual(cable.read(FrameDecoder(), sent), [b"f" * 1514] * sent)

    def test_a_flood(self) -> None:
        """Frames that the network does not take are dropped, as on a cable."""
        cable = Cable(self)
        flood = encode(b"z" * 1000) * 64
        for _ in range(100):
            cable.peer.sendall(flood)
        cable.peer.shutdown(socket.SHUT_WR)
        self.assertFalse(cable.end().fault)

    def test_frames_that_have_no_place(self) -> None:
        """A frame with a VLAN tag above the limit, or a scrap, is left out."""
        cable = Cable(self)
        for size in (1518, 5, 60):
            cable.tap.send(b"x" * size)
            time.sleep(0.02)
        self.assertEqual(cable.read(FrameDecoder(), 1), [b"x" * 60])

    def test_the_server_ends_it(self) -> None:
        """The connection by which the device came is its life."""
        cable = Cable(self, watched=True)
        cable.server.send(b"walt-vpn0\n")
        cable.tap.send(b"x" * 60)
        self.assertEqual(cable.read(FrameDecoder(), 1), [b"x" * 60])
        self.assertEqual(cable.ends, [])
        cable.server.close()
        self.assertEqual(cable.end(), End("the server has ended this tunnel", True))

    def test_the_device_goes(self) -> None:
        """A device that is deleted ends it."""
        cable = Cable(self)
        cable.tap.close()
        self.assertIn("device is gone", cable.end().reason)

    def test_expiry(self) -> None:
        """So does the end of the certificate."""
        cable = Cable(self, until=time.time() + 0.2)
        cable.tap.send(b"x" * 60)
        self.assertEqual(cable.read(FrameDecoder(), 1), [b"x" * 60])
        self.assertEqual(cable.end(), End("the certificate has expired", True))
