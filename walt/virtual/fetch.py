"""Boot files of a node: by HTTP, or by stream request 12, which stands for TFTP."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from walt.common.errors import CommandFailed, Invalid, LimitExceeded, NotFound, Unavailable
from walt.virtual.script import Location
from walt.virtual.sockets import READ_PATIENCE, Server, connected, read_line
from walt.virtual.timing import within

MAX_FILE = 1 << 30  # bytes of a kernel or initrd
PIECE = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,12})[ \t]*\r?$")
_SIZE = re.compile(rb"[0-9]{1,12}")


class ServerFiles:
    """The boot files of one node; provides BootFiles.

    `directory` gets the files that are stored.
    """

    def __init__(self, server: Server, mac: str, ip: str, directory: Path) -> None:
        self._server = server
        self._mac, self._ip = mac, ip
        self._directory = directory
        self._stored = 0

    async def text(self, location: Location, limit: int) -> str:
        """Return a script. Raises NotFound, Unavailable, Invalid, LimitExceeded."""
        content = BytesIO()
        await self._get(location, content, limit)
        try:
            text = content.getvalue().decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise Invalid(f"{location} is not a script")
        return text

    async def store(self, location: Location) -> Path:
        """Download a file. Raises NotFound, Unavailable, LimitExceeded."""
        self._stored += 1
        path = self._directory / f"file-{self._stored}"
        with open(path, "xb") as stream:
            await self._get(location, stream, MAX_FILE)
        return path

    async def _get(self, location: Location, sink: BinaryIO, limit: int) -> None:
        if location.scheme == "http":
            await self._http(location, sink, limit)
        else:
            await self._request_12(location, sink, limit)

    async def _http(self, location: Location, sink: BinaryIO, limit: int) -> None:
        # HTTP/1.0: the answer comes in one piece, as long as its header says (RFC 1945).
        target = f"{quote(location.path)}?node_ip={self._ip}"
        async with connected(self._server, self._server.http_port) as (reader, writer):
            writer.write(
                f"GET {target} HTTP/1.0\r\nHost: {self._server.address}\r\n"
                "Prefer: errors=text-only\r\n\r\n".encode()
            )
            header = await within(READ_PATIENCE, reader.readuntil(b"\r\n\r\n"))
            status, length = _STATUS.match(header), _LENGTH.search(header)
            if status is None or status[1] not in (b"200", b"404"):
                raise Unavailable(f"{location}: the HTTP server does not send it")
            if status[1] == b"404":
                raise NotFound(f"{location}: the node has no such file")
            if length is None:
                raise Unavailable(f"{location}: the HTTP server does not tell its size")
            await _copy(reader, sink, int(length[1]), limit)

    async def _request_12(self, location: Location, sink: BinaryIO, limit: int) -> None:
        # The wire wants a pickle (spec node-protocols §6.2): it is written here, never read.
        asked = pickle.dumps({"node_mac": self._mac, "path": location.path}, 4)
        async with connected(self._server, self._server.stream_port) as (reader, writer):
            writer.write(b"12\n")
            if await read_line(reader) != b"READY":
                raise Unavailable(f"{location}: the server does not take the request")
            writer.write(asked)
            answer = await read_line(reader)
            if answer == b"NO SUCH FILE":
                raise NotFound(f"{location}: the node has no such file")
            size = await read_line(reader) if answer == b"OK" else b""
            if _SIZE.fullmatch(size) is None:
                raise Unavailable(f"{location}: the server does not send it")
            await _copy(reader, sink, int(size), limit)


async def _copy(reader: asyncio.StreamReader, sink: BinaryIO, size: int, limit: int) -> None:
    if size > limit:
        raise LimitExceeded(f"a boot file has {size} bytes, more than {limit}")
    while size:
        piece = await within(READ_PATIENCE, reader.read(min(PIECE, size)))
        if not piece:
            raise Unavailable("the server stopped in the middle of a boot file")
        try:
            sink.write(piece)
        except OSError as error:
            raise CommandFailed(f"cannot keep a boot file here: {error.strerror}") from None
        size -= len(piece)


def joined(initrds: Sequence[Path]) -> tuple[Path, ...]:
    """Return the initrds as one file, as iPXE gives several to a kernel."""
    if len(initrds) < 2:
        return tuple(initrds)
    with open(initrds[0], "ab") as whole:
        for path in initrds[1:]:
            whole.write(bytes(-whole.tell() % 4))  # archives begin at a multiple of 4 bytes
            with open(path, "rb") as part:
                while piece := part.read(1 << 20):
                    whole.write(piece)
            path.unlink()
    return (initrds[0],)
