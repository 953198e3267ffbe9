"""Ask nbdkit for its greeting (the NBD protocol, proto.md: newstyle negotiation)."""

from __future__ import annotations

import contextlib
import struct

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTime

from walt.server.runtime.asking import Place, ask_stream
from walt.server.runtime.watching import NoAnswer

MAGIC, OPTIONS = b"NBDMAGIC", b"IHAVEOPT"
GREETING = 18  # bytes: both words and the server's flags
_FIXED_NEWSTYLE, _ABORT = 1, 2
# A client that leaves without a word is an error in nbdkit's log.
ABORT = struct.pack("!I", _FIXED_NEWSTYLE) + OPTIONS + struct.pack("!II", _ABORT, 0)


def read_greeting(received: bytes) -> bool | None:
    """Tell that the greeting is there, None as long as bytes are missing. Raises NoAnswer."""
    words = MAGIC + OPTIONS
    if not words.startswith(received[:len(words)]):
        raise NoAnswer("another program answers at its port")
    return True if len(received) >= GREETING else None


async def ask_greeting(
    reactor: IReactorTime, server: str, port: int, *, place: Place = contextlib.nullcontext
) -> None:
    """Return when nbdkit at `server` greeted. Raises NoAnswer, OSError."""
    endpoint = TCP4ClientEndpoint(reactor, server, port)
    await ask_stream(endpoint, read_greeting, farewell=ABORT, place=place)
