"""The file systems of images and of persistent data, kept by jobs in worker children."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import WaltError, in_words
from walt.server.adapters.volumes import images
from walt.server.adapters.volumes.loop import LONGEST
from walt.server.domain.network_services.interfaces import IPersistence
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.workers import WorkerPool

_log = Logger()

LOOK_EVERY = 1.0  # seconds between two looks at the space for images
AT_ONCE = 50  # file systems of persistent data in one job
TRY_AGAIN = 60.0  # seconds after which a full disk is asked again


@implementer(IPersistence)
class Volumes:
    """Mounts and unmounts them, below the directories `state` and `nodes`.

    `clock` gives callLater and seconds; `storage` tells whether podman's storage is the
    server's own; `persist_size` is that of persistent data, in bytes.
    """

    def __init__(
        self, clock: IReactorTime, workers: WorkerPool, *, state: Path, nodes: Path, storage: bool,
        persist_size: int,
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._state, self._nodes = state, nodes
        self._storage = storage
        self._persist_size = persist_size
        self._present: frozenset[Path] | None = None  # None: what is mounted is not known
        self._growing = self._given_up = False
        self._next_try = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    @property
    def links(self) -> Path:
        """The directory for the links that nodes follow: nodes may read its file system."""
        return images.top(self._state) / "links"

    @property
    def exported(self) -> Sequence[Path]:
        """Return the directories below which is all else that nodes get: on shared mounts."""
        return [self._state / "images", self._nodes]

    async def open(self) -> None:
        """Mount the file system of images and watch its space. Raises WaltError."""
        await self._workers.call(
            "volumes:open_images", {
                "state": str(self._state), "storage": self._storage,
                "exported": [str(path) for path in self.exported],
            },
            silence=LONGEST,
            on_progress=lambda text: _log.info("file system of images: {text}", text=text),
        )
        if not self._storage:
            _log.warn(
                "images.storage is `system`: by NFS, nodes can read every file of the file system"
                " of /var/lib/containers; it should hold nothing else"
            )
        self._looking.start(LOOK_EVERY)

    async def close(self) -> None:
        """Unmount everything: an orderly stop for good."""
        if self._looking.running:
            self._looking.stop()
        await self.keep_only(())
        busy = await self._workers.call("volumes:close_nodes", {"nodes": str(self._nodes)})
        for reason in (*([busy] if busy else ()), *await self._workers.call(
            "volumes:close_images", {"state": str(self._state)}
        )):
            _log.warn("{reason}: it is unmounted when its last user ends", reason=reason)

    def _look(self) -> None:
        if self._growing or self._clock.seconds() < self._next_try:
            return
        try:
            short = images.short_of_space(self._state)
        except OSError as error:
            _log.warn("space for images: {error}", error=in_words(error))
            short = False
        if short:
            self._growing = True
            spawn(self._grow(), "making room for images")

    async def _grow(self) -> None:
        try:
            grown = await self._workers.call("volumes:grow_images", {"state": str(self._state)})
        except WaltError as error:
            _log.warn("the file system of images does not grow: {error}", error=str(error))
            grown = False
        finally:
            self._growing = False
        self._next_try = self._clock.seconds() + (0.0 if grown else TRY_AGAIN)

    async def made(self) -> Collection[Path]:
        """Return the directories whose file systems exist; see IPersistence."""
        found = await self._workers.call("volumes:made_persistent", {"nodes": str(self._nodes)})
        return {Path(point) for point in found}

    async def ensure(self, points: Collection[Path]) -> Mapping[Path, str]:
        """Mount persistent data; see IPersistence."""
        missing = sorted(set(points) - (self._present or frozenset()))
        if not missing:
            return {}
        failures: dict[Path, str] = {}
        for start in range(0, len(missing), AT_ONCE):
            points = missing[start:start + AT_ONCE]
            if self._given_up:
                failures.update(dict.fromkeys(points, "the server stops"))
                continue
            answer = await self._workers.call(
                "volumes:open_persistent",
                {"points": [str(point) for point in points], "size": self._persist_size},
                silence=LONGEST,
            )
            failures.update({Path(point): reason for point, reason in answer.items()})
        if self._present is not None:
            self._present |= frozenset(missing) - failures.keys()
        return failures

    def give_up(self) -> None:
        """Make no more file systems; see IPersistence."""
        self._given_up = True

    async def keep_only(self, points: Collection[Path]) -> None:
        """Unmount persistent data that is not wanted; see IPersistence."""
        wanted = frozenset(points)
        if self._present is not None and self._present <= wanted:
            return
        busy = await self._workers.call(
            "volumes:close_persistent",
            {"nodes": str(self._nodes), "points": [str(point) for point in wanted]},
        )
        for reason in busy:
            _log.info("{reason}; it will be tried again", reason=reason)
        # What is busy stays unknown: the next call looks again.
        self._present = None if busy else wanted
