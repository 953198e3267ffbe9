"""Connections to the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Optional

from walt.common.errors import Unavailable, in_words
from walt.virtual.namespace import Namespace
from walt.virtual.timing import within

CONNECT_PATIENCE = 10.0  # seconds
READ_PATIENCE = 60.0  # seconds: an answer may wait for an image
BUFFER = 64 * 1024  # longest line or header read


@dataclass(frozen=True)
class Server:
    """Where the server is; `namespace` is where to speak from, None: from this machine."""

    address: str
    namespace: Optional[Namespace] = None
    http_port: int = 80
    rpc_port: int = 12345
    stream_port: int = 12347


@asynccontextmanager
async def connected(
    server: Server, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a port of the server for the time of a block.

    Raises Unavailable, also for what goes wrong with the connection inside the block.
    """
    if server.namespace is not None:
        made = server.namespace.socket()
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    writer = None
    try:
        made.setblocking(False)
        await within(
            CONNECT_PATIENCE,
            asyncio.get_running_loop().sock_connect(made, (server.address, port)),
        )
        reader, writer = await asyncio.open_connection(sock=made, limit=BUFFER)
        yield reader, writer
    except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError) as error:
        why = "no answer in time" if isinstance(error, asyncio.TimeoutError) else in_words(error)
        raise Unavailable(f"the server ({server.address}, port {port}): {why}") from None
    finally:
        if writer is not None:
            writer.close()
        else:
            made.close()


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """Return a line without its end, waiting for a bounded time."""
    line = await within(READ_PATIENCE, reader.readuntil(b"\n"))
    return line[:-1]
