"""The images of the platform: working sets, default images, first contact (spec server §5)."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from walt.common.errors import Invalid, NotFound
from walt.common.names import (
    PLATFORM_USER,
    default_image,
    image_fullname,
    is_image_name,
    short_image_name,
)
from walt.common.sentences import enumerate_names
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.ports import IImageCatalog, IImageStore
from walt.server.domain.requester import IRequester

_log = Logger()


class ImageService:
    """Every image of the store, in memory; the store and the catalogue follow.

    `sources` provides IImageSources; `models` returns the node models of the
    platform, `in_use` the full names that nodes boot.
    """

    def __init__(
        self, store: IImageStore, catalog: IImageCatalog, sources: Any,
        models: Any, in_use: Any,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._sources = sources
        self._models = models
        self._in_use = in_use
        self._images: dict[str, StoredImage] = {}
        self._scanning = DeferredLock()

    # -- reading ---------------------------------------------------------

    def all(self) -> list[StoredImage]:
        """Return every image, sorted by full name."""
        return [self._images[name] for name in sorted(self._images)]

    def get(self, fullname: str) -> StoredImage:
        """Return one image, or raise NotFound."""
        image = self._images.get(fullname)
        if image is None:
            raise NotFound(f"there is no image {fullname} on this server")
        return image

    def has(self, fullname: str) -> bool:
        """Tell whether the image is in the store."""
        return fullname in self._images

    def models(self, fullname: str) -> Collection[str]:
        """Return the node models it can boot. Raises NotFound."""
        return self.get(fullname).models

    def working_set(self, user: str) -> list[StoredImage]:
        """Return the images of one user, sorted by name (Q-17)."""
        return [image for image in self.all() if image.user == user]

    # -- changing --------------------------------------------------------

    async def refresh(self) -> None:
        """Read the store again, and bring the catalogue in step (spec server §5.2)."""
        async with self._scanning:
            found = {image.fullname: image for image in await self._store.scan()}
            known = await self._catalog.fullnames()
            for fullname in sorted(found.keys() - known):
                await self._catalog.add(fullname)
            for fullname in sorted(known - found.keys()):
                _log.warn("image {name} is no longer in the store", name=fullname)
                await self._catalog.remove(fullname)
            self._images = found

    async def tag(self, image: StoredImage, fullname: str) -> None:
        """Give an image another name."""
        await self._store.tag(image.image_id, fullname)
        await self.refresh()

    async def obtain_default(self, fullname: str) -> None:
        """Download a default image, anonymously, from the registries in order.

        Raises Unavailable with the reasons.
        """
        await self._sources.pull(fullname)
        await self.refresh()

    async def give_default(self, user: str, fullname: str) -> str:
        """Give a user a copy of a default image, unless they have it; return its name."""
        image = self.get(fullname)
        name = image.preferred_name or short_image_name(fullname)
        wanted = image_fullname(user, name)
        if not self.has(wanted):
            await self.tag(image, wanted)
        return name

    async def first_contact(self, requester: IRequester) -> None:
        """Give a user without any image a copy of the default images (user-surface §1.1).

        One copy serves all the models it supports; each is told.
        """
        user = requester.username
        if self.working_set(user):
            return
        covered: set[str] = set()
        requester.busy("Cloning default images")
        try:
            for model in sorted(self._models()):
                fullname = default_image(model)
                if model in covered or not self.has(fullname):
                    continue
                name = await self.give_default(user, fullname)
                models = self.get(fullname).models
                covered.update(models)
                requester.stdout(
                    f"Default image for {enumerate_names(models)} nodes was saved as {name}"
                    " in your images."
                )
        finally:
            requester.busy("")

    # -- what people see -------------------------------------------------

    async def check(
        self, image: str, requester: IRequester, *, default_allowed: bool
    ) -> None:
        """Raise NotFound or Invalid unless the requester has this image."""
        if image == "default" and default_allowed:
            return
        await self.first_contact(requester)
        if not is_image_name(image):
            raise Invalid(
                f'"{image[:80]}" is not a valid image name: use lower-case letters, digits and'
                " dashes, and at most one colon before a tag"
            )
        if not self.has(image_fullname(requester.username, image)):
            raise NotFound(f'you have no image named "{image}"; see: walt image show')

    async def tables(
        self, requester: IRequester, *, show_all: bool, refresh: bool
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of `walt image show` (spec user-surface §1.8)."""
        if refresh:
            await self.refresh()
        await self.first_contact(requester)
        user, in_use = requester.username, self._in_use()
        tables: dict[str, list[dict[str, Any]]] = {"own": [], "others": [], "defaults": []}
        for image in self.all():
            name, created = short_image_name(image.fullname), _local_time(image.created_ts)
            link = f"walt:{image.user}/{name}"
            if image.user == user:
                tables["own"].append({
                    "name": name, "in-use": str(image.fullname in in_use), "created": created,
                    "compatibility": image.models_text,
                })
            elif _is_default(image):
                tables["defaults"].append(
                    {"name": name, "created": created, "clonable-link": link}
                )
            else:
                tables["others"].append({
                    "user": image.user, "name": name, "created": created, "clonable-link": link,
                })
        if not show_all:
            hidden = len(tables["others"]) + len(tables["defaults"])
            tables["others"], tables["defaults"] = [], []
            tables["hidden"] = [{"count": hidden}]
        return tables


def _is_default(image: StoredImage) -> bool:
    return image.user == PLATFORM_USER and any(image.is_default_of(one) for one in image.models)


def _local_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


