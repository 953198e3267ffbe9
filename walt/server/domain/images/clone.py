"""Cloning images into a working set (spec server §4.7).

The image is copied under a temporary reference first, then named in one step:
whatever fails, the images of the working set are what they were.
"""

from __future__ import annotations
from typing import NamedTuple


from walt.common.errors import Conflict, Invalid
from walt.common.names import image_fullname, short_image_name
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.links import LOCAL, Link, local_name, parse_link
from walt.server.domain.images.model import MODELS_LABEL, RemoteImage, StoredImage
from walt.server.domain.images.places import Given, Places, asking
from walt.server.domain.requester import IRequester


class CloneRequest(NamedTuple):
    """What to clone; `name` empty: derived from the link; `hint`: how to force it."""

    link: str
    name: str = ""
    force: bool = False
    hint: str = ""


class Cloner:
    """Clones images. `version` is the major version of this server."""

    def __init__(self, changes: ImageChanges, places: Places, version: int) -> None:
        self._changes = changes
        self._images = changes.images
        self._places = places
        self._version = version

    async def clone(self, wanted: CloneRequest, requester: IRequester, given: Given) -> bool:
        """Copy an image into the requester's working set; tell how it is called.

        Returns whether the nodes that use a replaced image could be rebooted.
        Raises Invalid (link, name, label, models, version), NotFound, Conflict
        (exists already, without force), Busy, CredentialsNeeded, Denied,
        Unavailable or CommandFailed: nothing changed then.
        """
        link = parse_link(wanted.link, self._places.locations)
        target = self._target(link, wanted.name, requester)
        if link.location == LOCAL and link.user == requester.username:
            raise Invalid(f"{link} is in your working set already")
        source = await self._inspect(link, given)
        self._check_labels(source, link)
        self._check_overwrite(target, source, wanted)
        with self._images.task(target, "clone"):
            reference = self._changes.store.temporary()
            try:
                await self._fetch(link, reference, requester, given)
                ok = await self._changes.put(reference, target, requester)
            finally:
                await self._changes.store.discard(reference)
        requester.stdout(f"Image {short_image_name(target)} is now in your working set.")
        return ok

    def _target(self, link: Link, name: str, requester: IRequester) -> str:
        derived = name or local_name(link)
        target = self._images.fullname(requester.username, derived)
        if not name and image_fullname(link.user, derived) != link.fullname:
            requester.stdout(f"The copy is called {short_image_name(target)}.")
        return target

    async def _inspect(self, link: Link, given: Given) -> StoredImage | RemoteImage:
        if link.location == LOCAL:
            if not self._images.has(link.fullname):
                await self._images.refresh()
            return self._images.get(link.fullname)
        return await self._places.inspect(link.location, link.fullname, given)

    def _check_labels(self, source: StoredImage | RemoteImage, link: Link) -> None:
        image = StoredImage(source.fullname, "", labels=source.labels)
        if not image.models:
            raise Invalid(f"{link} has no label {MODELS_LABEL}: it is not for nodes")
        if image.min_version > self._version:
            raise Invalid(
                f"{link} needs a WalT server of version {image.min_version} or later;"
                f" this one is {self._version}"
            )

    def _check_overwrite(
        self, target: str, source: StoredImage | RemoteImage, wanted: CloneRequest
    ) -> None:
        """Refuse what would break nodes, and what replaces an image without force."""
        if not self._images.has(target):
            return
        models = StoredImage(source.fullname, "", labels=source.labels).models
        missing = self._changes.users.models(target) - set(models)
        short = short_image_name(target)
        if missing:
            raise Invalid(
                f"nodes of type {', '.join(sorted(missing))} boot {short}, and the image"
                " to clone is not for them"
            )
        if not wanted.force:
            user, name = target.split("/", 1)
            warning = self._changes.warning(user, name)
            raise Conflict(f"{warning}\n{wanted.hint}".rstrip())

    async def _fetch(
        self, link: Link, reference: str, requester: IRequester, given: Given
    ) -> None:
        requester.busy("Validating / Cloning")
        if link.location == LOCAL:
            image = self._images.get(link.fullname)
            await self._changes.store.tag_temporary(image.image_id, reference)
            return
        place, credentials = self._places.get(link.location), given.get(link.location)
        with asking(place, credentials):
            await place.pull(link.fullname, reference, credentials, requester)
