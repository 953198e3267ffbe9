"""Images of older versions of WalT, which kept them elsewhere (spec server §5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.logger import Logger

from walt.common.errors import NotFound, WaltError
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.interfaces import IImageSource
from walt.server.domain.requester import NobodyWaits

_log = Logger()


class Migration:
    """Copies images that the platform knows by name from where older versions kept them.

    `sources`: a docker daemon, podman's storage of the machine, as far as they are there.
    """

    def __init__(self, changes: ImageChanges, sources: Sequence[IImageSource]) -> None:
        self._changes = changes
        self._sources = sources

    @property
    def possible(self) -> bool:
        """Whether there is a place to copy from."""
        return bool(self._sources)

    async def run(self, missing: Iterable[str]) -> None:
        """Copy the images named `missing`, one after the other; then forget what is not there.

        The nodes that boot one of them follow when it has come.
        """
        asked = [await self._found(fullname) for fullname in missing]
        await self._changes.images.refresh(forget=all(asked))

    async def _found(self, fullname: str) -> bool:
        """Copy an image from the first place that has it; tell whether all places could be asked."""
        certain = True
        for source in self._sources:
            try:
                await self._copy(source, fullname)
                return True
            except NotFound:
                continue
            except WaltError as error:
                certain = False
                _log.warn(
                    "image {name} could not be copied from {place}, this will be tried at the"
                    " next start: {error}", name=fullname, place=source.info.description,
                    error=str(error),
                )
        return certain

    async def _copy(self, source: IImageSource, fullname: str) -> None:
        await source.inspect(fullname, None)
        _log.info(
            "image {name} comes from {place}", name=fullname, place=source.info.description
        )
        store = self._changes.store
        reference = store.temporary()
        try:
            with self._changes.images.task(fullname, "migration"):
                await source.pull(fullname, reference, None, NobodyWaits())
                await self._changes.put(reference, fullname, NobodyWaits())
        finally:
            await store.discard(reference)
        _log.info("image {name} is here now", name=fullname)
