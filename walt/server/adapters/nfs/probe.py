"""Ask an NFS server to do nothing: the NULL procedure of version 4 (RFC 5531, RFC 7530)."""

from __future__ import annotations

import contextlib
import struct

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTime

from walt.server.runtime.asking import Place, ask_stream
from walt.server.runtime.watching import NoAnswer

PORT = 2049
_XID = 0x57616C54
_CALL, _REPLY = 0, 1
_RPC_VERSION, _NFS, _NFS_VERSION, _NULL = 2, 100003, 4, 0
_NO_AUTHENTICATION = (0, 0)
_LAST_FRAGMENT = 0x80000000

_WORDS = (
    _XID, _CALL, _RPC_VERSION, _NFS, _NFS_VERSION, _NULL, *_NO_AUTHENTICATION,
    *_NO_AUTHENTICATION,
)
NULL_CALL = struct.pack(f"!I{len(_WORDS)}I", _LAST_FRAGMENT | 4 * len(_WORDS), *_WORDS)
# Accepted, no verifier, success.
_DONE = struct.pack("!6I", _XID, _REPLY, 0, 0, 0, 0)


def read_reply(received: bytes) -> bool | None:
    """Tell that the reply is there, None as long as bytes are missing. Raises NoAnswer."""
    if len(received) < 4 + len(_DONE):
        return None
    if received[4:4 + len(_DONE)] != _DONE:
        raise NoAnswer("it refuses to be called")
    return True


async def ask_nothing(
    reactor: IReactorTime, server: str, *, place: Place = contextlib.nullcontext
) -> None:
    """Return when the NFS server at `server` answered. Raises NoAnswer, OSError."""
    await ask_stream(
        TCP4ClientEndpoint(reactor, server, PORT), read_reply, send=NULL_CALL, place=place
    )
