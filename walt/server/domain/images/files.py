"""Questions about the files of images: one container an image, kept a while.

Spec server §5.9. No task is held on the image: a question disturbs nobody.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.logger import Logger

from walt.common.errors import CommandFailed, Unavailable, WaltError
from walt.server.domain.images.model import ContainerOptions, StoredImage
from walt.server.domain.images.interfaces import IContainers
from walt.server.domain.transfers import checked_remote_path, list_script, parse_list
from walt.server.runtime.keeping import Keeping, Kept
from walt.server.runtime.coroutines import spawn

_log = Logger()

IDLE = 180.0  # seconds without question after which a container ends
MAX_CONTAINERS = 4  # kept without question, and as many with one
PATIENCE = 60.0  # seconds for an answer, the start of the container included


class ImageFiles:
    """Answers questions about the files of images. `containers` provides IContainers."""

    def __init__(self, containers: IContainers, clock: IReactorTime) -> None:
        self._containers = containers
        self._clock = clock
        # By the id of an image: the name of its container.
        self._kept = Keeping[str](clock, IDLE, MAX_CONTAINERS, self._end)
        self._turns = DeferredSemaphore(MAX_CONTAINERS)
        self._stopped = False

    async def entries(self, image: StoredImage, directory: str, prefix: str) -> list[str]:
        """Return what a directory of an image holds under names that begin with `prefix`.

        Names of directories end with a slash. Raises Invalid, CommandFailed or Unavailable
        (too slow, or the server stops).
        """
        script = list_script(checked_remote_path(directory), prefix)
        kept = self._kept.used(image.image_id)
        asking = Deferred.fromCoroutine(self._ask(kept, image, script))
        try:
            return parse_list(await asking.addTimeout(PATIENCE, self._clock))
        except TimeoutError:
            raise Unavailable(f"the image did not answer within {PATIENCE:g} s") from None

    async def _ask(self, kept: Kept[str], image: StoredImage, script: str) -> bytes:
        async with kept.queue, self._turns:
            if self._stopped:
                raise Unavailable("the server is stopping")
            kept.stay()
            try:
                if kept.held is None:
                    kept.held = await self._containers.start(image, ContainerOptions())
                return await self._containers.run(kept.held, script)
            except CommandFailed:
                await self._remove(kept)  # somebody else may have removed it: start again then
                raise
            finally:
                self._kept.leave(kept)

    def _end(self, kept: Kept[str]) -> None:
        kept.stay()
        spawn(self._end_in_turn(kept), "removing the container of questions about an image")

    async def _end_in_turn(self, kept: Kept[str]) -> None:
        async with kept.queue:
            kept.stay()
            await self._remove(kept)
            if not kept.queue.waiting:
                self._kept.forget(kept)

    async def _remove(self, kept: Kept[str]) -> None:
        container, kept.held = kept.held, None
        if container is None:
            return
        try:
            await self._containers.remove(container)
        except WaltError as error:
            _log.warn("removing container {name}: {error}", name=container, error=str(error))

    async def stop(self) -> None:
        """Remove every container: the server stops."""
        self._stopped = True
        for kept in self._kept.all():
            await self._end_in_turn(kept)
