"""A small DHCP client for tests: RFC 2131 messages in raw Ethernet frames."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from tests.system.netns import Namespace
from walt.server.adapters.network.namespace import inside

MAGIC = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
MESSAGE, SERVER_ID, REQUESTED, ASKED = 53, 54, 50, 55
_SO_ATTACH_FILTER = 26  # socket(7); the instructions are those of classic BPF (bpf(2))
# UDP to port 68, after an IPv4 header of any length: all other frames would fill the buffer.
_ANSWERS = b"".join(struct.pack("=HBBI", *one) for one in (
    (0x30, 0, 0, 23), (0x15, 0, 4, 17), (0xB1, 0, 0, 14), (0x48, 0, 0, 16), (0x15, 0, 1, 68),
    (0x06, 0, 0, 2048), (0x06, 0, 0, 0),
))
EVERYTHING = bytes([1, 3, 6, 12, 15, 28, 42, 43, 60, 66, 67, 119, 175])


@dataclass(frozen=True)
class Message:
    """A DHCP message; `file` is the boot file name, addresses are dotted."""

    kind: int
    xid: int
    mac: str
    yiaddr: str
    siaddr: str
    file: str
    options: Mapping[int, bytes]

    def address(self, option: int) -> str | None:
        """Return an option that holds one address."""
        raw = self.options.get(option)
        return socket.inet_ntoa(raw[:4]) if raw else None

    def text(self, option: int) -> str | None:
        """Return an option that holds text."""
        raw = self.options.get(option)
        return raw.rstrip(b"\0").decode("latin-1") if raw is not None else None


def encode_options(options: Mapping[int, bytes]) -> bytes:
    """Return options on the wire; long ones are cut in pieces (RFC 3396)."""
    out = b""
    for code, value in options.items():
        for at in range(0, max(1, len(value)), 255):
            piece = value[at:at + 255]
            out += bytes([code, len(piece)]) + piece
    return out + b"\xff"


def decode_options(raw: bytes) -> dict[int, bytes]:
    """Return the options of a message, pieces joined."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        size = raw[at + 1]
        found[raw[at]] = found.get(raw[at], b"") + raw[at + 2:at + 2 + size]
        at += 2 + size
    return found


def encode(mac: str, xid: int, options: Mapping[int, bytes]) -> bytes:
    """Return a BOOTREQUEST that asks for a broadcast answer."""
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, xid, 0, 0x8000)
    return (
        head + bytes(16) + bytes.fromhex(mac.replace(":", "")) + bytes(10 + 64 + 128)
        + MAGIC + encode_options(options)
    )


def decode(raw: bytes) -> Message | None:
    """Return the BOOTREPLY in `raw`, None if it is something else."""
    if len(raw) < 240 or raw[0] != 2 or raw[236:240] != MAGIC:
        return None
    options = decode_options(raw[240:])
    return Message(
        options.get(MESSAGE, b"\0")[0], struct.unpack("!I", raw[4:8])[0],
        raw[28:34].hex(":"), socket.inet_ntoa(raw[16:20]), socket.inet_ntoa(raw[20:24]),
        raw[108:236].split(b"\0")[0].decode("latin-1"), options,
    )


def checksum(raw: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(mac: str, payload: bytes) -> bytes:
    """Return an Ethernet frame with a UDP datagram 0.0.0.0:68 to 255.255.255.255:67."""
    udp = struct.pack("!HHHH", 68, 67, 8 + len(payload), 0) + payload
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + b"\x08\x00" + head + udp


def payload_of(raw: bytes) -> bytes | None:
    """Return what a UDP datagram to port 68 holds, None for another frame."""
    if len(raw) < 42 or raw[12:14] != b"\x08\x00" or raw[23] != 17:
        return None
    start = 14 + (raw[14] & 15) * 4
    if struct.unpack("!H", raw[start + 2:start + 4])[0] != 68:
        return None
    return raw[start + 8:]


@implementer(IReadDescriptor)
class DhcpClient:
    """Clients on one interface of a namespace; `exchange` plays one of them."""

    def __init__(self, reactor: Any, namespace: Namespace, interface: str) -> None:
        self._reactor = reactor
        with inside(namespace.path):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            self._socket.bind((interface, 0))
        program = ctypes.create_string_buffer(_ANSWERS)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack(
            "HP", len(_ANSWERS) // 8, ctypes.addressof(program)
        ))
        self._socket.setblocking(False)
        self._waiting: dict[int, Deferred[Message]] = {}
        self._xid = 0x1000
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return a name for logs."""
        return "dhcp-client"

    def doRead(self) -> None:
        """Give the answer that arrived to the one who waits for it."""
        raw = payload_of(self._socket.recv(2048))
        message = decode(raw) if raw is not None else None
        waiting = self._waiting.pop(message.xid, None) if message is not None else None
        if waiting is not None:
            waiting.callback(message)

    def connectionLost(self, reason: object) -> None:
        """Nothing to do: `close` ends it."""

    def close(self) -> None:
        """Stop reading."""
        self._reactor.removeReader(self)
        self._socket.close()

    async def ask(self, mac: str, options: Mapping[int, bytes], tries: int = 12) -> Message:
        """Send one message, again twice a second, and return the answer."""
        self._xid += 1
        xid = self._xid
        for _ in range(tries):
            waiting: Deferred[Message] = Deferred()
            self._waiting[xid] = waiting
            self._socket.send(frame(mac, encode(mac, xid, options)))
            waiting.addTimeout(0.5, self._reactor)
            try:
                return await waiting
            except TimeoutError:
                continue
        raise AssertionError(f"no DHCP answer to {mac} {dict(options)}")

    async def exchange(
        self, mac: str, options: Mapping[int, bytes] | None = None, tries: int = 12
    ) -> tuple[Message, Message]:
        """Go from DISCOVER to ACK; return the OFFER and the ACK (or NAK)."""
        mine = {ASKED: EVERYTHING, **(options or {})}
        offer = await self.ask(mac, {MESSAGE: bytes([DISCOVER]), **mine}, tries)
        answer = await self.ask(mac, {
            MESSAGE: bytes([REQUEST]), REQUESTED: socket.inet_aton(offer.yiaddr),
            SERVER_ID: offer.options[SERVER_ID], **mine,
        }, tries)
        return offer, answer
