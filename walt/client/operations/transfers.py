"""Archives on client streams: files to and from nodes and images (spec user-surface §1.13)."""

from __future__ import annotations

import select
from contextlib import contextmanager

from walt.client.errors import Failure
from walt.client.operations import archives
from walt.client.operations.ignored import ignored_in
from walt.client.stream import LOST, Stream, result_status
from walt.common import frames

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Protocol

    from walt.common.transfers import Place

    class Listener(Protocol):
        """Who waits for a transfer."""

        def tell(self, text: str) -> None:
            """Take a text of the remote side, or about what was left out."""

        def add(self, count: int) -> None:
            """Take note of so many bytes more."""

        def end(self, ok: bool) -> None:
            """Take note of the end."""


AHEAD = 1 << 20  # bytes of an archive that wait for the server


def receive(
    request: str, parameters: Mapping[str, Any], kind: str, place: Place,
    listener: Listener,
) -> int:
    """Copy what a request sends (a FILE, or the content of a DIRECTORY) to a local place.

    Return the exit status of the remote side.
    """
    parameters = {**parameters, "kind": kind, "merge": place.name is None}
    reader = _Reader(Stream(request, parameters), listener)
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
    listener: Listener,
) -> int:
    """Copy a local file, or the content of a directory, to a remote place.

    Return the exit status of the remote side.
    """
    where = {"directory": place.directory, "name": place.name, "kind": kind}
    writer = _Writer(Stream(request, {**parameters, **where}), listener)
    with _sending(writer):
        archives.pack(source, place.name, writer, writer.tell)
    return writer.status or 0


@contextmanager
def _sending(writer: _Writer) -> Iterator[None]:
    """End the input after what is sent within, and wait until the remote side is done.

    It may be done earlier: what is left is not sent then.
    """
    try:
        yield
        writer.stream.send(frames.END)
        writer.wait()
    except _Ended:
        pass
    except BaseException:
        writer.close(ok=False)
        raise
    writer.close()


def send_directory(stream: Stream, directory: str, listener: Listener) -> int | None:
    """Send the content of a local directory, but for what it ignores, and the end of input.

    Return the exit status when the remote side ended meanwhile, else None.
    """
    writer = _Writer(stream, listener)
    try:
        archives.pack(directory, None, writer, writer.tell, ignored_in(directory))
        stream.send(frames.END)
    except _Ended:
        pass
    finally:
        listener.end(writer.status is None)
    return writer.status


class _Side:
    """What both directions share: texts of the remote side, its status."""

    def __init__(self, stream: Stream, listener: Listener) -> None:
        self.stream = stream
        self.status: int | None = None
        self.listener = listener
        self.tell = listener.tell

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
        """Close the connection, and say that this is the end; `ok`: our side did its part."""
        self.stream.close()
        self.listener.end(ok and self.status == 0)


class _Reader(_Side):
    """The file that tarfile reads an archive from."""

    def __init__(self, stream: Stream, listener: Listener) -> None:
        super().__init__(stream, listener)
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """Return that many bytes, fewer at the end only."""
        while len(self._held) < size and self.status is None:
            for payload in self.next_data():
                self._held += payload
                self.listener.add(len(payload))
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
        self.listener.add(len(data))
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


def send_pieces(stream: Stream, pieces: Iterable[bytes], listener: Listener) -> None:
    """Send bytes and the end of input; return when the remote side is done. Raises Failure."""
    writer = _Writer(stream, listener)
    with _sending(writer):
        for piece in pieces:
            writer.write(piece)


def receive_pieces(
    stream: Stream, write: Callable[[bytes], object], listener: Listener
) -> None:
    """Give the bytes that come to `write`, until the remote side is done. Raises Failure."""
    reader = _Side(stream, listener)
    try:
        while reader.status is None:
            for payload in reader.next_data():
                listener.add(len(payload))
                write(payload)
    except BaseException:
        reader.close(ok=False)
        raise
    reader.close()


class Told:
    """Keeps the texts of a transfer, in `texts`; nobody watches it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tell = self.texts.append

    def add(self, count: int) -> None:
        """Do nothing."""

    def end(self, ok: bool) -> None:
        """Do nothing."""
