"""Archives sent by clients, unpacked without trusting what they hold."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

from walt.common.archives import UNREADABLE, BoundedMember, members
from walt.common.errors import Invalid, LimitExceeded
from walt.common.files import remove_tree
from walt.common.room import room
from walt.server.workers.main import Progress

MAX_MEMBERS = 1_000_000
MAX_BYTES = 32 << 30
BLOCK = 1 << 20
MEMORY = 1 << 30  # bytes of address space for a job


def unpack(
    arguments: dict[str, Any], progress: Progress, *, most_bytes: int = MAX_BYTES,
    most_members: int = MAX_MEMBERS,
) -> dict[str, int]:
    """Unpack `archive` into the new directory `directory`; everything belongs to root.

    Modes are kept (it lies where no other account comes), links too, and never followed.
    Raises Invalid for members that lead outside, devices, and damaged archives,
    LimitExceeded for what would not fit.
    """
    tree = _Tree(Path(arguments["directory"]), most_bytes, most_members)
    try:
        with tarfile.open(arguments["archive"], "r:*", tarinfo=BoundedMember) as archive:
            for member in members(archive):
                tree.add(archive, member)
    except UNREADABLE:
        # The tarfile module reads numbers, and headers of headers, as they come.
        raise Invalid("the archive received is damaged: a header makes no sense") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LimitExceeded(f"cannot unpack the archive: {error.strerror}") from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Invalid(f"the archive received is damaged: {reason}") from None
    return {"members": tree.members, "bytes": tree.size}


class _Tree:
    def __init__(self, root: Path, most_bytes: int, most_members: int) -> None:
        root.mkdir(mode=0o700)
        self._root = os.fspath(root)
        self._limit = min(most_bytes, room(root))
        self._most_members = most_members
        self.members = 0
        self.size = 0

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Create one member."""
        self.members += 1
        self.size += max(0, member.size) if member.isreg() else 0
        if self.members > self._most_members or self.size > self._limit:
            raise LimitExceeded(
                f"the archive is too large: above {self._limit >> 20} MiB or"
                f" {self._most_members} files"
            )
        path = self._path(member.name)
        if path == self._root:
            if not member.isdir():
                raise Invalid("the archive holds a file in place of its directory")
        elif member.isdir():
            if not _is_directory(path):
                os.mkdir(path)
            os.chmod(path, member.mode & 0o7777)
        else:
            if os.path.lexists(path):
                os.unlink(path)
            self._make(path, archive, member)

    def _make(self, path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.isreg():
            source = archive.extractfile(member)
            assert source is not None
            with open(path, "xb") as target:
                shutil.copyfileobj(source, target, BLOCK)
            os.chmod(path, member.mode & 0o7777)
            os.utime(path, (member.mtime, member.mtime))
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(self._path(member.linkname), path, follow_symlinks=False)
        else:
            raise Invalid(f"the archive holds a device or another special file: {member.name!r}")

    def _path(self, name: str) -> str:
        """Return where a member goes; Invalid when that leads outside or through a link."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in name or name.startswith("/"):
            raise Invalid(f"the archive holds a forbidden path: {name[:200]!r}")
        path = self._root
        for part in parts[:-1]:
            path = os.path.join(path, part)
            if not os.path.lexists(path):
                os.mkdir(path)
            elif not _is_directory(path):
                raise Invalid(f"the archive goes through a link or a file: {name[:200]!r}")
        return os.path.join(path, *parts[-1:])


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def remove(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Remove the directory `directory`, whatever it holds."""
    remove_tree(Path(arguments["directory"]))
    return {}
