"""Mounting images, through jobs in worker children."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from walt.server.adapters.podman.options import Storage
from walt.server.domain.images.interfaces import IImageMounter, IImageStore
from walt.server.domain.images.model import StoredImage
from walt.server.runtime.workers import WorkerPool

_log = Logger()


class PlatformFacts(Protocol):
    """What the mounter must know of the platform when it mounts."""

    def template_values(self) -> Mapping[str, str]:
        """Return the values of the templates that are the same for all images."""

    def authorized_key(self) -> str:
        """Return the server's public ssh key."""


@implementer(IImageMounter)
class OverlayMounter:
    """Mount images below `images` (one directory an id) by jobs of `workers`.

    `keys` holds the nodes' host keys, `server_spec` is the server's spec file.
    Different images may be mounted at the same time; podman's tag keeps them meanwhile.
    """

    def __init__(
        self, workers: WorkerPool, store: IImageStore, storage: Storage, *, images: Path,
        keys: Path, facts: PlatformFacts, server_spec: Path,
    ) -> None:
        self._workers = workers
        self._store = store
        self._storage = storage
        self._images = images
        self._keys = keys
        self._facts = facts
        self._server_spec = server_spec
        self._locks: defaultdict[str, DeferredLock] = defaultdict(DeferredLock)

    def path(self, image_id: str) -> Path:
        """Return where the tree of an image is mounted."""
        return self._images / image_id / "fs"

    async def mount(self, image: StoredImage) -> frozenset[str]:
        """Mount and prepare an image; see IImageMounter."""
        async with self._locks[image.image_id]:
            await self._store.keep(image.image_id)
            result = await self._workers.call(
                "image_tree:mount",
                {
                    "storage": str(self._storage.graph_root / "overlay"),
                    "layers": list(image.layers),
                    "place": str(self._images / image.image_id),
                    "values": {
                        **self._facts.template_values(),
                        "walt_image_id": image.image_id,
                        "walt_image_size_kib": str(image.size_kib),
                    },
                    "keys": str(self._keys),
                    "authorized_key": self._facts.authorized_key(),
                    "server_spec": str(self._server_spec),
                },
                on_progress=lambda text: _log.info("{image}: {text}", image=image.fullname,
                                                   text=text),
            )
        for warning in result["warnings"]:
            _log.warn(
                "preparing {image}: {warning}; nodes may have problems booting it",
                image=image.fullname, warning=warning,
            )
        return frozenset(result["models"])

    async def unmount(self, image_id: str) -> None:
        """Unmount an image and let podman forget it if it has no name; see IImageMounter."""
        async with self._locks[image_id]:
            await self._workers.call(
                "image_tree:unmount", {"place": str(self._images / image_id)}
            )
            await self._store.release(image_id)

    async def mounted(self) -> set[str]:
        """Return the ids of the images mounted now."""
        found = await self._workers.call("image_tree:mounted", {"images": str(self._images)})
        return set(found)
