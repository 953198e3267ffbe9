"""A small NFSv4 client that sends what it likes: RFC 7530 (4.0) and RFC 8881 (4.1)."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import time
from dataclasses import dataclass

OK, GRACE, DELAY = 0, 10013, 10008
REGULAR, DIRECTORY = 1, 2
_PROGRAM, _COMPOUND, _AUTH_SYS = 100003, 1, 1
_LONGEST = 60.0  # seconds: a server that has just started asks to wait
_FILEID, _TYPE = 20, 1  # numbers of attributes
_ANYBODY = bytes(16)  # the stateid of who has opened nothing


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def _bitmap(*numbers: int) -> bytes:
    words = [0] * (max(numbers) // 32 + 1)
    for number in numbers:
        words[number // 32] |= 1 << number % 32
    return struct.pack(f">I{len(words)}I", len(words), *words)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def words(self, form: str) -> tuple[int, ...]:
        found = struct.unpack_from(f">{form}", self.data, self.at)
        self.at += struct.calcsize(f">{form}")
        return found

    def word(self) -> int:
        return self.words("I")[0]

    def fixed(self, size: int) -> bytes:
        found = self.data[self.at:self.at + size]
        self.at += size + -size % 4
        return found

    def opaque(self) -> bytes:
        return self.fixed(self.word())


def _connection(server: str, source: str) -> socket.socket:
    """Connect from a port that root alone may use: the kernel's server wants one."""
    for port in range(1023, 600, -1):
        try:
            return socket.create_connection((server, 2049), 30, (source, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    raise OSError("no port is free")


@dataclass(frozen=True)
class Found:
    """What a handle leads to: its kind, its number, what can be read of it."""

    kind: int
    inode: int
    content: bytes


class NfsClient:
    """One connection of an `account` (its number), from an address of this machine."""

    def __init__(self, server: str, source: str, minor: int, account: int = 0) -> None:
        self._account = account
        self._socket = _connection(server, source)
        self._minor = minor
        self._xids = itertools.count(1)
        self._session = b""
        self._sequence = itertools.count(1)
        if minor:
            self._begin()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def _call(self, operations: list[bytes]) -> _Reader:
        account = struct.pack(">III", self._account, self._account, 0)
        sys = struct.pack(">I", 0) + _opaque(b"attacker") + account
        body = struct.pack(">IIIIII", next(self._xids), 0, 2, _PROGRAM, 4, _COMPOUND)
        body += struct.pack(">I", _AUTH_SYS) + _opaque(sys) + struct.pack(">II", 0, 0)
        body += _opaque(b"") + struct.pack(">II", self._minor, len(operations))
        body += b"".join(operations)
        self._socket.sendall(struct.pack(">I", 0x80000000 | len(body)) + body)
        answer, last = b"", False
        while not last:
            mark = struct.unpack(">I", self._exactly(4))[0]
            last = bool(mark & 0x80000000)
            answer += self._exactly(mark & 0x7FFFFFFF)
        reader = _Reader(answer)
        reader.words("III")
        reader.word()
        reader.opaque()
        if reader.word() != 0:
            raise OSError("the server refuses the call")
        return reader

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            if not piece:
                raise ConnectionError("the server has ended the connection")
            found += piece
        return found

    def _begin(self) -> None:
        owner = os.urandom(8) + _opaque(b"attacker %d" % time.monotonic_ns())
        reader = self._call([struct.pack(">I", 42) + owner + struct.pack(">III", 0, 0, 0)])
        reader.word(), reader.opaque(), reader.words("III")
        client, sequence = reader.words("QI")
        channel = struct.pack(">IIIIIII", 0, 1 << 20, 1 << 20, 65536, 16, 1, 0)
        reader = self._call([
            struct.pack(">IQII", 43, client, sequence, 0) + channel * 2
            + struct.pack(">III", 0, 1, 0)
        ])
        reader.word(), reader.opaque(), reader.words("III")
        self._session = reader.fixed(16)
        self.compound([struct.pack(">II", 58, 0)])

    def compound(self, operations: list[bytes]) -> tuple[int, _Reader]:
        """Do these; return the status and what follows the answer's header."""
        limit = time.monotonic() + _LONGEST
        while True:
            before = []
            if self._session:
                before = [struct.pack(">I", 53) + self._session
                          + struct.pack(">IIII", next(self._sequence), 0, 0, 0)]
            reader = self._call([*before, *operations])
            status = reader.word()
            reader.opaque()
            reader.word()
            if status in (GRACE, DELAY) and time.monotonic() < limit:
                time.sleep(0.5)
                continue
            if before:
                reader.words("II")
                reader.fixed(16)
                reader.words("IIIII")
            return status, reader

    def handle(self, path: str) -> bytes:
        """Return the handle of a path from the server's root. Raises OSError."""
        names = [struct.pack(">I", 15) + _opaque(one.encode()) for one in path.split("/") if one]
        status, reader = self.compound(
            [struct.pack(">I", 24), *names, struct.pack(">I", 10)]
        )
        if status != OK:
            raise OSError(status, f"status {status}", path)
        for _ in range(len(names) + 1):
            reader.words("II")
        reader.words("II")
        return reader.opaque()

    def look(self, handle: bytes) -> Found | None:
        """Return what is behind a handle, None when the server refuses it."""
        put = struct.pack(">I", 22) + _opaque(handle)
        status, reader = self.compound(
            [put, struct.pack(">I", 9) + _bitmap(_TYPE, _FILEID)]
        )
        if status != OK:
            return None
        reader.words("II"), reader.words("II")
        reader.words("I" * reader.word())
        attributes = _Reader(reader.opaque())
        kind, inode = attributes.word(), attributes.words("Q")[0]
        content = b""
        if kind == REGULAR:
            content = self._read(put)
        elif kind == DIRECTORY:
            content = b"\n".join(self._names(put))
        return Found(kind, inode, content)

    def _read(self, put: bytes) -> bytes:
        status, reader = self.compound(
            [put, struct.pack(">I", 25) + _ANYBODY + struct.pack(">QI", 0, 65536)]
        )
        if status != OK:
            return b""
        reader.words("II"), reader.words("II"), reader.word()
        return reader.opaque()

    def _names(self, put: bytes) -> list[bytes]:
        status, reader = self.compound([
            put, struct.pack(">I", 26) + struct.pack(">Q", 0) + bytes(8)
            + struct.pack(">II", 8192, 32768) + _bitmap(_FILEID),
        ])
        if status != OK:
            return []
        reader.words("II"), reader.words("II"), reader.fixed(8)
        found = []
        while reader.word():
            reader.words("Q")
            found.append(reader.opaque())
            reader.words("I" * reader.word())
            reader.opaque()
        return found

    def make_directory(self, handle: bytes, name: str) -> int:
        """Make a directory in the one of a handle; return the status."""
        status, _ = self.compound([
            struct.pack(">I", 22) + _opaque(handle),
            struct.pack(">II", 6, DIRECTORY) + _opaque(name.encode()) + struct.pack(">II", 0, 0),
        ])
        return status
