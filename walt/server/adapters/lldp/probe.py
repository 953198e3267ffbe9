"""Ask snmpd for an object, by SNMP version 2c (RFC 3416)."""

from __future__ import annotations

import contextlib
import random

from walt.server.runtime.asking import Address, Place, ask_datagram
from walt.server.runtime.reactors import IReactor

SYS_OBJECT_ID = bytes.fromhex("06082b06010201010200")  # 1.3.6.1.2.1.1.2.0
# lldpLocChassisIdSubtype, 1.0.8802.1.1.2.1.3.1.0 (IEEE 802.1AB-2005 annex)
LOC_CHASSIS = bytes.fromhex("060a28c46201010201030100")
_SEQUENCE, _INTEGER, _OCTETS, _NULL, _GET, _RESPONSE = 0x30, 0x02, 0x04, 0x05, 0xA0, 0xA2
_ABSENT = (0x80, 0x81)  # noSuchObject, noSuchInstance


def _element(tag: int, content: bytes) -> bytes:
    # Questions are shorter than 128 octets.
    return bytes([tag, len(content)]) + content


def question(community: str, number: int, name: bytes) -> bytes:
    """Return a GetRequest for an encoded name; `number` is its request-id, of 31 bits."""
    bind = _element(_SEQUENCE, name + bytes([_NULL, 0]))
    zero = _element(_INTEGER, b"\0")
    pdu = _element(_GET, (
        _element(_INTEGER, number.to_bytes(4, "big")) + zero + zero + _element(_SEQUENCE, bind)
    ))
    return _element(_SEQUENCE, (
        _element(_INTEGER, b"\1") + _element(_OCTETS, community.encode()) + pdu
    ))


class _Malformed(Exception):
    """It is no message."""


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Return tags and contents of elements, one after the other (BER with definite lengths)."""
    found = []
    at = 0
    while at < len(data):
        if len(data) - at < 2:
            raise _Malformed
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 3 or len(data) - at < count:
                raise _Malformed
            size = int.from_bytes(data[at:at + count], "big")
            at += count
        if len(data) - at < size:
            raise _Malformed
        found.append((tag, data[at:at + size]))
        at += size
    return found


def _only(data: bytes, tag: int) -> list[tuple[int, bytes]]:
    found = _split(data)
    if len(found) != 1 or found[0][0] != tag:
        raise _Malformed
    return _split(found[0][1])


def read_answer(raw: bytes, number: int) -> bool | None:
    """Return whether the answer to question `number` has a value, None if it is no answer to it."""
    try:
        message = _only(raw, _SEQUENCE)
        if len(message) != 3 or message[2][0] != _RESPONSE:
            return None
        parts = _split(message[2][1])
        if len(parts) != 4 or int.from_bytes(parts[0][1], "big") != number:
            return None
        if any(parts[1][1]):
            return False
        bind = _only(parts[3][1], _SEQUENCE)
    except _Malformed:
        return None
    return len(bind) == 2 and bind[1][0] not in _ABSENT


async def ask(
    reactor: IReactor, server: str, port: int, community: str, name: bytes, *,
    place: Place = contextlib.nullcontext,
) -> bool:
    """Return whether snmpd shows an object. Raises NoAnswer, OSError."""
    number = random.getrandbits(30) | 1 << 30
    packet = question(community, number, name)

    def accept(raw: bytes, sender: Address) -> bool | None:
        return read_answer(raw, number)

    return await ask_datagram(
        reactor, lambda sending: sending.send(packet), accept, peer=(server, port), place=place
    )
