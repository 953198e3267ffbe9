"""Unpack what changed on a node into the tree of a container: a program of its own.

`python -m walt.server.workers.unpack_tree ROOT` reads a tar archive (pax(1), GNU) on its
standard input. The archive is a stranger's: ROOT becomes the root directory first, no link is
followed, devices and what is mounted there are left out. What is there already changes its
type, owner, mode, times and extended attributes to what the archive says.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import stat
import sys
import tarfile
from collections.abc import Iterator
from decimal import Decimal, DecimalException
from typing import IO

from walt.common.archives import UNREADABLE, BoundedMember, members
from walt.common.errors import Invalid
from walt.common.sshkeys import without_user_keys
from walt.common.strangers import import_nothing_more

# What SCHILY.xattr. of pax headers may set: those of the kernel's own stay the kernel's.
XATTR = "SCHILY.xattr."
ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")
MTIME = re.compile(r"-?[0-9]{1,12}(\.[0-9]{0,20})?")
BLOCK = 1 << 20
KEYS = ["root", ".ssh", "authorized_keys"]  # those of users are for one node
MEMORY = 1 << 30  # bytes: directories are remembered until their end
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """The tree below a directory, whose descriptor it owns."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _FLAGS)
        self._device = os.fstat(self._root).st_dev
        self._directories: list[tuple[list[str], tarfile.TarInfo]] = []
        self.left_out: list[str] = []

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Put one member in place. Raises Invalid, OSError."""
        parts = _parts(member.name)
        if not parts:
            return
        with self._directory(parts[:-1], create=True) as above:
            if above is None or not self._make(archive, member, parts, above):
                self.left_out.append("/" + "/".join(parts))

    def finish(self) -> None:
        """Give directories their modes and times, after all that is in them."""
        for parts, member in reversed(self._directories):
            with self._directory(parts, create=False) as found:
                if found is not None:
                    _adorn(found, None, member)

    @contextlib.contextmanager
    def _directory(self, parts: list[str], *, create: bool) -> Iterator[int | None]:
        """Give the descriptor of a directory, None if it is in another file system."""
        found = os.dup(self._root)
        try:
            for part in parts:
                if create and not _is_directory(found, part):
                    _remove(found, part)
                    os.mkdir(part, 0o755, dir_fd=found)
                try:
                    below = os.open(part, _FLAGS, dir_fd=found)
                except OSError:
                    if create:
                        raise
                    yield None
                    return
                os.close(found)
                found = below
                if os.fstat(found).st_dev != self._device:
                    yield None
                    return
            yield found
        finally:
            os.close(found)

    def _make(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str], above: int
    ) -> bool:
        """Make a member in its directory; tell whether it is of a kind that is made."""
        name = parts[-1]
        if member.isdir():
            if not _is_directory(above, name):
                _remove(above, name)
                os.mkdir(name, 0o700, dir_fd=above)
            if os.stat(name, dir_fd=above, follow_symlinks=False).st_dev != self._device:
                return False
            self._directories.append((parts, member))
            return True
        if member.islnk():
            target = _parts(member.linkname)
            with self._directory(target[:-1], create=False) as there:
                if there is None or not target:
                    raise Invalid(f"a link of the archive leads nowhere: {member.linkname!r}")
                if target != parts:
                    _remove(above, name)
                    os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=above,
                            follow_symlinks=False)
            return True
        if not (member.isreg() or member.issym() or member.isfifo()):
            return False
        _remove(above, name)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=above)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=above)
        elif parts == KEYS and member.size <= BLOCK:
            source = archive.extractfile(member)
            assert source is not None
            self._write(io.BytesIO(without_user_keys(source.read())), name, above)
        else:
            source = archive.extractfile(member)
            assert source is not None
            self._write(source, name, above)
        _adorn(above, name, member)
        return True

    @staticmethod
    def _write(source: IO[bytes], name: str, above: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=above), "wb") as target:
            while data := source.read(BLOCK):
                target.write(data)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Invalid(f"the archive holds a forbidden path: {name[:200]!r}")
    return parts


def _is_directory(above: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove(above: int, name: str) -> None:
    """Remove what has this name, whatever it is."""
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        below = os.open(name, _FLAGS, dir_fd=above)
        try:
            for entry in os.listdir(below):
                _remove(below, entry)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=above)


def _adorn(above: int, name: str | None, member: tarfile.TarInfo) -> None:
    """Set owner, mode, attributes and times of `name`, or of the directory itself."""
    if name is None:
        os.chown(above, member.uid, member.gid)
        os.chmod(above, member.mode & 0o7777)
        _set_attributes(above, member)
        os.utime(above, ns=_times(member))
        return
    os.chown(name, member.uid, member.gid, dir_fd=above, follow_symlinks=False)
    if not member.issym():
        os.chmod(name, member.mode & 0o7777, dir_fd=above)
        if member.isreg():
            found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            try:
                _set_attributes(found, member)
            finally:
                os.close(found)
    os.utime(name, ns=_times(member), dir_fd=above, follow_symlinks=False)


def _set_attributes(descriptor: int, member: tarfile.TarInfo) -> None:
    for key, value in member.pax_headers.items():
        name = key.removeprefix(XATTR)
        if name != key and name.startswith(ATTRIBUTES):
            try:
                os.setxattr(descriptor, name, value.encode("utf-8", "surrogateescape"))
            except OSError as error:
                raise Invalid(
                    f"the attribute {name} of {member.name} cannot be kept: {error.strerror}"
                ) from None


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Return access and modification, in nanoseconds.

    A number of the header is written without exponent (pax(1), "pax Extended Header File Times").
    """
    text = member.pax_headers.get("mtime")
    if text is not None and not MTIME.fullmatch(text):
        raise Invalid(f"the archive holds a time that is none, of {member.name!r}")
    try:
        found = int(Decimal(member.mtime if text is None else text) * 10**9)
    except (DecimalException, ValueError, OverflowError):
        raise Invalid(f"the archive holds a time that is none, of {member.name!r}") from None
    return found, found


def main() -> int:
    """Unpack standard input below the directory that is named."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    import_nothing_more()
    os.chroot(sys.argv[1])
    os.chdir("/")
    os.umask(0)
    tree = Tree("/")
    try:
        with tarfile.open(
            fileobj=sys.stdin.buffer, mode="r|", tarinfo=BoundedMember, encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            for member in members(archive):
                tree.add(archive, member)
        tree.finish()
    except tarfile.ReadError as error:
        if "empty" not in str(error):
            print(f"the archive received is damaged: {error}", file=sys.stderr)
            return 1
    except (tarfile.TarError, EOFError, *UNREADABLE) as error:
        print(f"the archive received is damaged: {error}", file=sys.stderr)
        return 1
    except Invalid as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print("the archive received needs too much memory", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot unpack {error.filename or 'the archive'}: {error.strerror}",
              file=sys.stderr)
        return 1
    for path in tree.left_out:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
