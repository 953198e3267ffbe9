"""Which images are mounted: one update at a time, a grace time before unmounting.

Rules of spec server §4.4: images used by nodes are mounted; one which is no longer
used stays 60 s more, because a node may need its files to reboot; exports change
after mounts and before unmounts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, succeed
from twisted.logger import Logger

from walt.common.errors import WaltError
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.ports import IImageMounter
from walt.server.runtime.ordered import shielded, spawn

_log = Logger()

GRACE = 60.0  # seconds between the last use of an image and its unmounting
PARALLEL = 4  # mounts at the same time
RECHECK = 10.0  # seconds after the earliest deadline

Wanted = Callable[[], Awaitable[Mapping[str, StoredImage]]]
Publish = Callable[[frozenset[str]], Awaitable[None]]


class MountManager:
    """Keep mounted what nodes use.

    `clock` gives seconds and callLater. `wanted` returns the images used by nodes
    and present in the store, by id; `export` rewrites the NFS exports for the ids
    that are mounted; `settled` is called with them when nothing changes any more
    (boot links).
    """

    def __init__(
        self, clock: Any, mounter: IImageMounter, *, wanted: Wanted, export: Publish,
        settled: Publish,
    ) -> None:
        self._clock = clock
        self._mounter = mounter
        self._wanted = wanted
        self._export = export
        self._settled = settled
        self._mounted: set[str] | None = None
        self._deadlines: dict[str, float] = {}
        self._waiting: list[Deferred[None]] = []
        self._running = False
        self._recheck: Any = None
        self._stopping = False
        self._work: Deferred[None] = succeed(None)

    @property
    def mounted(self) -> frozenset[str]:
        """The ids of the images mounted, as far as this manager knows."""
        return frozenset(self._mounted or ())

    def update(self) -> Deferred[None]:
        """Bring mounts and exports in line with the nodes.

        Requests made while an update runs are merged into one that follows it.
        The Deferred fires when an update that began after this call is done, and
        fails as that update did (CommandFailed, Busy…).
        """
        done: Deferred[None] = Deferred()
        if self._stopping:
            done.callback(None)
            return done
        self._waiting.append(done)
        if not self._running:
            self._running = True
            self._work = spawn(self._run(), "mount update")
        return done

    async def _run(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    await self._update()
                except Exception as error:
                    _log.failure("mount update failed, will be tried at the next one")
                    for one in waiting:
                        one.errback(error)
                else:
                    for one in waiting:
                        one.callback(None)
        finally:
            self._running = False
            self._plan_recheck()

    async def _update(self) -> None:
        if self._mounted is None:
            # What a previous server left mounted is taken over (design D20), but
            # prepared again: this server may be newer.
            left = set(await self._mounter.mounted())
            wanted = await self._wanted()
            failures = await self._mount_all([wanted[one] for one in sorted(left & wanted.keys())])
            if failures:
                raise next(iter(failures.values()))
            self._mounted = left
            if left and not self._stopping:
                await self._export(self.mounted)
        while await self._pass():
            pass
        if not self._stopping:
            await self._settled(self.mounted)

    async def _pass(self) -> bool:
        """Mount, export, unmount once; tell whether something changed."""
        if self._stopping:
            return False
        assert self._mounted is not None
        wanted = await self._wanted()
        new = sorted(wanted.keys() - self._mounted)
        old = self._expired(wanted)
        failures = await self._mount_all([wanted[image_id] for image_id in new])
        if self._stopping:
            return False
        self._mounted.update(set(new) - failures.keys())
        if new or old:
            await self._export(frozenset(self._mounted - old))
        for image_id in sorted(old):
            try:
                await self._mounter.unmount(image_id)
            except WaltError as error:
                failures[image_id] = error
                self._deadlines[image_id] = self._clock.seconds() + GRACE
            else:
                self._mounted.discard(image_id)
                self._deadlines.pop(image_id, None)
        if failures:
            raise next(iter(failures.values()))
        return bool(new or old)

    async def _mount_all(self, images: Sequence[StoredImage]) -> dict[str, Exception]:
        """Mount images, some at a time; return the failures by id."""
        turns = DeferredSemaphore(PARALLEL)
        failures: dict[str, Exception] = {}

        async def mount(image: StoredImage) -> None:
            async with turns:
                if self._stopping:
                    return
                try:
                    await self._mounter.mount(image)
                except Exception as error:
                    failures[image.image_id] = error

        await gatherResults([Deferred.fromCoroutine(mount(image)) for image in images])
        return failures

    def _expired(self, wanted: Mapping[str, StoredImage]) -> set[str]:
        """Return what has been unused for the grace time; note what became unused."""
        now, expired = self._clock.seconds(), set[str]()
        for image_id in self.mounted:
            if image_id in wanted:
                self._deadlines.pop(image_id, None)
            elif self._deadlines.setdefault(image_id, now + GRACE) <= now:
                expired.add(image_id)
        return expired

    def _plan_recheck(self) -> None:
        if self._recheck is not None and self._recheck.active():
            self._recheck.cancel()
        self._recheck = None
        if self._deadlines and not self._stopping:
            pause = max(0.0, min(self._deadlines.values()) - self._clock.seconds()) + RECHECK
            self._recheck = self._clock.callLater(pause, self._check_again)

    def _check_again(self) -> None:
        # The failure is logged by the update itself.
        self.update().addErrback(lambda failure: None)

    async def suspend(self) -> None:
        """Change nothing any more: the server stops, mounts and nodes stay as they are.

        What an update was mounting at this moment is waited for.
        """
        self._stopping = True
        if self._recheck is not None and self._recheck.active():
            self._recheck.cancel()
        await shielded(self._work)

    async def unmount_all(self) -> None:
        """Unmount every image: an orderly stop for good, exports being withdrawn before."""
        await self.suspend()
        for image_id in sorted(await self._mounter.mounted()):
            try:
                await self._mounter.unmount(image_id)
            except WaltError as error:
                _log.warn("unmounting {id}: {error}", id=image_id[:12], error=str(error))
        self._mounted = set()
