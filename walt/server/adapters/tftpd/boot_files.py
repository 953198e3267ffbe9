"""Open boot files of nodes without ever leaving their image (spec server §1.4).

Symbolic links are followed as a process whose root directory is the image
would: absolute ones start at the image's root, `..` stops there. Each step is
opened relative to the one before and never follows a link by itself, so that a
file system that changes meanwhile cannot lead outside either.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from pathlib import Path

from zope.interface import implementer

from walt.common.errors import NotFound
from walt.common.names import is_mac
from walt.server.domain.network.addresses import parse_address
from walt.server.domain.network_services.interfaces import BootFile, IBootFiles

MAX_LINKS = 40  # as the kernel does (path_resolution(7))
MAX_PATH = 4096
MAX_STEPS = 1000  # names on the way, those of links included
_IMAGE = re.compile(r"\.\./\.\./images/([0-9a-f]{12,64})/fs/boot/([a-z0-9][a-z0-9-]*)")
_STATIC = re.compile(r"(?:\.\./\.\./|/.*/)tftp-static")
_PLAIN = re.compile(r"[A-Za-z0-9:][A-Za-z0-9:.-]*")


def open_inside(root: str | Path, start: tuple[str, ...], path: str) -> BootFile:
    """Open the regular file `start`/`path` of the file system tree at `root`.

    Raises NotFound when there is none, or when `path` holds `..` or a NUL.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path or len(path) > MAX_PATH or not parts:
        raise NotFound("no such file")
    opened: list[int] = []
    try:
        descriptor = _walk(root, deque((*start, *parts)), opened)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound("no such file")
        # The descriptor of an O_PATH opening cannot be read: open the same file again.
        stream = os.fdopen(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY), "rb")
        return BootFile(stream, os.fstat(stream.fileno()).st_size)
    except (OSError, ValueError):
        raise NotFound("no such file") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _walk(root: str | Path, pending: deque[str], opened: list[int]) -> int:
    """Return a descriptor of the file reached; every one opened goes to `opened`.

    40 links of 4,096 bytes would be a way of 80,000 names.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    opened.append(top)
    stack = [top]
    links = 0
    while pending:
        part = pending.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        if len(opened) > MAX_STEPS:
            raise NotFound("no such file")
        here = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=stack[-1])
        opened.append(here)
        if stat.S_ISLNK(os.fstat(here).st_mode):
            links += 1
            if links > MAX_LINKS:
                raise NotFound("no such file")
            target = os.readlink("", dir_fd=here)
            if target.startswith("/"):
                del stack[1:]
            pending.extendleft(reversed(target.split("/")))
        else:
            stack.append(here)
    return stack[-1]


@implementer(IBootFiles)
class BootFiles:
    """The boot files below `state`: `nodes/<node>/tftp/<path>`."""

    def __init__(self, state: Path) -> None:
        # Text: a path that is put together of parts costs more than what it is asked for here.
        self._state = str(state)

    def open(self, node: str, path: str) -> BootFile:
        """Open a boot file of the node with this address or MAC. Raises NotFound."""
        root, start = self._tftp_directory(node)
        return open_inside(root, start, path)

    def _tftp_directory(self, node: str) -> tuple[str, tuple[str, ...]]:
        """Return the tree that confines the node's boot files, and where they start."""
        address = parse_address(node)
        name = str(address) if address is not None else node.lower()
        if address is None and not is_mac(name):
            raise NotFound("no such node")
        try:
            if os.path.islink(place := f"{self._state}/nodes/{name}"):
                name = os.readlink(place)
            if _PLAIN.fullmatch(name) is None:
                raise NotFound("no such node")
            target = os.readlink(f"{self._state}/nodes/{name}/tftp")
        except OSError:
            raise NotFound("no such node") from None
        if _STATIC.fullmatch(target):
            return f"{self._state}/tftp-static", ()
        image = _IMAGE.fullmatch(target)
        if image is None:
            raise NotFound("no such node")
        return f"{self._state}/images/{image[1]}/fs", ("boot", image[2])
