"""The file system of images: podman's storage, the mounts of images, the links of nodes.

Blocking code for workers and tools. It lies in a file of the state directory, whose space
is taken from the disk in advance, and grows with what it holds; or it is a partition that
the site has mounted in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from walt.common.errors import Busy, CommandFailed
from walt.common.files import remove_tree
from walt.common.mounts import is_mounted, mounted_below
from walt.server.adapters.volumes import loop

Say = Callable[[str], None]

MIB = 1 << 20
FIRST = 4096 * MIB  # bytes of a new one
SMALLEST = 320 * MIB  # which mkfs.xfs takes
MARGIN = 2048 * MIB  # free bytes below which it grows
STEP = 4096 * MIB
SMALLEST_STEP = 64 * MIB
# Of the disk, for the database and /persist of nodes: a twentieth, within these bounds.
LEAST_RESERVE, MOST_RESERVE = 320 * MIB, 1024 * MIB
OPTIONS = "nosuid,nodev,noatime"


def top(state: Path) -> Path:
    """Return where it is mounted, for a state directory."""
    return state / "volumes" / "images"


def _file(state: Path) -> Path:
    return state / "volumes" / "images.xfs"


def places(state: Path, *, storage: bool) -> list[Path]:
    """Return the directories of the state directory that it stands for.

    `storage`: podman's storage is the server's own.
    """
    return [state / "containers", state / "images"] if storage else [state / "images"]


def open_images(state: Path, say: Say, *, storage: bool, first: int = FIRST) -> bool:
    """Mount it, made before of up to `first` bytes if need be; False if it was mounted already.

    Images that an older server kept elsewhere in the state directory are moved into it; a
    move that was interrupted is begun again. Raises CommandFailed: nothing is lost then.
    """
    wanted = places(state, storage=storage)
    if is_mounted(top(state)) and all(map(is_mounted, wanted)):
        return False
    top(state).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_mounted(top(state)):
        file = _file(state)
        if not file.exists():
            loop.make(file, _first_size(state, first, storage=storage), loop.SOLID)
        loop.mount(file, top(state), loop.SOLID, OPTIONS)
    for place in wanted:
        # What was prepared in images is made anew at their next mount.
        _put(place, top(state) / place.name, say, keep=place.name == "containers")
    (top(state) / "links").mkdir(exist_ok=True)
    return True


def _first_size(state: Path, first: int, *, storage: bool) -> int:
    used = _used(state / "containers") if storage else 0
    free = _room(state)
    if used == 0:
        wanted = min(first, max(free // 2, SMALLEST))
    else:
        wanted = used + used // 4 + MARGIN
        if wanted > free:
            wanted = SMALLEST + used + used // 8
    if wanted > free:
        raise CommandFailed(
            f"images need a file system of their own, of {wanted // MIB} MiB in {state}, where"
            f" {max(free, 0) // MIB} MiB are free for it: free some space, or mount a partition"
            f" at {top(state)}"
        )
    return wanted


def _used(directory: Path) -> int:
    """Return the bytes on the disk of what is in a directory."""
    if not directory.is_dir():
        return 0
    return int(loop.run(
        ["du", "--summarize", "--one-file-system", "--block-size=1", "--", str(directory)]
    ).split()[0])


def _room(state: Path) -> int:
    """Return the bytes of the disk that images may take beyond what they have."""
    disk = os.statvfs(state)
    twentieth = disk.f_blocks * disk.f_frsize // 20
    reserve = max(LEAST_RESERVE, min(MOST_RESERVE, twentieth))
    return disk.f_bavail * disk.f_frsize - reserve


def _put(place: Path, target: Path, say: Say, *, keep: bool) -> None:
    """Mount `target`, a directory of the volume, at `place`; what was there moves.

    A directory beside `target` is complete as soon as `place` has been put aside.
    """
    if is_mounted(place):
        return
    new = target.with_name(f".{target.name}.new")
    aside = place.with_name(f".{place.name}.moved")
    for point in mounted_below(place):
        loop.run(["umount", "--lazy", "--", str(point)])
    if not target.exists():
        if not aside.exists():
            remove_tree(new)
            new.mkdir()
            if place.is_dir():
                if keep and any(place.iterdir()):
                    say(f"moving {place} to a file system of its own")
                    loop.run(["cp", "--archive", "--one-file-system", "--", f"{place}/.",
                              str(new)])
                    loop.run(["sync", "--file-system", str(new)])
                os.rename(place, aside)
        os.rename(new, target)
    remove_tree(aside)
    if place.is_dir() and any(place.iterdir()):
        found = _unused(place)
        os.rename(place, found)
        say(f"what was written to {place} while nothing was mounted there is now {found}")
    place.mkdir(exist_ok=True)
    loop.run(["mount", "--bind", "--", str(target), str(place)])


def _unused(place: Path) -> Path:
    number = 1
    while (found := place.with_name(f"{place.name}.found-{number}")).exists():
        number += 1
    return found


def close_images(state: Path) -> list[str]:
    """Unmount it, with all that is mounted in its places.

    What is still in use is detached, and goes when its last user ends; return what it was.
    """
    busy = []
    for place in (state / "containers", state / "images", top(state)):
        for point in mounted_below(place):
            try:
                loop.unmount(point)
            except Busy as error:
                busy.append(str(error))
                loop.run(["umount", "--lazy", "--", str(point)])
    return busy


def short_of_space(state: Path) -> bool:
    """Tell whether it should grow. Blocks no longer than statvfs(2)."""
    space = os.statvfs(top(state))
    return space.f_bavail * space.f_frsize < MARGIN


def grow_images(state: Path) -> bool:
    """Make it larger, within what the disk has; False when that is not possible."""
    file = _file(state)
    if not file.exists() or not is_mounted(top(state)):
        return False
    more = min(STEP, _room(state))
    if more < SMALLEST_STEP:
        return False
    loop.grow(file, top(state), more // MIB * MIB)
    return True
