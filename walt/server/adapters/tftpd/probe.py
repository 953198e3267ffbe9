"""Ask in.tftpd for the first block of a file (RFC 1350)."""

from __future__ import annotations

import contextlib

from walt.server.runtime.asking import Address, Place, ask_datagram
from walt.server.runtime.reactors import IReactor

RRQ, DATA, ERROR, OACK = 1, 3, 5, 6
# Ends the transfer: the daemon's process for it need not wait for an acknowledgement.
ENOUGH = b"\0\5\0\0enough\0"


def request(name: str) -> bytes:
    """Return a request to read a file."""
    return b"\0\1" + name.encode() + b"\0octet\0"


def read_answer(raw: bytes) -> str | None:
    """Return "" for a first block, the words of an error, None for anything else."""
    if len(raw) < 4 or raw[0] != 0:
        return None
    if raw[1] == OACK or (raw[1] == DATA and raw[2:4] == b"\0\1"):
        return ""
    if raw[1] == ERROR:
        words = raw[4:104].split(b"\0")[0].decode(errors="replace")
        return words or f"error {int.from_bytes(raw[2:4], 'big')}"
    return None


async def ask_file(
    reactor: IReactor, server: str, port: int, name: str, *, place: Place = contextlib.nullcontext
) -> str:
    """Return "" when the daemon at `server` sends file `name`, else its error's words.

    Raises OSError when asking is impossible here.
    """
    packet = request(name)

    def accept(raw: bytes, sender: Address) -> str | None:
        return read_answer(raw) if sender[0] == server else None

    return await ask_datagram(
        reactor, lambda sending: sending.sendto(packet, (server, port)), accept,
        farewell=ENOUGH, place=place,
    )
