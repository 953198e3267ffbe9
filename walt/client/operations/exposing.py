"""A port of this machine leads to a port of a device, or to the web pages."""

from __future__ import annotations

import asyncio
import json
import socket

from walt.client import settings
from walt.client.errors import Failure, Refused
from walt.client.stream import result_status
from walt.common import frames
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Tell = Callable[[str, bool], None]  # a text, and whether something went wrong

PIECE = 1 << 16


def parse_port(text: str) -> int:
    """Return the number of a TCP port. Raises Failure."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise Failure(f"{text!r} is not a port: give a number from 1 to 65535")


def listen(port: int) -> socket.socket:
    """Listen on all interfaces of this machine. Raises Failure."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
            )
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise Failure(f"cannot listen on port {port}: {error.strerror or error}") from None


async def serve(
    listening: socket.socket, request: str, parameters: dict[str, Any], tell: Tell
) -> None:
    """Relay every connection by a stream request; `tell` gets texts about them."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        tell(f"Connection from {address[0].removeprefix('::ffff:')} port {address[1]}.", False)
        try:
            await _relay(reader, writer, request, parameters)
        except Refused as refused:
            tell(str(refused), True)
        except EOFError:
            tell("a connection was lost: the server closed it", True)
        except (OSError, frames.BadFrame) as error:
            tell(f"a connection was lost: {in_words(error)}", True)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, sock=listening)
    async with server:
        await server.serve_forever()


async def _open(
    request: str, parameters: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    target = settings.stream_target()
    if target.path is not None:
        reader, writer = await asyncio.open_unix_connection(target.path)
    elif target.encrypted:
        from walt.client import enrolment

        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=enrolment.context(target.host)
        )
    else:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    line = json.dumps({**parameters, "username": settings.username()})
    writer.write(f"{request}\n{line}\n".encode())
    return reader, writer


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str,
    parameters: dict[str, Any],
) -> None:
    """Carry one connection, each side at the pace of the other."""
    from_server, to_server = await _open(request, parameters)
    outgoing = asyncio.ensure_future(_outgoing(reader, to_server))
    try:
        await _incoming(from_server, writer)
    finally:
        outgoing.cancel()
        to_server.close()


async def _outgoing(reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        to_server.write(frames.encode(frames.DATA, data))
        await to_server.drain()
    to_server.write(frames.encode(frames.END))


async def _incoming(from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    decoder = frames.Decoder()
    while data := await from_server.read(PIECE):
        for kind, payload in decoder.feed(data):
            if kind == frames.DATA:
                writer.write(payload)
                await writer.drain()
            elif kind == frames.END and writer.can_write_eof():
                writer.write_eof()
            elif kind == frames.RESULT:
                result_status(payload)
                return
    raise EOFError
