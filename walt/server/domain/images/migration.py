"""Images of older versions of WalT, which kept them in a docker daemon (spec server §5.2)."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from walt.common.errors import NotFound, WaltError
from walt.server.domain.images.changes import ImageChanges
from walt.server.domain.images.links import DAEMON
from walt.server.domain.images.places import Places
from walt.server.domain.images.ports import IRegistry
from walt.server.domain.requester import NobodyWaits

_log = Logger()


class Migration:
    """Copies images that the platform knows by name from the docker daemon, if there is one."""

    def __init__(self, changes: ImageChanges, places: Places) -> None:
        self._changes = changes
        self._places = places

    @property
    def possible(self) -> bool:
        """Whether there is a docker daemon here."""
        return DAEMON in self._places.locations

    async def run(self, missing: Iterable[str]) -> None:
        """Copy the images named `missing`, one after the other; then forget what is not there.

        The nodes that boot one of them follow when it has come.
        """
        daemon: IRegistry = self._places.get(DAEMON)
        forget = True
        for fullname in missing:
            try:
                await self._copy(daemon, fullname)
            except NotFound:
                continue
            except WaltError as error:
                forget = False
                _log.warn(
                    "image {name} could not be copied from the docker daemon, this will be tried"
                    " at the next start: {error}", name=fullname, error=str(error),
                )
        await self._changes.images.refresh(forget=forget)

    async def _copy(self, daemon: IRegistry, fullname: str) -> None:
        await daemon.inspect(fullname, None)
        _log.info("image {name} comes from the docker daemon", name=fullname)
        store = self._changes.store
        reference = store.temporary()
        with self._changes.images.task(fullname, "migration"):
            try:
                await daemon.pull(fullname, reference, None, NobodyWaits())
                await self._changes.put(reference, fullname, NobodyWaits())
            finally:
                await store.discard(reference)
        _log.info("image {name} is here now", name=fullname)
