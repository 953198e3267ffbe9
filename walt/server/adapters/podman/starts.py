"""Which models of nodes find something to start from in the tree of an image."""

from __future__ import annotations

import os

from walt.server.adapters.podman.imageroot import ImageRoot

BOOT = "/boot"
SCRIPT = "start.ipxe"
# These ask for the script alone (spec node-protocols §2.4); boards have files of many names.
SCRIPTED = ("pc-", "qemu-arm-")
MAX_NAMES = 1000  # of a directory that an image may have filled


def models(root: ImageRoot) -> list[str]:
    """Return the models, sorted, whose directory below /boot has what they ask for first."""
    try:
        place = root.real(BOOT)
        with root.directory(place) as fd, os.scandir(f"/proc/self/fd/{fd}") as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(MAX_NAMES), strict=False))
    except OSError:
        return []
    return [name for name in names if _starts(root, name)]


def _starts(root: ImageRoot, model: str) -> bool:
    where = f"{BOOT}/{model}"
    if model.startswith(SCRIPTED):
        return root.exists(f"{where}/{SCRIPT}")
    return root.exists(f"{where}/.")
