"""Jobs on the file systems of images and of nodes' persistent data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from walt.common.errors import Busy, WaltError, in_words
from walt.server.adapters.volumes import images, loop, persistent
from walt.server.workers.main import Progress

AT_ONCE = 8  # file systems that are made or mounted at the same time


def open_images(arguments: dict[str, Any], progress: Progress) -> None:
    """Mount the one of images below `state`; `storage`: podman's is the server's own.

    What is mounted in the directories `exported` from now on appears in the view of the exporter.
    """
    images.open_images(Path(arguments["state"]), progress, storage=arguments["storage"])
    for directory in arguments["exported"]:
        loop.share(Path(directory))


def grow_images(arguments: dict[str, Any], progress: Progress) -> bool:
    """Make the one of images larger; return whether that was possible."""
    return images.grow_images(Path(arguments["state"]))


def close_images(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Unmount the one of images; return what is still in use."""
    return images.close_images(Path(arguments["state"]))


def close_nodes(arguments: dict[str, Any], progress: Progress) -> str | None:
    """Undo the sharing of the directory `nodes`.

    If something below it is in use it is detached, and goes with its last user; return why.
    """
    try:
        loop.unmount(Path(arguments["nodes"]))
    except Busy as error:
        loop.run(["umount", "--lazy", "--", arguments["nodes"]])
        return str(error)
    return None


def open_persistent(arguments: dict[str, Any], progress: Progress) -> dict[str, str]:
    """Mount those at `points`, of `size` bytes; return why not, by point.

    Each point is told as progress when it is done.
    """

    def reason(point: str) -> str | None:
        try:
            persistent.open_persistent(Path(point), arguments["size"])
        except (WaltError, OSError) as error:
            return in_words(error)
        return None

    # Each one waits for the disk most of its time.
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = {}
        for point, text in zip(
            arguments["points"], threads.map(reason, arguments["points"]), strict=True
        ):
            progress(point)
            if text is not None:
                found[point] = text
        return found


def made_persistent(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Return the points below `nodes` whose file systems exist."""
    return [str(point) for point in persistent.made_persistent(Path(arguments["nodes"]))]


def close_persistent(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Unmount those below `nodes` that are not at `points`; return what is busy."""
    return persistent.close_persistent(
        Path(arguments["nodes"]), {Path(argument) for argument in arguments["points"]}
    )
