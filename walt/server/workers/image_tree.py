"""Jobs on mounted images: mount and prepare, unmount."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from walt.common.mounts import mount_points
from walt.server.adapters.podman import overlay, starts
from walt.server.adapters.podman.imageroot import ImageRoot
from walt.server.adapters.podman.lasting import mend_layers
from walt.server.adapters.podman.prepare import Preparation, prepare

Say = Callable[[str], None]


def mount(arguments: dict[str, Any], progress: Say) -> dict[str, Any]:
    """Mount an image and prepare its tree.

    Arguments: `storage`, `layers`, `place` (see overlay.mount_image), `values`,
    `keys`, `authorized_key`, `server_spec` (see prepare.Preparation). Returns
    `mounted` (false: it was already), `warnings`, and `models`, those of nodes that find
    something to start from. Raises CommandFailed.
    """
    place = Path(arguments["place"])
    mounted = overlay.mount_image(Path(arguments["storage"]), arguments["layers"], place)
    todo = Preparation(
        arguments["values"], Path(arguments["keys"]), arguments["authorized_key"],
        Path(arguments["server_spec"]),
    )
    warnings = prepare(place / "fs", todo, progress)
    with ImageRoot(place / "fs") as root:
        return {"mounted": mounted, "warnings": warnings, "models": starts.models(root)}


def mend(arguments: dict[str, Any], progress: Say) -> list[str]:
    """Mend the layers below `storage`; return the ids of those that needed it."""
    return mend_layers(Path(arguments["storage"]))


def unmount(arguments: dict[str, Any], progress: Say) -> dict[str, Any]:
    """Unmount the image at `place` and remove that directory; raises Busy."""
    overlay.unmount_image(Path(arguments["place"]))
    return {}


def mounted(arguments: dict[str, Any], progress: Say) -> list[str]:
    """Return the names of the image directories below `images` that are mounted."""
    prefix = f"{arguments['images']}/"
    return sorted(
        point[len(prefix):-len("/fs")] for point in mount_points()
        if point.startswith(prefix) and point.endswith("/fs")
    )
