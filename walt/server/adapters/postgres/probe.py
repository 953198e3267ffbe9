"""Ask PostgreSQL whether it would encrypt: the one question that needs no user.

PostgreSQL's manual, "Message Flow", SSL Session Encryption: the answer is one byte.
"""

from __future__ import annotations

import struct
from pathlib import Path

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime

from walt.server.runtime.asking import ask_stream
from walt.server.runtime.watching import NoAnswer

QUESTION = struct.pack("!II", 8, 80877103)


def read_answer(received: bytes) -> bool | None:
    """Tell that the answer is there, None as long as it is missing. Raises NoAnswer."""
    if not received:
        return None
    if received[:1] not in (b"S", b"N"):
        raise NoAnswer("another program answers at its socket")
    return True


async def ask_encryption(reactor: IReactorTime, socket: Path) -> None:
    """Return when the server behind `socket` answered. Raises NoAnswer, OSError."""
    await ask_stream(UNIXClientEndpoint(reactor, str(socket)), read_answer, send=QUESTION)
