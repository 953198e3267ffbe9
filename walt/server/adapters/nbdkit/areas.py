"""Swap areas: the plugin that nbdkit loads (nbdkit-python-plugin(3); spec node-protocols §4.12).

Each connection gets a sparse anonymous file of the size that its export name tells
(`swap-16G`: 16 GiB); the kernel frees it with the connection. Parameters:
`directory`, where the files are, and `reserve`, the bytes that must stay free there:
below, writes fail with ENOSPC, and the node keeps its pages in memory.

nbdkit runs it with Debian's Python, so it uses the standard library alone.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from typing import IO, Any

import nbdkit

API_VERSION = 2
GIB = 1 << 30
NAME = re.compile(r"swap-([1-9][0-9]{0,3})G")

_settings: dict[str, str] = {}


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


def open(readonly: bool) -> IO[bytes]:
    """Make the area of a new connection. Raises ValueError on a name of another form."""
    wanted = NAME.fullmatch(nbdkit.export_name())
    if wanted is None:
        raise ValueError("the export must be named swap-<n>G, n from 1 to 9999")
    area = tempfile.TemporaryFile(dir=_settings["directory"], buffering=0)  # noqa: SIM115
    area.truncate(int(wanted[1]) * GIB)
    return area


def close(area: IO[bytes]) -> None:
    """Free the area."""
    area.close()


def get_size(area: IO[bytes]) -> int:
    """Return the size in bytes."""
    return os.fstat(area.fileno()).st_size


def block_size(area: IO[bytes]) -> tuple[int, int, int]:
    """Return the least, the preferred and the largest size of a request, in bytes."""
    return 1, 4096, 1 << 20


def pread(area: IO[bytes], buffer: Any, offset: int, flags: int) -> None:
    """Fill `buffer`; what was never written reads as zeros."""
    view = memoryview(buffer)
    while view:
        count = os.preadv(area.fileno(), [view], offset)
        view, offset = view[count:], offset + count


def pwrite(area: IO[bytes], buffer: Any, offset: int, flags: int) -> None:
    """Store `buffer`. Fails with ENOSPC rather than fill the disk of the server."""
    disk = os.fstatvfs(area.fileno())
    if disk.f_bavail * disk.f_frsize < int(_settings["reserve"]):
        nbdkit.set_error(errno.ENOSPC)
        raise OSError(errno.ENOSPC, "no space is left for swap areas")
    view = memoryview(buffer)
    while view:
        count = os.pwrite(area.fileno(), view, offset)
        view, offset = view[count:], offset + count
