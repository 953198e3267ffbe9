"""Publishing images, and the index of the Docker Hub (spec server §4.8, §5.7)."""

from __future__ import annotations

from walt.common.errors import CredentialsNeeded, Invalid, NotFound, Unavailable
from walt.common.names import PLATFORM_USER
from walt.server.domain.images import hub
from walt.server.domain.images.links import HUB, link_to
from walt.server.domain.images.model import MODELS_LABEL, Credentials, RegistryInfo
from walt.server.domain.images.places import Given, Places, asking
from walt.server.domain.images.interfaces import IRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import IRequester

SEARCH_LIMIT = 600.0  # seconds to read all images of an account


def remote_user(info: RegistryInfo, user: str, credentials: Credentials | None) -> str:
    """Return the user part that an image gets in a registry (spec server §5.6)."""
    if info.repository:
        return info.repository
    if user == PLATFORM_USER or not info.authenticated or credentials is None:
        return user
    return credentials.username.lower()


class Publisher:
    """Publishes images of working sets."""

    def __init__(self, images: ImageService, places: Places) -> None:
        self._images = images
        self._places = places

    async def publish(
        self, label: str, name: str, requester: IRequester, given: Given
    ) -> str:
        """Copy an image of the requester to a registry; return its clonable link.

        Raises NotFound, Invalid, Busy, CredentialsNeeded, Denied or Unavailable.
        """
        place, credentials = await self._place(label, given)
        await self._images.first_contact(requester)
        image = await self._images.find(requester.username, name)
        user = remote_user(place.info, image.user, credentials)
        remote = f"{user}/{image.fullname.split('/', 1)[1]}"
        requester.busy("Validating / Publishing")
        with self._images.task(image.fullname, "publish"), asking(place, credentials):
            await place.push(image.fullname, remote, credentials, requester)
            if place.info.kind == HUB:
                listed = await self._index(place, user, credentials)
                listed[remote] = dict(image.labels)
                await self._write_index(place, user, listed, credentials, requester)
        return link_to(label, remote)

    async def _place(self, label: str, given: Given) -> tuple[IRegistry, Credentials | None]:
        """Return a registry and credentials: the requester's, else those of the server."""
        place, credentials = self._places.get(label), given.get(label)
        if place.info.kind == "daemon":
            raise Invalid("images are not published to the docker daemon")
        if place.info.authenticated and credentials is None:
            credentials = await place.stored_credentials()
        if place.info.authenticated and credentials is None:
            raise CredentialsNeeded(f"registry {label} needs a user name and a password")
        return place, credentials

    async def _index(
        self, place: IRegistry, user: str, credentials: Credentials | None
    ) -> hub.Images:
        try:
            index = await place.inspect(hub.index_image(user), credentials)
        except NotFound:
            return {}
        return hub.decode(index.labels.get(hub.INDEX_LABEL, ""))

    async def _write_index(
        self, place: IRegistry, user: str, listed: hub.Images,
        credentials: Credentials | None, requester: IRequester,
    ) -> None:
        await place.push_index(
            hub.index_image(user), hub.INDEX_LABEL, hub.encode(listed), credentials, requester
        )

    async def rebuild_index(
        self, requester: IRequester, given: Given, *, platform_user: bool
    ) -> list[str]:
        """Make the Hub's index of the requester's account anew; return the images in it.

        `platform_user`: that of the account waltplatform. Raises as `publish`.
        """
        if HUB not in self._places.locations:
            raise Unavailable("the Docker Hub is not among the registries of this server")
        place, credentials = await self._place(HUB, given)
        user = PLATFORM_USER if platform_user else remote_user(
            place.info, requester.username, credentials
        )
        with asking(place, credentials):
            found = await place.search_user(user, credentials, SEARCH_LIMIT)
            listed = {
                image.fullname: dict(image.labels)
                for image in found if image.labels.get(MODELS_LABEL)
            }
            await self._write_index(place, user, listed, credentials, requester)
        return sorted(listed)

    async def login(self, label: str, given: Given) -> None:
        """Return when a registry accepts the credentials. Raises Denied or Unavailable."""
        place, credentials = self._places.get(label), given.get(label)
        if credentials is None:
            raise Invalid(f"the credentials of {label} are missing")
        with asking(place, credentials):
            await place.login(credentials)
