"""Default images: first download, updates (spec server §4.14, §5.3)."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.errors import Unavailable, WaltError
from walt.common.names import PLATFORM_USER, short_image_name
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.interfaces import IDefaultImages, IImageStore, IRegistry
from walt.server.domain.images.model import RemoteImage, StoredImage
from walt.server.domain.images.places import Given, Places
from walt.server.domain.requester import IRequester, NobodyWaits
from walt.server.runtime.coroutines import unbroken

SUFFIX = "-default:latest"


def _remote_name(place: IRegistry, fullname: str) -> str:
    repository = place.info.repository
    return f"{repository}/{fullname.split('/', 1)[1]}" if repository else fullname


@implementer(IDefaultImages)
class MissingDefaults:
    """Gets default images that the store lacks from wherever they are."""

    def __init__(self, images: ImageService, store: IImageStore, places: Places) -> None:
        self._images = images
        self._store = store
        self._places = places

    async def obtain(self, fullname: str) -> None:
        """Make sure that a default image is in the store.

        It is downloaded anonymously, from the first place that has it. Raises Unavailable with
        the reason of each place.
        """
        if not self._images.has(fullname):
            await self._images.refresh()
        if self._images.has(fullname):
            return
        reasons = []
        for place in self._places.all():
            if place.info.reading:
                reasons.append(f"{place.info.label}: refuses anonymous downloads")
                continue
            try:
                await self._download(place, fullname)
                return
            except WaltError as error:
                reasons.append(f"{place.info.label}: {error}")
        raise Unavailable(
            f"Could not download {fullname}: " + ("; ".join(reasons) or "no registry configured")
        )

    async def _download(self, place: IRegistry, fullname: str) -> None:
        reference = self._store.temporary()
        with self._images.task(fullname, "download"):
            try:
                await place.pull(_remote_name(place, fullname), reference, None, NobodyWaits())
                await self._store.examine(reference, fullname)  # it must be an image of nodes
                await self._name(reference, fullname)
            finally:
                await self._store.discard(reference)

    @unbroken
    async def _name(self, reference: str, fullname: str) -> None:
        await self._store.promote(reference, fullname)
        await self._images.renew(fullname)


class DefaultImages:
    """Brings the default images of the store up to date."""

    def __init__(self, changes: ImageChanges, places: Places) -> None:
        self._changes = changes
        self._places = places

    async def _pull(
        self, place: IRegistry, fullname: str, requester: IRequester, given: Given
    ) -> bool:
        reference = self._changes.store.temporary()
        with self._changes.images.task(fullname, "download"):
            try:
                await place.pull(
                    _remote_name(place, fullname), reference, given.get(place.info.label),
                    requester,
                )
                return await self._changes.put(reference, fullname, requester)
            finally:
                await self._changes.store.discard(reference)

    async def update(self, requester: IRequester, given: Given) -> bool:
        """Download newer versions of the default images of the store; nodes follow.

        Returns whether all went well: reasons are told.
        """
        ok, updated = True, False
        for image in self._changes.images.working_set(PLATFORM_USER):
            if not image.fullname.endswith(SUFFIX):
                continue
            short = short_image_name(image.fullname)
            place = await self._newest(image, requester, given)
            if place is None:
                continue
            updated = True
            requester.stdout(f"Updating {short} from {place.info.label}.")
            try:
                ok = await self._pull(place, image.fullname, requester, given) and ok
            except WaltError as error:
                ok = False
                requester.stderr(f"{short} was not updated: {error}")
        if not updated:
            requester.stdout("There are no updates of default images.")
        return ok

    async def _newest(
        self, image: StoredImage, requester: IRequester, given: Given
    ) -> IRegistry | None:
        """Return the place that has the newest version, None when ours is."""
        newest, found = image.created_ts, None
        for place in self._places.all():
            try:
                remote: RemoteImage = await place.inspect(
                    _remote_name(place, image.fullname), given.get(place.info.label)
                )
            except WaltError as error:
                if error.code != "NOT_FOUND":
                    requester.stderr(f"{place.info.label} was skipped: {error}.")
                continue
            if remote.created_ts > newest:
                newest, found = remote.created_ts, place
        return found
