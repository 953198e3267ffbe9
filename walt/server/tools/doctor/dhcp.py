"""A DHCP client that asks for offers and never takes one (RFC 2131, RFC 2132, RFC 3004)."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

_MAGIC = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER = 1, 2
MESSAGE, SERVER, ASKED, VENDOR_CLASS, USER_CLASS, ARCHITECTURE = 53, 54, 55, 60, 77, 93
_WANTED = bytes([1, 3, 6, 15, 28, 43, 60, 66, 67, 175])
AGAIN = 1.0  # seconds between repetitions
PATIENCE = 4.0  # seconds: dhcpd may first ask the network whether an address is free
GRACE = 0.5  # seconds for other servers, after the offer of ours


@dataclass(frozen=True)
class Class:
    """How a kind of machine asks, and the file that it has to be told; "" for none."""

    name: str
    options: Mapping[int, bytes]
    file: str
    mac_prefix: str = "02:77:61"


_BIOS = b"PXEClient:Arch:00000:UNDI:002001"
CLASSES = (
    Class("plain", {}, ""),
    Class("BIOS", {VENDOR_CLASS: _BIOS, ARCHITECTURE: b"\0\0"}, "pxe/walt-x86-undionly.kpxe"),
    Class("UEFI", {VENDOR_CLASS: b"PXEClient:Arch:00007:UNDI:003000", ARCHITECTURE: b"\0\7"},
          "pxe/walt-x86-64-snponly.efi"),
    Class("iPXE", {VENDOR_CLASS: _BIOS, ARCHITECTURE: b"\0\0", USER_CLASS: b"iPXE"},
          "pxe/walt.ipxe"),
    Class("node", {VENDOR_CLASS: _BIOS, ARCHITECTURE: b"\0\0",
                   USER_CLASS: b"walt.node.pc-x86-64"}, ""),
    Class("Raspberry Pi", {VENDOR_CLASS: _BIOS, ARCHITECTURE: b"\0\0"}, "", "b8:27:eb"),
)


@dataclass(frozen=True)
class Offer:
    """What a server offers; addresses are dotted."""

    server: str
    address: str
    file: str
    options: Mapping[int, bytes]


def read_options(raw: bytes) -> dict[int, bytes]:
    """Return the options of a message as far as they are whole."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        end = at + 2 + raw[at + 1]
        if end > len(raw):
            break
        found[raw[at]] = found.get(raw[at], b"") + raw[at + 2:end]
        at = end
    return found


def read_offer(frame: bytes, number: int) -> Offer | None:
    """Return the offer for question `number` in an Ethernet frame, None for anything else."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    start = 14 + (frame[14] & 15) * 4
    if frame[start + 2:start + 4] != b"\0\x44":
        return None
    raw = frame[start + 8:]
    if len(raw) < 240 or raw[0] != 2 or raw[236:240] != _MAGIC:
        return None
    options = read_options(raw[240:])
    if raw[4:8] != struct.pack("!I", number) or options.get(MESSAGE) != bytes([_OFFER]):
        return None
    server = options.get(SERVER, b"")
    return Offer(
        socket.inet_ntoa(server) if len(server) == 4 else socket.inet_ntoa(frame[26:30]),
        socket.inet_ntoa(raw[16:20]),
        raw[108:236].split(b"\0")[0].decode(errors="replace"), options,
    )


def _checksum(raw: bytes) -> int:
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def question(number: int, mac: bytes, options: Mapping[int, bytes]) -> bytes:
    """Return an Ethernet frame with a DHCPDISCOVER from `mac`, to everybody."""
    wanted = {MESSAGE: bytes([_DISCOVER]), ASKED: _WANTED, **options}
    message = (
        struct.pack("!BBBBIHH", 1, 1, 6, 0, number, 0, 0x8000) + bytes(16) + mac
        + bytes(10 + 64 + 128) + _MAGIC
        + b"".join(bytes([code, len(value)]) + value for code, value in wanted.items())
        + b"\xff"
    )
    udp = struct.pack("!HHHH", 68, 67, 8 + len(message), 0) + message
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4
    )
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return b"\xff" * 6 + mac + b"\x08\x00" + head + udp


def offers(interface: str, kind: Class, server: str) -> list[Offer]:
    """Ask on an interface of this network namespace; return what servers offer, soon after
    the one at the address `server` did: others may be faster. Raises OSError.
    """
    number = random.getrandbits(32)
    mac = bytes.fromhex(kind.mac_prefix.replace(":", "")) + os.urandom(3)
    found: list[Offer] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as endpoint:
        endpoint.bind((interface, 0))
        begin = time.monotonic()
        end, again = begin + PATIENCE, begin
        while (now := time.monotonic()) < end:
            if now >= again and server not in [seen.server for seen in found]:
                again = now + AGAIN
                with contextlib.suppress(OSError):
                    endpoint.send(question(number, mac, kind.options))
            ready, _, _ = select.select([endpoint], [], [], min(0.1, end - now))
            if not ready:
                continue
            offer = read_offer(endpoint.recv(65536), number)
            if offer is not None and offer.server not in [seen.server for seen in found]:
                found.append(offer)
            if offer is not None and offer.server == server:
                end = min(end, time.monotonic() + GRACE)
    return found
