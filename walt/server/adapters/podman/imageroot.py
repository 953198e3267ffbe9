"""Files inside an image's tree, edited as root without ever leaving the tree.

A link of an image may name anything (`/etc/resolv.conf` -> `/run/…`). Here every path
is walked component by component with openat(2) and O_NOFOLLOW, links being resolved
as the image itself would: absolute ones from the image's root, `..` never above it.
Files are replaced by new ones (write beside, rename), never opened for writing: a
device or a link of the image is thus never written through. Blocking code for workers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from types import TracebackType

from walt.server.adapters.podman.walk import walk

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_LINKS = 40  # as path_resolution(7)
MAX_READ = 4 * 1024 * 1024


class ImageRoot:
    """The tree whose root directory is `path`; a context manager.

    Paths of its methods are absolute inside the image. They raise OSError
    (FileNotFoundError, NotADirectoryError, ELOOP…) as the os module does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = os.open(path, _DIRECTORY)

    def __enter__(self) -> ImageRoot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._root)

    @contextmanager
    def directory(self, path: str, *, create: bool = False) -> Iterator[int]:
        """Give a descriptor of a directory, following links inside the image.

        With `create`, missing directories are made (mode 755). It cannot be
        listed (O_PATH); use it as `dir_fd`.
        """
        stack, _ = self._walk(path, create)
        try:
            yield stack[-1]
        finally:
            self._close(stack)

    def real(self, path: str) -> str:
        """Return `path` with every link resolved inside the image; it must exist."""
        for _ in range(MAX_LINKS):
            parent, name = os.path.split(path)
            directory = name in ("", ".", "..")
            stack, names = self._walk(path if directory else parent, False)
            try:
                here = "/" + "/".join(names)
                if directory:
                    return here
                target = _link_target(name, stack[-1])
                if target is None:
                    os.stat(name, dir_fd=stack[-1], follow_symlinks=False)
                    return os.path.join(here, name)
            finally:
                self._close(stack)
            path = os.path.join(here, target)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _close(self, stack: list[int]) -> None:
        for descriptor in stack[1:]:
            os.close(descriptor)

    def _walk(self, path: str, create: bool) -> tuple[list[int], list[str]]:
        """Return descriptors of the directories down to `path`, and their real names."""
        stack, names = [self._root], list[str]()
        pending, links = deque(PurePosixPath(path).parts), 0
        try:
            while pending:
                part = pending.popleft()
                if part == "/":
                    self._close(stack)
                    del stack[1:], names[:]
                elif part == "..":
                    if len(stack) > 1:
                        os.close(stack.pop())
                        names.pop()
                else:
                    target = _link_target(part, stack[-1])
                    if target is not None:
                        links += 1
                        if links > MAX_LINKS:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                        pending.extendleft(reversed(PurePosixPath(target).parts))
                        continue
                    if create:
                        try:
                            os.mkdir(part, 0o755, dir_fd=stack[-1])
                        except FileExistsError:
                            pass
                    stack.append(os.open(part, _DIRECTORY, dir_fd=stack[-1]))
                    names.append(part)
        except BaseException:
            self._close(stack)
            raise
        return stack, names

    def kind(self, path: str) -> str | None:
        """Return `file`, `directory`, `link`, `other`, or None when nothing is there."""
        parent, name = _split(path)
        try:
            with self.directory(parent) as fd:
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(mode):
            return "file"
        if stat.S_ISDIR(mode):
            return "directory"
        return "link" if stat.S_ISLNK(mode) else "other"

    def exists(self, path: str) -> bool:
        """Tell whether a path leads to something, links resolved inside the image."""
        try:
            self.real(path)
        except OSError:
            return False
        return True

    def read_link(self, path: str) -> str | None:
        """Return the target of a link, None for anything else."""
        parent, name = _split(path)
        try:
            with self.directory(parent) as fd:
                return _link_target(name, fd)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: str) -> bytes:
        """Return the content of a regular file of at most 4 MiB; its last link is not followed."""
        parent, name = _split(path)
        with self.directory(parent) as fd:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(name, flags, dir_fd=fd), "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file", path)
                data = stream.read(MAX_READ + 1)
        if len(data) > MAX_READ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data

    def mode(self, path: str) -> int:
        """Return the permission bits of what is there; its last link is not followed."""
        parent, name = _split(path)
        with self.directory(parent) as fd:
            return stat.S_IMODE(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)

    def write(self, path: str, data: bytes, mode: int = 0o644) -> bool:
        """Make `path` a regular file with this content, unless it is one already.

        What was there (a link, an older file) is replaced; a directory is an
        error (IsADirectoryError). Returns whether anything changed.
        """
        parent, name = _split(path)
        if self.kind(path) == "file" and self.mode(path) == mode:
            try:
                if self.read(path) == data:
                    return False
            except OSError:
                pass
        beside = f".{name}.walt-new"
        with self.directory(parent, create=True) as fd:
            try:
                os.unlink(beside, dir_fd=fd)
            except FileNotFoundError:
                pass
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(beside, flags, 0o600, dir_fd=fd), "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), mode)
            os.rename(beside, name, src_dir_fd=fd, dst_dir_fd=fd)
        return True

    def link(self, path: str, target: str) -> None:
        """Make `path` a link to `target`, replacing a file or a link."""
        parent, name = _split(path)
        beside = f".{name}.walt-new"
        with self.directory(parent, create=True) as fd:
            try:
                os.unlink(beside, dir_fd=fd)
            except FileNotFoundError:
                pass
            os.symlink(target, beside, dir_fd=fd)
            os.rename(beside, name, src_dir_fd=fd, dst_dir_fd=fd)

    def remove(self, path: str) -> None:
        """Remove a file or a link; nothing happens when it is not there."""
        parent, name = _split(path)
        try:
            with self.directory(parent) as fd:
                os.unlink(name, dir_fd=fd)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def rename(self, path: str, name: str) -> None:
        """Give what is at `path` another name in the same directory."""
        parent, old = _split(path)
        with self.directory(parent) as fd:
            os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)

    def links_below(self, path: str) -> list[str]:
        """Return the paths of all links below a directory, none followed."""
        if path != "/" and self.kind(path) != "directory":
            return []
        found = []
        with self.directory(path) as fd:
            for where, here, names in walk(fd):
                found += [
                    os.path.normpath(os.path.join(path, where, name)) for name in names
                    if _link_target(name, here) is not None
                ]
        return found


def _link_target(name: str, fd: int) -> str | None:
    """Return the target of a link, None when `name` is missing or something else."""
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _split(path: str) -> tuple[str, str]:
    """Return the parent and the last name of an absolute path; ValueError if it has none."""
    parent, name = os.path.split(path)
    if not path.startswith("/") or name in ("", ".", ".."):
        raise ValueError(f"not the path of a file inside an image: {path!r}")
    return parent, name
