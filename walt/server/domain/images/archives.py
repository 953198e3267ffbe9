"""Images that leave the platform in a file, and come back as what they were."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from twisted.internet.defer import DeferredLock

from walt.common.errors import Conflict, Invalid, NotFound
from walt.common.names import short_image_name
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.interfaces import IImageArchiver
from walt.server.domain.images.model import StoredImage
from walt.server.domain.requester import IRequester


class ImageArchives:
    """Archives of a server. `archiver` provides IImageArchiver; `version` is the major one."""

    def __init__(self, changes: ImageChanges, archiver: IImageArchiver, version: int) -> None:
        self._changes = changes
        self._archiver = archiver
        self._version = version
        self._packing = DeferredLock()

    def open(self) -> Path:
        """Make a directory for one archive; `close` removes it."""
        place: Path = self._archiver.open()
        return place

    async def close(self, place: Path) -> None:
        """Remove what an archive left."""
        await self._archiver.close(place)

    async def pack(
        self, place: Path, ids: Collection[str], requester: IRequester
    ) -> list[str]:
        """Return the program that writes images, of these ids, on its output.

        Who asks may have any of them: each image can be cloned. Raises NotFound, CommandFailed,
        LimitExceeded.
        """
        await self._changes.images.refresh()
        images: dict[str, StoredImage] = {}
        for image in self._changes.images.all():
            images.setdefault(image.image_id, image)
        missing = [image_id for image_id in ids if image_id not in images]
        if missing:
            raise NotFound(f"the platform has no image {missing[0][:12]} any more")
        references = {image_id: self._changes.store.temporary() for image_id in dict.fromkeys(ids)}
        try:
            for image_id, reference in references.items():
                # It stays until it is copied, whatever becomes of its names.
                await self._changes.store.tag_temporary(image_id, reference)
            # One at a time: what is left of the disk is looked at before.
            if self._packing.locked:
                requester.stdout("Waiting for another archive of images")
            await self._packing.acquire()
            try:
                command: list[str] = await self._archiver.pack(
                    place, {image_id: images[image_id] for image_id in references}, requester
                )
            finally:
                self._packing.release()
        finally:
            for reference in references.values():
                await self._changes.store.discard(reference)
        return command

    @contextmanager
    def loading(self, user: str, images: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Hold the names that images are going to have; give their full names, with their ids.

        Raises Invalid, Busy, or Conflict: a name that is taken is not given to another image.
        """
        with ExitStack() as held:
            fullnames = {}
            for name, image_id in images.items():
                fullname = self._changes.images.fullname(user, name)
                if self._changes.images.has(fullname):
                    raise Conflict(f"image {short_image_name(fullname)} exists already")
                held.enter_context(self._changes.images.task(fullname, "load"))
                fullnames[fullname] = image_id
            yield fullnames

    async def load(
        self, place: Path, archive: Path, fullnames: Mapping[str, str], requester: IRequester
    ) -> None:
        """Put images of a file, by their ids, into a working set; `loading` holds their names.

        Raises Invalid, LimitExceeded, CommandFailed, Unavailable.
        """
        await self._archiver.unpack(place, archive, set(fullnames.values()))
        for fullname, image_id in fullnames.items():
            reference = self._changes.store.temporary()
            try:
                await self._archiver.fetch(place, image_id, reference, requester)
                found = await self._changes.store.examine(reference, fullname)
                if found.image_id != image_id:
                    raise Invalid(
                        f"the image is {found.image_id[:12]} here, in place of {image_id[:12]}"
                    )
                if found.min_version > self._version:
                    raise Invalid(
                        f"the image needs a WalT server of version {found.min_version} or later"
                    )
                await self._changes.put(reference, fullname, requester)
            finally:
                await self._changes.store.discard(reference)
