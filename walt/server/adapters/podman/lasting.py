"""What a power failure would take from a podman storage: waiting for the disk, and mending.

podman waits for the disk for its lists of names alone (containers/storage, AtomicFileWriter).
The files of new layers, and the place of a renamed file in its directory, follow up to half a
minute later.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from walt.common.files import write_durable
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.process import ProcessRunner

PATIENCE = 3600.0  # seconds: a large image on a slow disk
LINKS = "l"  # directory of short names of layers
LINK = "link"  # file of a layer with its short name
TREE = "diff"  # directory of a layer with its files
_SHORT = re.compile(r"[A-Z2-7]{26}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


async def settle(runner: ProcessRunner, storage: Storage) -> None:
    """Return once the disk has all of a storage. Raises CommandFailed (the disk failed).

    sync(1) waits in our place.
    """
    await runner.run(
        ["sync", "--file-system", "--", str(storage.graph_root)], timeout=PATIENCE
    )


def mend_layers(overlay: Path) -> list[str]:
    """Give short names to the layers of a directory `overlay` that lost them; return their ids.

    A layer that was being made when the power failed may have an empty file of its short name.
    Removing such a one, podman removes the directory of all short names, by which images are
    mounted (4.3.1, drivers/overlay). To be done before podman is asked for anything; blocking.
    """
    links = overlay / LINKS
    try:
        layers = sorted(one.name for one in overlay.iterdir() if (one / TREE).is_dir())
    except FileNotFoundError:
        return []
    links.mkdir(mode=0o700, exist_ok=True)
    names = _names_of_targets(links)
    mended = []
    for layer in layers:
        short = _read(overlay / layer / LINK)
        target = f"../{layer}/{TREE}"
        if _SHORT.fullmatch(short) and (links / short).is_symlink():
            continue
        if not _SHORT.fullmatch(short):
            # Layers above it may know it by the name that it had.
            short = names.get(target) or "".join(secrets.choice(_LETTERS) for _ in range(26))
            write_durable(overlay / layer / LINK, short)
        if not (links / short).is_symlink():
            os.symlink(target, links / short)
        mended.append(layer)
    return mended


def _names_of_targets(links: Path) -> dict[str, str]:
    found = {}
    for one in links.iterdir():
        try:
            found[os.readlink(one)] = one.name
        except OSError:
            continue  # no link
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
