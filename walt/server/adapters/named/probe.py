"""Ask named for the serial of a zone (RFC 1035 §4, SOA)."""

from __future__ import annotations

import contextlib
import random
from typing import NamedTuple

from twisted.names import dns

from walt.server.runtime.asking import Address, Place, ask_datagram
from walt.server.runtime.reactors import IReactor

PORT = 53


class Soa(NamedTuple):
    """What named says of a zone: its serial, or None and the code of its refusal."""

    serial: int | None
    code: int

    def refusal(self) -> str:
        """Return the name of the code (RFC 1035 §4.1.1)."""
        names = {0: "NODATA", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
        return names.get(self.code, f"code {self.code}")


def query(zone: str, number: int) -> bytes:
    """Return a query for the SOA of a zone; no recursion is asked for."""
    message = dns.Message(id=number, recDes=0)
    message.addQuery(zone, type=dns.SOA)
    return bytes(message.toStr())


def read_answer(raw: bytes, number: int) -> Soa | None:
    """Return what the answer to query `number` says, None for anything else."""
    message = dns.Message()
    try:
        message.fromStr(raw)
    except Exception:  # the decoder has no error of its own for what is malformed
        return None
    if message.id != number or not message.answer:
        return None
    for record in message.answers:
        if record.type == dns.SOA and isinstance(record.payload, dns.Record_SOA):
            return Soa(record.payload.serial, message.rCode)
    return Soa(None, message.rCode)


async def ask_serial(
    reactor: IReactor, server: str, zone: str, *, place: Place = contextlib.nullcontext
) -> Soa:
    """Return what named at `server` says of a zone. Raises NoAnswer, OSError."""
    number = random.getrandbits(16)
    packet = query(zone, number)

    def accept(raw: bytes, sender: Address) -> Soa | None:
        return read_answer(raw, number)

    return await ask_datagram(
        reactor, lambda sending: sending.send(packet), accept,
        peer=(server, PORT), place=place,
    )
