"""A disk as it is after a power cut that took all that the guest had not flushed.

QEMU's own writes survive its death, in the page cache of this machine, and so would what the
guest wrote to its disk without asking that it be kept (but for clusters that QCOW2 had not
noted yet). A disk with a cache of its own loses these. The driver blklogwrites writes down each
write and flush of the guest; those up to the last flush are done again on a layer of its own.
Source of the format: Linux, Documentation/admin-guide/device-mapper/log-writes.rst.

Blocking code.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAGIC = 0x6A736677736872
FLUSH, DISCARD = 1, 4
_SUPER = struct.Struct("<QQQI")  # magic, version, number of entries, bytes of a sector
_ENTRY = struct.Struct("<QQQQ")  # sector, number of sectors, flags, bytes that follow (zero)
# Documentation of NBD, doc/proto.md: a handshake without options, writes, and the end.
_REQUEST, _REPLY = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
_WRITE, _END = 1, 2
LONGEST = 600.0  # seconds
LARGEST = 16 << 20  # bytes of one request


def replay(log: Path, disk: Path) -> int:
    """Do the writes of a log, up to the last flush, on a QCOW2 disk; return how many were not.

    Raises OSError, ValueError, subprocess.SubprocessError.
    """
    door = disk.with_suffix(".nbd")
    with subprocess.Popen(
        ["qemu-nbd", "--format=qcow2", f"--socket={door}", "--cache=unsafe", str(disk)],
        stdin=subprocess.DEVNULL,
    ) as server:
        with _connected(door) as one:
            lost = _do_again(log, one)
            _ask(one, _END, 0, b"")
        if server.wait(LONGEST) != 0:
            raise ValueError(f"qemu-nbd ended with status {server.returncode}")
    return lost


def _connected(door: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(LONGEST)
    limit = time.monotonic() + LONGEST
    while True:
        try:
            one.connect(str(door))
            break
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)
    _read(one, 18)  # two magic numbers, flags
    one.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
    _read(one, 10)  # size, flags
    return one


def _read(one: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = one.recv(size - len(found))
        if not data:
            raise ValueError("qemu-nbd has ended")
        found += data
    return found


def _ask(one: socket.socket, kind: int, offset: int, data: bytes) -> None:
    one.sendall(_REQUEST.pack(0x25609513, 0, kind, 0, offset, len(data)) + data)
    if kind == _WRITE:
        _, error, _ = _REPLY.unpack(_read(one, _REPLY.size))
        if error:
            raise ValueError(f"qemu-nbd refuses a write: {error}")


def _do_again(log: Path, one: socket.socket) -> int:
    """Send the writes; return how many come after the last flush."""
    with log.open("rb") as stream:
        last = max(
            (number for number, (flags, *_) in enumerate(_entries(stream)) if flags & FLUSH),
            default=-1,
        )
        lost = 0
        for number, (flags, offset, place, size) in enumerate(_entries(stream)):
            if flags & (FLUSH | DISCARD):
                continue
            if number > last:
                lost += 1
                continue
            for done in range(0, size, LARGEST):
                stream.seek(place + done)
                data = stream.read(min(LARGEST, size - done))
                _ask(one, _WRITE, offset + done, data)
    return lost


def _entries(stream: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
    """Yield flags, offset on the disk, offset in the log and size of each entry.

    The head is written at each flush, and may be older than the last entries.
    """
    end = stream.seek(0, 2)
    stream.seek(0)
    magic, _, _, unit = _SUPER.unpack(stream.read(_SUPER.size).ljust(_SUPER.size, b"\0"))
    if magic != MAGIC:
        return  # nothing was flushed
    place = unit
    while place + unit <= end:
        stream.seek(place)
        sector, count, flags, _ = _ENTRY.unpack(stream.read(_ENTRY.size))
        place += unit
        size = 0 if flags & DISCARD else count * unit
        if not flags and not count:
            return  # what was not written any more
        if place + size > end:
            return
        yield flags, sector * unit, place, size
        place += size
