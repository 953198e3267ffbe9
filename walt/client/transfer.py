"""Archives on client streams: files to and from nodes and images (spec user-surface §1.13)."""

from __future__ import annotations

import select
import sys
import time

from walt.client import archives
from walt.client.errors import Failure
from walt.client.ignored import ignored_in
from walt.client.output import readable
from walt.client.remote import LOST
from walt.client.stream import Stream, result_status
from walt.client.terminal import WHEEL, both_terminals
from walt.client.visible import own
from walt.common import frames

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from walt.common.transfers import Place

AHEAD = 1 << 20  # bytes of an archive that wait for the server


def receive(
    request: str, parameters: Mapping[str, Any], kind: str, place: Place,
    told: list[str] | None = None,
) -> int:
    """Copy what a request sends (a FILE, or the content of a DIRECTORY) to a local place.

    Return the exit status of the remote side. With `told`, nothing is printed: it gets the
    texts of the remote side.
    """
    parameters = {**parameters, "kind": kind, "merge": place.name is None}
    reader = _Reader(Stream(request, parameters), told)
    try:
        complete = archives.unpack(reader, kind, place, reader.tell)
        reader.drain()
    except BaseException:
        reader.close(ok=False)
        raise
    reader.close()
    if reader.status == 0 and not complete:
        raise Failure("nothing was received")
    return reader.status or 0


def send(
    request: str, parameters: Mapping[str, Any], source: str, kind: str, place: Place,
    told: list[str] | None = None,
) -> int:
    """Copy a local file, or the content of a directory, to a remote place.

    Return the exit status of the remote side; `told` as for `receive`.
    """
    where = {"directory": place.directory, "name": place.name, "kind": kind}
    writer = _Writer(Stream(request, {**parameters, **where}), told)
    try:
        archives.pack(source, place.name, writer, writer.tell)
        writer.stream.send(frames.END)
        writer.wait()
    except _Ended:
        pass
    except BaseException:
        writer.close(ok=False)
        raise
    writer.close()
    return writer.status or 0


def send_directory(stream: Stream, directory: str) -> int | None:
    """Send the content of a local directory, but for what it ignores, and the end of input.

    Return the exit status when the remote side ended meanwhile, else None.
    """
    writer = _Writer(stream)
    try:
        archives.pack(directory, None, writer, writer.tell, ignored_in(directory))
        stream.send(frames.END)
    except _Ended:
        pass
    finally:
        writer.progress.end(writer.status is None)
    return writer.status


class _Progress:
    """`Transferring…` with a wheel and the size so far; one line at the end."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = both_terminals() and not quiet
        self._turn = 0
        self._next = 0.0
        self._size = 0

    def add(self, count: int) -> None:
        """Count bytes."""
        self._size += count
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + 0.1
            self._turn += 1
            self._write(f"\rTransferring... {WHEEL[self._turn % 4]} {readable(self._size)}   ")

    def end(self, ok: bool) -> None:
        """Say how it ended."""
        if self._shown and self._next:
            self._write("\r" + " " * 40 + "\r")
        if ok and not self._quiet:
            self._write(f"Transferring... done ({readable(self._size)}).\n")

    @staticmethod
    def _write(text: str) -> None:
        own(text)
        sys.stdout.flush()


class _Side:
    """What both directions share: texts of the remote side, its status, progress."""

    def __init__(self, stream: Stream, told: list[str] | None = None) -> None:
        self.stream = stream
        self.status: int | None = None
        self.progress = _Progress(quiet=told is not None)
        self._told = told

    def tell(self, text: str) -> None:
        """Tell a text about the transfer to whoever waits for it."""
        if self._told is not None:
            self._told.append(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def next_data(self) -> list[bytes]:
        """Wait for frames; return those of data. `status` is set at the end."""
        received = self.stream.received()
        if received is None:
            raise Failure(LOST)
        data = []
        for kind, payload in received:
            if kind == frames.DATA:
                data.append(payload)
            elif kind == frames.MESSAGE:
                self.tell(payload.decode(errors="replace").rstrip("\n"))
            elif kind == frames.RESULT:
                self.status = result_status(payload)
        return data

    def close(self, *, ok: bool = True) -> None:
        """Close the connection and end the line of progress; `ok`: our side did its part."""
        self.stream.close()
        self.progress.end(ok and self.status == 0)


class _Reader(_Side):
    """The file that tarfile reads an archive from."""

    def __init__(self, stream: Stream, told: list[str] | None = None) -> None:
        super().__init__(stream, told)
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """Return that many bytes, fewer at the end only."""
        while len(self._held) < size and self.status is None:
            for payload in self.next_data():
                self._held += payload
                self.progress.add(len(payload))
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    def drain(self) -> None:
        """Read what follows the archive (padding), until the remote side ends."""
        while self.status is None:
            self.next_data()


class _Ended(Exception):
    """The remote side ended while it was being sent to."""


class _Writer(_Side):
    """The file that tarfile writes an archive to."""

    def write(self, data: bytes) -> int:
        """Send a piece, waiting when the server is late. Raises _Ended.

        Tarfile still writes what it holds after that: the connection may be closed then.
        """
        if self.status is not None:
            raise _Ended
        self.stream.send(frames.DATA, data)
        self.progress.add(len(data))
        while self.stream.pending > AHEAD or self._something():
            self._turn()
        return len(data)

    def _something(self) -> bool:
        return bool(select.select([self.stream.socket], [], [], 0)[0])

    def _turn(self) -> None:
        readable, writable, _ = select.select([self.stream.socket], [self.stream.socket], [])
        if writable:
            self.stream.flush()
        if readable:
            self.next_data()
            if self.status is not None:
                raise _Ended

    def wait(self) -> None:
        """Wait for the end of the remote side."""
        while self.status is None:
            self.next_data()
