"""Copies of databases: whether there is room for them, and the names that they get."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from walt.common.errors import Unavailable


def refuse_without_room(
    needs: Mapping[Path, int], leaving: Mapping[Path, int] | None = None
) -> None:
    """Raise Unavailable unless each file system has the bytes that its directories need.

    The directories may not be there yet. `leaving`: bytes that are given back there first.
    """
    wanted: dict[int, int] = {}
    places: dict[int, list[Path]] = {}
    for place, size in (*needs.items(), *((path, -size) for path, size in (leaving or {}).items())):
        there = _existing(place)
        device = there.stat().st_dev
        wanted[device] = wanted.get(device, 0) + size
        if place not in places.setdefault(device, []):
            places[device].append(place)
    for device, size in wanted.items():
        free = shutil.disk_usage(_existing(places[device][0])).free
        if free < size:
            raise Unavailable(
                f"{' and '.join(map(str, places[device]))}: the disk has {free >> 20} MiB left,"
                f" and a copy of the database may take {(size >> 20) + 1} MiB there"
            )


def _existing(place: Path) -> Path:
    return next(parent for parent in (place, *place.parents) if parent.exists())


def settle(unfinished: Path, name: Path) -> Path:
    """Give a file its name when it is on the disk; return the name.

    A copy that was made before keeps its name: this one gets a number then.
    """
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    place, number = name, 1
    while place.exists():
        number += 1
        place = name.with_name(f"{name.stem}.{number}{name.suffix}")
    unfinished.rename(place)
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return place
