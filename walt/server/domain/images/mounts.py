"""Images mounted and unmounted, each with its own failures and retries."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from walt.common.errors import WaltError
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.interfaces import IImageMounter
from walt.server.domain.retries import Retries
from walt.server.runtime.coroutines import shielded, spawn

_log = Logger()

PARALLEL = 4  # mounts at the same time


class ImageMounts:
    """The images that this server has mounted.

    `clock` gives seconds. An image that cannot be mounted, or is held by something when
    it should be unmounted, delays nothing but itself: it is tried again later.
    """

    def __init__(self, clock: IReactorTime, mounter: IImageMounter) -> None:
        self._clock = clock
        self._mounter = mounter
        self._mounted: set[str] = set()
        self._models: dict[str, frozenset[str]] = {}
        self._unmounting: dict[str, Deferred[None]] = {}
        self._broken: Retries[str] = Retries()
        self._busy: Retries[str] = Retries()
        self._stopping = False

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the images mounted, but for those that are being unmounted."""
        return frozenset(self._mounted - self._unmounting.keys())

    @property
    def troubles(self) -> Mapping[str, str]:
        """Why images, by id, cannot be mounted."""
        return self._broken.reasons

    def starts(self, image_id: str, model: str | None) -> bool:
        """Tell whether a mounted image has something for a model to start from, if that is known."""
        models = self._models.get(image_id)
        return models is None or model in models

    def next_retry(self) -> float | None:
        """Return when something that failed should be tried again."""
        return min(
            (due for due in (self._broken.next_due(), self._busy.next_due()) if due is not None),
            default=None,
        )

    async def left_overs(self) -> frozenset[str]:
        """Take over what a former server left mounted (design D20); return its ids."""
        self._mounted = set(await self._mounter.mounted())
        return frozenset(self._mounted)

    async def mount(self, images: Iterable[StoredImage], *, again: bool = False) -> None:
        """Mount images that are not mounted yet, some at a time.

        `again`: those that are mounted are prepared again, since this server may be newer
        than the one that did. Failures are told by `troubles`.
        """
        now = self._clock.seconds()
        turns = DeferredSemaphore(PARALLEL)

        async def mount(image: StoredImage) -> None:
            async with turns:
                if not self._stopping:
                    await self._mount(image)

        await gatherResults([
            Deferred.fromCoroutine(mount(image)) for image in images
            if (again or image.image_id not in self.ids)
            and self._broken.is_due(image.image_id, now)
        ])

    async def _mount(self, image: StoredImage) -> None:
        image_id = image.image_id
        if image_id in self._unmounting:
            await shielded(self._unmounting[image_id])
        try:
            models = await self._mounter.mount(image)
        except WaltError as error:
            if self._broken.failed(image_id, self._clock.seconds(), str(error)):
                _log.error("mounting {image}: {error}", image=image.fullname, error=str(error))
        except Exception:
            # It concerns the nodes of this image alone, whatever it is.
            _log.failure("mounting {image}", image=image.fullname)
            self._broken.failed(image_id, self._clock.seconds(), "unexpected failure")
        else:
            self._mounted.add(image_id)
            self._models[image_id] = models
            self._broken.succeeded(image_id)

    def keep_only(self, image_ids: Collection[str]) -> None:
        """Begin to unmount every other image; nobody waits for it."""
        now = self._clock.seconds()
        for image_id in self._broken.reasons.keys() - set(image_ids):
            self._broken.succeeded(image_id)
        for image_id in self._busy.reasons.keys() & set(image_ids):
            self._busy.succeeded(image_id)
        for image_id in sorted(self.ids - set(image_ids)):
            if self._busy.is_due(image_id, now):
                self._unmounting[image_id] = spawn(
                    self._unmount(image_id), f"unmounting image {image_id[:12]}"
                )
                if self._unmounting[image_id].called:
                    del self._unmounting[image_id]

    async def _unmount(self, image_id: str) -> None:
        try:
            await self._mounter.unmount(image_id)
        except WaltError as error:
            if self._busy.failed(image_id, self._clock.seconds(), str(error)):
                _log.warn(
                    "image {id} is not used any more, but {error}; trying again later",
                    id=image_id[:12], error=str(error),
                )
        else:
            self._mounted.discard(image_id)
            self._models.pop(image_id, None)
            self._busy.succeeded(image_id)
        finally:
            self._unmounting.pop(image_id, None)

    async def stop(self) -> None:
        """Mount nothing any more; returns when no unmounting is under way."""
        self._stopping = True
        for unmounting in list(self._unmounting.values()):
            await shielded(unmounting)

    async def unmount_all(self) -> None:
        """Unmount every image: an orderly stop for good, exports being withdrawn before."""
        await self.stop()
        for image_id in sorted(await self._mounter.mounted()):
            try:
                await self._mounter.unmount(image_id)
            except WaltError as error:
                _log.warn("unmounting {id}: {error}", id=image_id[:12], error=str(error))
        self._mounted = set()
