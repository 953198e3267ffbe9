"""Ask dhcpd, from its own machine, without a lease: DHCPINFORM (RFC 2131 §3.4).

dhcpd reads frames of its interface, those that its own machine sends there, too.
The question goes into one for the interface's own MAC, which no other machine gets.
The answer comes by UDP to port 68 of the address that asks, the server's.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct

from walt.server.runtime.asking import Address, Place, ask_datagram
from walt.server.runtime.reactors import IReactor

SERVER_PORT, CLIENT_PORT = 67, 68
_COOKIE = b"\x63\x82\x53\x63"  # RFC 2131 §3
_MESSAGE, _WANTED, _SERVER, _END = 53, 55, 54, 255  # options of RFC 2132
_INFORM, _ACK = 8, 5


def _checksum(raw: bytes) -> int:
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def question(number: int, mac: bytes, address: str) -> bytes:
    """Return an Ethernet frame with a DHCPINFORM of `address`, from and to `mac`."""
    own = socket.inet_aton(address)
    message = (
        struct.pack("!BBBBIHH", 1, 1, 6, 0, number, 0, 0) + own + bytes(12)
        + mac + bytes(10 + 64 + 128) + _COOKIE
        + bytes([_MESSAGE, 1, _INFORM, _WANTED, 1, _SERVER, _END])
    )
    udp = struct.pack("!HHHH", CLIENT_PORT, SERVER_PORT, 8 + len(message), 0) + message
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0, own, own)
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return mac + mac + b"\x08\x00" + head + udp


def is_answer(raw: bytes, number: int) -> bool:
    """Tell whether a datagram is the acknowledgement of question `number`."""
    return (
        len(raw) >= 243 and raw[0] == 2 and raw[4:8] == struct.pack("!I", number)
        and raw[236:243] == _COOKIE + bytes([_MESSAGE, 1, _ACK])
    )


async def ask_information(
    reactor: IReactor, server: str, interface: str, *, place: Place = contextlib.nullcontext
) -> None:
    """Return when dhcpd of this machine answered on `interface`, whose address is `server`.

    Raises OSError when asking is impossible: no such interface, or port 68 is taken.
    """
    number = random.getrandbits(32)

    def accept(raw: bytes, sender: Address) -> bool | None:
        return True if sender == (server, SERVER_PORT) and is_answer(raw, number) else None

    with place():
        # Protocol 0: it sends only.
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with frames:
        frames.bind((interface, 0))
        frames.setblocking(False)
        frame = question(number, frames.getsockname()[4], server)
        await ask_datagram(
            reactor, lambda _: frames.send(frame), accept, own=(server, CLIENT_PORT), place=place
        )
