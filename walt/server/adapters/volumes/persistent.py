"""The file system of a node's persistent data, one for each owner: blocking code.

It lies in a file beside the directory where it is mounted: for `nodes/<mac>/persist_dirs/joe`
that is `nodes/<mac>/volumes/joe.ext4`. It takes as much of the disk as it holds, up to its size.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from walt.common.errors import Busy
from walt.common.files import remove_tree
from walt.common.mounts import is_mounted, mount_points
from walt.server.adapters.volumes import loop

MIB = 1 << 20
# What nodes write is nothing that this machine runs, opens as a device, or believes.
OPTIONS = "nosuid,nodev,noexec,noatime,discard"


def file_of(point: Path) -> Path:
    """Return the file of the file system that is mounted at `point`."""
    return point.parent.parent / "volumes" / f"{point.name}.ext4"


def made_persistent(nodes: Path) -> Iterator[Path]:
    """Yield the points of all that exist in the tree of node directories.

    The directory of a node stands for any owner, where older servers left data.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(nodes) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            node = Path(entry.path)
            for name in _names(node / "volumes"):
                if name.endswith(".ext4") and not name.startswith("."):
                    yield node / "persist_dirs" / name.removesuffix(".ext4")
            for name in _names(node / "persist_dirs"):
                if _names(node / "persist_dirs" / name):
                    yield node / "persist_dirs" / name
            if _names(node / "persist_dir") or (
                not (node / "persist").is_symlink() and _names(node / "persist")
            ):
                yield node


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def open_persistent(point: Path, size: int) -> None:
    """Mount the file system of `size` bytes at `point`, made before if need be.

    Data that an older server kept in directories is moved into it; a move that was
    interrupted is begun again. Raises CommandFailed: nothing is lost then.
    """
    if is_mounted(point):
        return
    file = file_of(point)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = _older_data(point)
    if source is not None and (
        not file.exists() or (source != point and _is_empty(file))
    ):
        _fill(file, source, size)
        _remove(source)
    elif source == point:
        _remove(point)  # it was copied by a server that did not come to this
    elif not file.exists():
        loop.make(file, size, loop.SPARSE)
    _widen(file, size)
    point.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    point.parent.chmod(0o700)
    loop.mount(file, point, loop.SPARSE, OPTIONS)


def _older_data(point: Path) -> Path | None:
    """Return the directory of older servers that holds data of this owner."""
    node = point.parent.parent
    for place in (point, node / "persist", node / "persist_dir"):
        if place.is_dir() and not place.is_symlink() and any(place.iterdir()):
            return place
    return None


def _remove(directory: Path) -> None:
    aside = directory.parent / f".moved-{directory.name}"
    remove_tree(aside)
    os.rename(directory, aside)
    remove_tree(aside)


def _is_empty(file: Path) -> bool:
    point = file.with_suffix(".point")
    loop.mount(file, point, loop.SPARSE, OPTIONS)
    try:
        return not any(point.iterdir())
    finally:
        loop.unmount(point)


def _fill(file: Path, source: Path, size: int) -> None:
    """Make the file with what is in a directory; it gets its name when all is there."""
    used = int(loop.run(["du", "--summarize", "--block-size=1", "--", str(source)]).split()[0])
    moving, point = file.with_suffix(".moving"), file.with_suffix(".point")
    loop.unmount(point)
    moving.unlink(missing_ok=True)
    loop.make(moving, max(size, used + used // 4 + 64 * MIB), loop.SPARSE)
    loop.mount(moving, point, loop.SPARSE, OPTIONS)
    try:
        loop.run(["cp", "--archive", "--", f"{source}/.", str(point)])
    finally:
        loop.unmount(point)
    os.rename(moving, file)


def _widen(file: Path, size: int) -> None:
    """Follow a larger size that was configured meanwhile."""
    if file.stat().st_size < size and loop.is_free(file):
        os.truncate(file, size)
        loop.run(["e2fsck", "-f", "-p", str(file)], good=(0, 1))
        loop.run(["resize2fs", str(file)])


def close_persistent(nodes: Path, wanted: Collection[Path]) -> list[str]:
    """Unmount what is mounted in the tree of node directories and not wanted.

    Return why not, where something is busy.
    """
    busy = []
    for mounted in reversed(mount_points()):
        point = Path(mounted)
        if nodes in point.parents and point.parent.name == "persist_dirs" and point not in wanted:
            try:
                loop.unmount(point)
            except Busy as error:
                busy.append(str(error))
    return busy
