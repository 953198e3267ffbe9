"""Swap areas: the plugin that nbdkit loads (nbdkit-python-plugin(3); spec node-protocols §4.12).

Each connection gets a sparse anonymous file of the size that its export name tells
(`swap-16G`: 16 GiB); the kernel frees it with the connection. Parameters:
`directory`, where the files are, and `reserve`, the bytes that must stay free there:
below, writes fail with ENOSPC, and the node keeps its pages in memory.

What one address may have is limited. nbdkit tells C plugins who a peer is, but not those
in Python (nbdkit_peer_name(3)): its function is called through ctypes. A node that is cut
off and boots again finds its old area gone: TCP asks whether peers are still there.

nbdkit runs it with Debian's Python, so it uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import struct
import tempfile
import threading
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import IO, Any

import nbdkit

API_VERSION = 2
GIB = 1 << 30
NAME = re.compile(r"swap-([1-9][0-9]{0,3})G")
# Of one address:
MAX_AREAS = 2
MAX_SIZE = 128  # GiB, all of its areas together
MAX_CONNECTIONS = 8  # those that have not asked for an area included
IDLE, INTERVAL, PROBES = 10, 10, 6  # seconds, and questions without answer (tcp(7))

_settings: dict[str, str] = {}
_lock = threading.Lock()
_areas: Counter[str] = Counter()  # by address
_sizes: Counter[str] = Counter()  # GiB, by address


class Refused(Exception):
    """A peer asked for what it does not get; the text says why."""


_formatted = traceback.format_exception


def _told(kind: Any, error: Any, trace: Any) -> list[str]:
    """Return what nbdkit writes to its log about an exception: no traceback of a refusal."""
    return [f"{error}\n"] if isinstance(error, Refused) else _formatted(kind, error, trace)


traceback.format_exception = _told  # type: ignore[assignment]


@dataclass(frozen=True)
class Area:
    """The file of one connection."""

    file: IO[bytes]
    address: str
    size: int  # GiB


def thread_model() -> int:
    """One request at a time for each connection; connections do not wait for each other."""
    model: int = nbdkit.THREAD_MODEL_SERIALIZE_REQUESTS
    return model


def config(key: str, value: str) -> None:
    """Take a parameter of the command line."""
    if key not in ("directory", "reserve"):
        raise ValueError(f"unknown parameter {key}")
    _settings[key] = value


def config_complete() -> None:
    """Refuse to start without the parameters."""
    os.stat(_settings["directory"])
    int(_settings["reserve"])


def _peer() -> tuple[str, int]:
    """Return the address and the port of the connection that this thread serves."""
    found = ctypes.create_string_buffer(128)  # a struct sockaddr_storage
    length = ctypes.c_uint32(len(found))
    told = ctypes.CDLL(None).nbdkit_peer_name
    if told(found, ctypes.byref(length)) != 0 or length.value < 8:
        raise OSError("the peer is not known")
    # struct sockaddr_in: we listen at an address of IPv4
    port, address = struct.unpack_from("!2xH4s", found)
    return socket.inet_ntoa(address), port


def preconnect(readonly: bool) -> None:
    """Refuse a connection of an address that has too many; watch whether its peer lives on."""
    address, port = _peer()
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # no socket, or closed meanwhile
            connection = socket.socket(fileno=int(name))
            try:
                peer = connection.getpeername()
                if peer[0] == address:
                    count += 1
                if peer == (address, port):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
            finally:
                connection.detach()
    if count > MAX_CONNECTIONS:
        raise Refused(f"{address} has {MAX_CONNECTIONS} connections already")


def open(readonly: bool) -> Area:
    """Make the area of a new connection.

    Raises Refused on a name of another form, or when its address has too much.
    """
    wanted = NAME.fullmatch(nbdkit.export_name())
    if wanted is None:
        raise Refused("the export must be named swap-<n>G, n from 1 to 9999")
    size, address = int(wanted[1]), _peer()[0]
    with _lock:
        if _areas[address] >= MAX_AREAS or _sizes[address] + size > MAX_SIZE:
            raise Refused(f"{address} may have {MAX_AREAS} areas and {MAX_SIZE} GiB at most")
        file = tempfile.TemporaryFile(dir=_settings["directory"], buffering=0)  # noqa: SIM115
        file.truncate(size * GIB)
        _areas[address] += 1
        _sizes[address] += size
    return Area(file, address, size)


def close(area: Area) -> None:
    """Free the area."""
    area.file.close()
    with _lock:
        for counted, share in ((_areas, 1), (_sizes, area.size)):
            counted[area.address] -= share
            if counted[area.address] <= 0:
                del counted[area.address]


def get_size(area: Area) -> int:
    """Return the size in bytes."""
    return area.size * GIB


def block_size(area: Area) -> tuple[int, int, int]:
    """Return the least, the preferred and the largest size of a request, in bytes."""
    return 1, 4096, 1 << 20


def pread(area: Area, buffer: Any, offset: int, flags: int) -> None:
    """Fill `buffer`; what was never written reads as zeros."""
    view = memoryview(buffer)
    while view:
        count = os.preadv(area.file.fileno(), [view], offset)
        view, offset = view[count:], offset + count


def pwrite(area: Area, buffer: Any, offset: int, flags: int) -> None:
    """Store `buffer`. Fails with ENOSPC rather than fill the disk of the server."""
    disk = os.fstatvfs(area.file.fileno())
    if disk.f_bavail * disk.f_frsize < int(_settings["reserve"]):
        nbdkit.set_error(errno.ENOSPC)
        raise OSError(errno.ENOSPC, "no space is left for swap areas")
    view = memoryview(buffer)
    while view:
        count = os.pwrite(area.file.fileno(), view, offset)
        view, offset = view[count:], offset + count
