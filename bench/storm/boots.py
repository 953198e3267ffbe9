"""Simulated boots: DHCP, the boot script, kernel and initrd by HTTP or TFTP, the notification."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.python.failure import Failure

from bench.simulator import INTERFACE, USER_CLASS, Fleet, SimulatedNode
from tests.system.dhcp_packets import DhcpClient
from walt.common.mounts import mount_points
from walt.server.adapters.network.namespace import inside

HTTP_PORT, TFTP_PORT = 80, 69
SCRIPT, FILES = "start.ipxe", ("initrd", "kernel")
BLOCK = 1468  # bytes in a packet of TFTP, as u-boot wants them (RFC 2348)
PATIENCE = 2.0  # seconds until a packet of TFTP is sent again
DHCP_TRIES = 240  # twice a second: the simulator shares the processors with the server
TRIES = 60
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Failed(Exception):
    """A file did not come whole; the text says what came."""


class _Fetch(Protocol):
    """One GET, whose body is counted."""

    def __init__(self, path: str, done: Deferred[int]) -> None:
        self._path, self._done = path, done
        self._head, self._left = b"", -1
        self._size = 0

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(f"GET /boot/{self._path} HTTP/1.0\r\n\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not found or length is None:
                return
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                self._left = -1
                return
            self._size = self._left = int(length[1])
        self._left -= len(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._left == 0:
            self._done.callback(self._size)
        else:
            self._done.errback(Failed(f"{self._path}: {self._head[:60]!r}, {self._left} missing"))


class _FetchFactory(ClientFactory):
    noisy = False

    def __init__(self, path: str, done: Deferred[int]) -> None:
        self._path, self._done = path, done

    def buildProtocol(self, address: IAddress | None) -> Protocol:
        return _Fetch(self._path, self._done)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._done.errback(Failed(f"{self._path}: {reason.value}"))


class _Tftp(DatagramProtocol):
    """One file by TFTP (RFC 1350, 2347, 2348), whose bytes are counted."""

    def __init__(self, fleet: Fleet, path: str, done: Deferred[int]) -> None:
        self._fleet, self._done = fleet, done
        self._server: tuple[str, int] = (f"{fleet.platform.net}.1", TFTP_PORT)
        self._last = b"\0\1" + f"{path}\0octet\0blksize\0{BLOCK}\0".encode()
        self._block, self._size = 0, 0
        self._again = fleet.reactor.callLater(0, self._send)

    def _send(self) -> None:
        assert self.transport is not None
        self.transport.write(self._last, self._server)
        self._again = self._fleet.reactor.callLater(PATIENCE, self._send)

    def datagramReceived(self, datagram: bytes, address: tuple[str, int]) -> None:
        code, number = datagram[1], int.from_bytes(datagram[2:4], "big")
        self._server = address
        if code == 5:
            self._end(Failed(datagram[4:].decode(errors="replace")))
            return
        if code == 3 and number == (self._block + 1) & 0xFFFF:
            self._block = number
            self._size += len(datagram) - 4
        elif code != 6:
            return  # it was sent twice
        self._last = b"\0\4" + self._block.to_bytes(2, "big")
        self._again.cancel()
        self._send()
        if code == 3 and len(datagram) < BLOCK + 4:
            self._end(None)

    def _end(self, error: Failed | None) -> None:
        if self._again.active():
            self._again.cancel()
        assert self.transport is not None
        self.transport.stopListening()  # type: ignore[attr-defined]
        if error is None:
            self._done.callback(self._size)
        else:
            self._done.errback(error)


@dataclass
class Boot:
    """What one node got, and when (seconds from the start of all).

    `persistent`: its /persist was there when it had its boot script.
    """

    node: SimulatedNode
    size: int = 0
    script: float = 0.0
    loaded: float = 0.0
    tries: int = 0
    persistent: bool = False


class Storm:
    """Boots of all nodes of a fleet at once; each `boards`th one takes its files by TFTP."""

    def __init__(self, fleet: Fleet, boards: int = 10) -> None:
        self._fleet = fleet
        self._boards = boards
        self._start = 0.0

    async def run(self) -> Sequence[Boot]:
        """Return what each node got; fails when one did not get everything."""
        for node in self._fleet.nodes:
            node.down = True
            if node.notification is not None:
                node.notification.transport.abortConnection()
        self._start = time.monotonic()
        client = DhcpClient(self._fleet.reactor, self._fleet, INTERFACE)
        try:
            return await gatherResults([
                Deferred.fromCoroutine(self._boot(client, node)) for node in self._fleet.nodes
            ])
        finally:
            client.close()

    async def _boot(self, client: DhcpClient, node: SimulatedNode) -> Boot:
        boot = Boot(node)
        _, answer = await client.exchange(
            node.mac, {USER_CLASS: b"walt.node.pc-x86-64"}, DHCP_TRIES
        )
        assert answer.yiaddr == node.ip, (answer.yiaddr, node)
        board = node.number % self._boards == 0
        while True:
            boot.tries += 1
            try:
                boot.size = await self._http(node, SCRIPT)
                break
            except Failed:
                if boot.tries == TRIES:
                    raise
                await self._fleet.platform.sleep(1.0)  # it reboots
        boot.script = time.monotonic() - self._start
        boot.persistent = any(node.mac in point for point in mount_points())
        for name in FILES:
            boot.size += await (self._tftp if board else self._http)(node, name)
        boot.loaded = time.monotonic() - self._start
        self._fleet.notify(node)
        return boot

    def _http(self, node: SimulatedNode, path: str) -> Deferred[int]:
        done: Deferred[int] = Deferred()
        with inside(self._fleet.path):
            self._fleet.reactor.connectTCP(
                f"{self._fleet.platform.net}.1", HTTP_PORT, _FetchFactory(path, done),
                timeout=60, bindAddress=(node.ip, 0),
            )
        return done

    def _tftp(self, node: SimulatedNode, path: str) -> Deferred[int]:
        done: Deferred[int] = Deferred()
        with inside(self._fleet.path):
            self._fleet.reactor.listenUDP(
                0, _Tftp(self._fleet, path, done), interface=node.ip, maxPacketSize=8192
            )
        return done


def boot_files(nodes: Path, node: SimulatedNode) -> dict[str, int]:
    """Return the sizes of the files of one boot, by name."""
    return {
        name: (nodes / node.ip / "tftp" / name).stat().st_size for name in (SCRIPT, *FILES)
    }
