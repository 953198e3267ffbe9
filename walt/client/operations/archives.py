"""Tar archives made of local files, and unpacked without trusting what they hold.

An archive holds either one file, or the content of one directory (members
start with `./`), as the scripts of the server make and expect them.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import tempfile

from walt.client.errors import Failure
from walt.common.archives import UNREADABLE, BoundedMember, members
from walt.common.errors import Invalid, in_words
from walt.common.transfers import DIRECTORY, FILE, MISSING, OTHER

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from walt.common.ignored import Ignored
    from walt.common.transfers import Place

    Warn = Callable[[str], None]

BLOCK = 1 << 18
KERNEL_FILES = ("/proc/", "/sys/")
MOST_OF_KERNEL = 64 << 20  # bytes of one of its files
_SPECIAL = {
    stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(path: str) -> str:
    """Return what a local path is (walt.common.transfers); links are followed."""
    if os.path.isdir(path):
        return DIRECTORY
    if os.path.isfile(path):
        return FILE
    return OTHER if os.path.exists(path) else MISSING


def pack(
    source: str, name: str | None, stream: Any, warn: Warn, left_out: Ignored | None = None
) -> None:
    """Write the archive of a local file, or of the content of a local directory.

    `left_out` are paths below a directory that is to be built, which are not sent; special
    files neither, then. A source that is a symbolic link is followed; links inside a directory
    are kept. A directory itself is a member but when it is merged (`name` None). Everything
    belongs to root. Raises Failure for what cannot be read.
    """
    source = os.path.realpath(source)
    try:
        # Not every tar of nodes reads the extended headers of POSIX.
        with tarfile.open(
            fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK
        ) as archive:
            if not os.path.isdir(source):
                _pack_file(source, f"./{name}", archive)
                return
            if name is not None:
                archive.add(source, ".", recursive=False, filter=_to_root)
            _pack_content(source, ".", archive, warn, left_out)
    except (OSError, tarfile.TarError) as error:
        raise Failure(f"cannot send {source}: {in_words(error)}") from None


def _pack_file(source: str, name: str, archive: tarfile.TarFile) -> None:
    """Add one file. The kernel tells no size, or a wrong one, of what it writes when it is read."""
    if not os.path.realpath(source).startswith(KERNEL_FILES):
        archive.add(source, name, filter=_to_root)
        return
    with open(source, "rb") as file:
        content = file.read(MOST_OF_KERNEL + 1)
    if len(content) > MOST_OF_KERNEL:
        raise Failure(f"{source} is not a file that can be copied: it goes on and on")
    member = _to_root(archive.gettarinfo(source, name))
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _pack_content(
    directory: str, inside: str, archive: tarfile.TarFile, warn: Warn,
    left_out: Ignored | None = None, above: list[tuple[str, str]] | None = None,
) -> None:
    """Add what a directory holds. `above` are directories that come before the next member.

    They are left out themselves, what they hold may not be.
    """
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    above = [] if above is None else above
    for entry in entries:
        member = f"{inside}/{entry.name}"
        is_directory = entry.is_dir(follow_symlinks=False)
        if left_out is not None and member[2:] in left_out:
            if is_directory and left_out.has_exceptions:
                pending = [*above, (entry.path, member)]
                _pack_content(entry.path, member, archive, warn, left_out, pending)
                if len(pending) <= len(above):
                    above.clear()
            continue
        kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
        if kind == stat.S_IFSOCK or (left_out is not None and kind in _SPECIAL):
            warn(f"{entry.path}: {_SPECIAL[kind]} cannot be copied")
            continue
        for path, name in above:
            archive.add(path, name, recursive=False, filter=_to_root)
        above.clear()
        archive.add(entry.path, member, recursive=False, filter=_to_root)
        if is_directory:
            _pack_content(entry.path, member, archive, warn, left_out)


def _to_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def unpack(stream: Any, kind: str, place: Place, warn: Warn) -> bool:
    """Unpack an archive at a place of ours.

    `kind` is what it should hold: a FILE, or the content of a DIRECTORY.
    Whatever it holds, nothing is written outside the place: links of the archive are not
    followed (those to directories that exist here are, as with `cp -r`), special files are
    left out (`warn` is told). Files appear when
    they are whole. Returns False when nothing came. Raises Failure.
    """
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", bufsize=BLOCK, tarinfo=BoundedMember
        ) as archive:
            if kind == DIRECTORY:
                _Tree(place, warn).extract_all(archive)
                return True
            member = archive.next()
            if member is None:
                return False
            if not member.isreg():
                raise Failure("the archive received holds something other than a file")
            _write(_through(place.path), archive, member)
            return True
    except tarfile.ReadError as error:
        if "empty" in str(error):
            return False
        raise Failure(f"the archive received is damaged: {error}") from None
    except (Invalid, *UNREADABLE) as error:
        raise Failure(f"the archive received makes no sense: {error}") from None
    except (OSError, tarfile.TarError) as error:
        raise Failure(f"cannot receive {place.path}: {in_words(error)}") from None


class _Tree:
    """The directory that receives the content of another."""

    def __init__(self, place: Place, warn: Warn) -> None:
        self._root = place.path
        self._made = not os.path.isdir(self._root)
        if self._made:
            os.mkdir(self._root, 0o700)
        self._warn = warn
        self._directories: list[tuple[str, tarfile.TarInfo]] = []
        self._links: set[tuple[int, int]] = set()  # device and inode of those made here

    def extract_all(self, archive: tarfile.TarFile) -> None:
        """Create every member; directories get their modes at the end."""
        try:
            for member in members(archive):
                self._extract(archive, member)
        finally:
            for path, member in reversed(self._directories):
                os.chmod(path, member.mode & 0o777)
                os.utime(path, (member.mtime, member.mtime))

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member.name)
        if member.isdir():
            if path != self._root and not self._may_enter(path):
                os.mkdir(path, 0o700)
                self._directories.append((path, member))
            elif path == self._root and self._made:
                self._directories.append((path, member))
        elif path == self._root:
            raise Failure("the archive received holds a file in place of its directory")
        elif member.isreg():
            _write(path if self._is_ours(path) else _through(path), archive, member)
        elif member.issym():
            _make_way(path)
            os.symlink(member.linkname, path)
            made = os.lstat(path)
            self._links.add((made.st_dev, made.st_ino))
        elif member.islnk():
            target = self._path(member.linkname)
            _make_way(path)
            os.link(target, path, follow_symlinks=False)
        else:
            self._warn(f"{member.name}: a special file was left out")

    def _path(self, name: str) -> str:
        """Return where a member goes. Raises Failure when that leads outside."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in name:
            raise Failure(f"the archive received holds a forbidden path: {name!r}")
        path = self._root
        for part in parts[:-1]:
            path = os.path.join(path, part)
            if not self._may_enter(path):
                raise Failure(f"the archive received goes through a link or a file: {name!r}")
        return os.path.join(path, *parts[-1:])

    def _may_enter(self, path: str) -> bool:
        """Tell whether a path is a directory, or a link to one that was there before."""
        return os.path.isdir(path) and not self._is_ours(path)

    def _is_ours(self, path: str) -> bool:
        """Tell whether a path is a link that this archive made."""
        if not os.path.islink(path):
            return False
        found = os.lstat(path)
        return (found.st_dev, found.st_ino) in self._links


def _through(path: str) -> str:
    """Return where a file goes: a link to a file stays, as with `cp`."""
    return os.path.realpath(path) if os.path.islink(path) and os.path.isfile(path) else path


def _write(path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise Failure(f"{path} is a directory: a file cannot replace it")
    source = archive.extractfile(member)
    assert source is not None
    descriptor, temporary = tempfile.mkstemp(prefix=".walt-", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
        os.chmod(temporary, member.mode & 0o777)
        os.utime(temporary, (member.mtime, member.mtime))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _make_way(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
