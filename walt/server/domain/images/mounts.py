"""Which images are mounted: merged updates, and a grace time (spec server §4.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.common.errors import WaltError
from walt.server.domain.images.ports import IImageMounter
from walt.server.domain.images.service import ImageService

_log = Logger()

# The running OS may still need files of its old image to execute its reboot hook.
GRACE = 60.0
CHECK_AFTER_GRACE = 10.0

Export = Callable[[Mapping[str, str], Mapping[str, Path]], Awaitable[None]]


class MountManager:
    """Keeps mounted the images that nodes boot; its caller never overlaps two updates.

    `again` is called when an update is due because a grace time is over.
    """

    def __init__(
        self, mounter: IImageMounter, images: ImageService, clock: IReactorTime
    ) -> None:
        self._mounter = mounter
        self._images = images
        self._clock = clock
        self._mounted: set[str] = set()
        self._deadlines: dict[str, float] = {}
        self._timer: Any = None
        self.again: Callable[[], Any] = lambda: None
        self._stopping = False

    async def take_over(self) -> None:
        """Learn what a previous server left mounted: it is used again, or unmounted."""
        self._mounted = set(await self._mounter.mounted())

    async def update_mounts(self, wanted: Collection[str], export: Export) -> None:
        """Mount the images with these full names, export, then unmount the others.

        `export` gets the id of each mounted full name and the tree of each id;
        it is awaited before anything is unmounted. An image that cannot be
        mounted is logged; the others are served.
        """
        if self._stopping:
            return
        ids = self._wanted_ids(wanted)
        missing = set(ids.values()) - self._mounted
        if missing:
            await gatherResults(
                [Deferred.fromCoroutine(self._mount(one)) for one in sorted(missing)],
            )
        expired = self._expired(set(ids.values()))
        kept = self._mounted - expired
        await export(
            {name: one for name, one in ids.items() if one in kept},
            {one: self._mounter.path(one) for one in kept},
        )
        for one in sorted(expired):
            await self._unmount(one)
        self._plan()

    def _wanted_ids(self, wanted: Collection[str]) -> dict[str, str]:
        ids = {}
        for name in wanted:
            if self._images.has(name):
                ids[name] = self._images.get(name).image_id
            else:
                _log.warn("nodes boot {name}, which is not in the store", name=name)
        return ids

    def _expired(self, wanted: set[str]) -> set[str]:
        now = self._clock.seconds()
        for one in wanted & self._deadlines.keys():
            del self._deadlines[one]
        for one in self._mounted - wanted - self._deadlines.keys():
            self._deadlines[one] = now + GRACE
        return {one for one, deadline in self._deadlines.items() if deadline <= now}

    async def _mount(self, image_id: str) -> None:
        image = next(one for one in self._images.all() if one.image_id == image_id)
        try:
            await self._mounter.mount(image)
        except WaltError as error:
            _log.error(
                "cannot mount {image}: {error}; its nodes cannot boot",
                image=image.fullname, error=error,
            )
        else:
            self._mounted.add(image_id)

    async def _unmount(self, image_id: str) -> None:
        try:
            await self._mounter.unmount(image_id)
        except WaltError as error:
            _log.warn("image {id} stays mounted: {error}", id=image_id[:12], error=error)
            self._deadlines[image_id] = self._clock.seconds() + GRACE
        else:
            self._mounted.discard(image_id)
            self._deadlines.pop(image_id, None)

    def _plan(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._deadlines and not self._stopping:
            due = min(self._deadlines.values()) + CHECK_AFTER_GRACE
            self._timer = self._clock.callLater(
                max(0.0, due - self._clock.seconds()), self.again
            )

    async def unmount_all(self) -> None:
        """Unmount everything: the platform stops for good."""
        self.stop()
        for one in sorted(self._mounted):
            await self._unmount(one)

    def stop(self) -> None:
        """Plan nothing more."""
        self._stopping = True
        self._plan()
