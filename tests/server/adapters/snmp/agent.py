"""An SNMP agent that does as a test says, for what real ones do wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.protocol import DatagramProtocol

from walt.server.domain.switches.tables import Oid

GET, NEXT, RESPONSE, SET, BULK = 0xA0, 0xA1, 0xA2, 0xA3, 0xA5  # RFC 3416 §3
INTEGER, OCTETS, IDENTIFIER, END_OF_MIB = 2, 4, 6, 0x82


def element(tag: int, content: bytes) -> bytes:
    """Return one element of BER with its length."""
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def number(value: int) -> bytes:
    """Return an INTEGER."""
    return element(INTEGER, value.to_bytes(8, "big", signed=True))


def identifier(name: Oid) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    octets = bytearray()
    for one in (40 * name[0] + name[1], *name[2:]):
        groups = [one & 127]
        while one := one >> 7:
            groups.append(128 | one & 127)
        octets += bytes(reversed(groups))
    return element(IDENTIFIER, bytes(octets))


def _inner(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag and content of the first element, and what follows it."""
    size, at = data[1], 2
    if size & 128:
        at = 2 + (size & 127)
        size = int.from_bytes(data[2:at], "big")
    return data[0], data[at:at + size], data[at + size:]


def _name(content: bytes) -> Oid:
    numbers, value = [content[0] // 40, content[0] % 40], 0
    for octet in content[1:]:
        value = value << 7 | octet & 127
        if not octet & 128:
            numbers.append(value)
            value = 0
    return tuple(numbers)


@dataclass
class Question:
    """One request: its kind, number, repetitions (of BULK), the name it asks for, its value."""

    kind: int
    id: int
    repetitions: int
    name: Oid
    head: bytes
    value: bytes = b""

    @classmethod
    def read(cls, datagram: bytes) -> Question:
        """Read a request that is well formed."""
        _, message, _ = _inner(datagram)
        _, version, rest = _inner(message)
        _, community, rest = _inner(rest)
        kind, pdu, _ = _inner(rest)
        _, request, rest = _inner(pdu)
        _, _, rest = _inner(rest)
        _, repetitions, rest = _inner(rest)
        _, bind, _ = _inner(_inner(rest)[1])
        _, asked, given = _inner(bind)
        return cls(
            kind, int.from_bytes(request, "big", signed=True),
            int.from_bytes(repetitions, "big"), _name(asked),
            element(INTEGER, version) + element(OCTETS, community), _inner(given)[1],
        )

    def answer(self, *rows: tuple[Oid, bytes], status: int = 0, id: int | None = None) -> bytes:
        """Return the datagram of a response with these names and encoded values."""
        binds = b"".join(element(0x30, identifier(name) + value) for name, value in rows)
        pdu = number(self.id if id is None else id) + number(status) + number(0)
        return element(0x30, self.head + element(RESPONSE, pdu + element(0x30, binds)))


class Agent(DatagramProtocol):
    """Answers each request with the datagrams that `behave` returns."""

    def __init__(self, behave: Callable[[Question], list[bytes]]) -> None:
        self._behave = behave
        self.questions: list[Question] = []
        self.peer = ("", 0)  # who asked last

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        question = Question.read(datagram)
        self.questions.append(question)
        self.peer = addr
        assert self.transport is not None
        for one in self._behave(question):
            self.transport.write(one, addr)
