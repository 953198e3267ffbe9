"""Images as archives, by skopeo and a worker that reads what strangers send."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

from zope.interface import implementer

from walt.common.room import check_room
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.domain.images.interfaces import IImageArchiver
from walt.server.domain.images.model import StoredImage
from walt.server.domain.requester import IRequester
from walt.server.runtime.workers import WorkerPool

LONG_JOB = 3600.0  # seconds for a worker that reads whole layers without a word


@implementer(IImageArchiver)
class SkopeoArchiver:
    """Archives below `places`, a directory on a disk."""

    def __init__(self, skopeo: Skopeo, workers: WorkerPool, places: Path) -> None:
        self._skopeo = skopeo
        self._workers = workers
        self._places = places

    def open(self) -> Path:
        """Make a directory for one archive."""
        place = self._places / secrets.token_hex(8)
        place.mkdir(parents=True, mode=0o700)
        return place

    async def pack(
        self, place: Path, images: Mapping[str, StoredImage], requester: IRequester
    ) -> list[str]:
        """Copy images into a layout; see IImageArchiver."""
        check_room(place, 1024 * sum(image.size_kib for image in images.values()))
        found = {}
        for number, (image_id, image) in enumerate(images.items()):
            directory = place / str(number)
            await self._skopeo.send(
                [], f"@{image_id}", f"dir:{directory}", f"Reading {image.fullname}", requester
            )
            found[image_id] = (str(directory), image.fullname)
        layout = place / "layout"
        names = await self._workers.call(
            "image_layout:pack", {"layout": str(layout), "images": found}, silence=LONG_JOB
        )
        return [
            "tar", "--create", "--file=-", f"--directory={layout}", "--format=pax",
            "--pax-option=delete=atime,delete=ctime,delete=mtime", "--mtime=@0", "--mode=0644",
            "--owner=0", "--group=0", "--numeric-owner", "--", *names,
        ]

    async def unpack(self, place: Path, archive: Path, images: Collection[str]) -> None:
        """Take an archive apart; see IImageArchiver."""
        await self._workers.call("image_layout:unpack", {
            "archive": str(archive), "directory": str(place), "images": list(images),
        }, silence=LONG_JOB)

    async def fetch(
        self, place: Path, image_id: str, reference: str, requester: IRequester
    ) -> None:
        """Copy an image into the store; see IImageArchiver."""
        blobs = (place / image_id).iterdir()
        check_room(place, sum(blob.stat().st_size for blob in blobs))
        await self._skopeo.fetch(
            [f"dir:{place / image_id}"], reference, f"Loading {image_id[:12]}", requester
        )

    async def close(self, place: Path) -> None:
        """Remove everything."""
        await self._workers.call("build_context:remove", {"directory": str(place)})
