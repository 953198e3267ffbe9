"""The images of the platform: working sets, names, defaults (spec server §5.1-5.3, §5.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.logger import Logger

from walt.common.errors import Busy, Conflict, Invalid, NotFound, Unavailable
from walt.common.models import compact_models
from walt.common.names import (
    PLATFORM_USER, default_image, image_fullname, is_image_name, is_user_name, short_image_name,
)
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.interfaces import IImageCatalog, IImageStore
from walt.server.domain.requester import IRequester, by_itself
from walt.server.runtime.coroutines import unbroken

_log = Logger()


class Clone(NamedTuple):
    """A default image tagged into a user's set: its new name, the models it serves."""

    fullname: str
    models: tuple[str, ...]


class ImageService:
    """Names and metadata of images; the store and the catalog follow each other.

    `in_use` returns the full names of the images that nodes boot, `node_models`
    the models of the nodes of the platform.
    """

    def __init__(
        self, store: IImageStore, catalog: IImageCatalog, *,
        in_use: Callable[[], Collection[str]],
        node_models: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._in_use = in_use
        self._node_models = node_models
        self._images: dict[str, StoredImage] = {}
        self._tasks: dict[str, str] = {}
        self._lock = DeferredLock()

    def all(self) -> list[StoredImage]:
        """Return every image known, by name."""
        return [self._images[name] for name in sorted(self._images)]

    async def refresh(
        self, *, forget: bool = True, catalog: Awaitable[None] | None = None
    ) -> list[str]:
        """Read the store again and make the catalog equal to it; return what it lacks.

        A recorded name whose image is gone is forgotten, unless nodes use it, or
        without `forget`. What is found so is nobody's deed. `catalog` is waited for in between:
        when the server starts, the store may be there before the catalog and the nodes.
        """
        async with self._lock:
            images = {image.fullname: image for image in await self._store.scan()}
            if catalog is not None:
                await catalog
            self._images = images
            with by_itself():
                return await self._record(images, forget=forget)

    async def _record(self, images: Mapping[str, StoredImage], *, forget: bool) -> list[str]:
        recorded = await self._catalog.known()
        for name, image in sorted(images.items()):
            # A task puts its image itself, and removes it itself.
            if recorded.get(name) != image.image_id and name not in self._tasks:
                await self._catalog.put(name, image.image_id)
        missing = sorted(recorded.keys() - images.keys())
        for name in missing if forget else ():
            if name in self._tasks:
                continue
            if name in self._in_use():
                _log.warn("image {name} is used by nodes but missing in the store", name=name)
            else:
                _log.warn("image {name} is missing in the store: forgotten", name=name)
                await self._catalog.remove(name)
        return missing

    async def renew(self, fullname: str) -> StoredImage:
        """Read one image again after a change of it, or learn it; NotFound or Invalid."""
        image: StoredImage = await self._store.read(fullname)
        await self._catalog.put(fullname, image.image_id)
        self._images[fullname] = image
        return image

    def get(self, fullname: str) -> StoredImage:
        """Return an image; NotFound when the store has no such name."""
        try:
            return self._images[fullname]
        except KeyError:
            raise NotFound(f"there is no image named {fullname}") from None

    def has(self, fullname: str) -> bool:
        """Tell whether the store has this name."""
        return fullname in self._images

    def models(self, fullname: str) -> tuple[str, ...]:
        """Return the node models an image boots on; NotFound."""
        return self.get(fullname).models

    def digest(self, fullname: str) -> str | None:
        """Return the digest of the manifest of an image, None when it is not known."""
        image = self._images.get(fullname)
        return image.digest if image is not None else None

    def content(self, fullname: str | None) -> str:
        """Return a text that names exactly what an image is now, empty if there is none."""
        image = self._images.get(fullname or "")
        if image is None:
            return ""
        return f"image={image.fullname} digest={image.digest} id={image.image_id}"

    async def check(
        self, image: str, requester: IRequester, *, default_allowed: bool
    ) -> StoredImage | None:
        """Return an image of the requester, None for `default` if that is allowed.

        Users without images get their first ones. Raises Invalid or NotFound.
        """
        if default_allowed and image == "default":
            return None
        await self.first_contact(requester)
        return await self.find(requester.username, image)

    async def first_contact(self, requester: IRequester) -> list[Clone]:
        """Give a requester without images the default ones, and tell it."""
        if self.working_set(requester.username):
            return []
        requester.busy("Cloning default images")
        try:
            clones = await self.welcome(requester.username)
        finally:
            requester.busy("")
        for clone in clones:
            # A remark: the output is what was asked for, a list of names for a script perhaps.
            requester.stderr(
                f"Image {short_image_name(clone.fullname)!r} is now in your working set: default "
                f"image of {compact_models(clone.models)} nodes."
            )
        return clones

    async def welcome(self, user: str) -> list[Clone]:
        """Give a user without images the default ones of all nodes; return what was made."""
        return await self.clone_defaults(user, self._node_models())

    async def tables(
        self, requester: IRequester, *, show_all: bool, refresh: bool
    ) -> dict[str, Any]:
        """Return the rows of `walt image show` (spec user-surface §1.8).

        Keys: `own`, `others`, `default` (the last two empty without `show_all`),
        `hidden` (how many others there are), `total`.
        """
        if refresh:
            await self.refresh()
        await self.first_contact(requester)
        own, others, default = [], [], []
        used = self._in_use()
        for image in self.all():
            row = image.row(image.fullname in used)
            if image.user == requester.username:
                own.append(row)
            elif any(image.is_default_of(model) for model in image.models):
                default.append(row)
            else:
                others.append(row)
        return {
            "own": own, "others": others if show_all else [], "default": default if show_all else [],
            "hidden": len(others) + len(default), "total": len(self._images),
        }

    async def find(self, user: str, name: str) -> StoredImage:
        """Return an image of a user's working set, after a new scan if it is unknown.

        `name` is `name` or `name:tag`. Raises Invalid or NotFound.
        """
        fullname = self.fullname(user, name)
        if fullname not in self._images:
            await self.refresh()
        if fullname not in self._images:
            raise NotFound(
                f"image {name!r} is not in your working set; see `walt image show`"
            )
        return self._images[fullname]

    def fullname(self, user: str, name: str) -> str:
        """Return the full name of a user's image; Invalid for a bad name."""
        if not is_user_name(user):
            raise Invalid(f"{user!r} cannot be a user: lower-case letters, digits, dashes only")
        if not is_image_name(name):
            raise Invalid(
                f"{name!r} is not a valid image name: use lower-case letters, digits and dashes, with "
                "an optional tag after a colon; 'default' is reserved"
            )
        return image_fullname(user, name)

    def working_set(self, user: str) -> list[StoredImage]:
        """Return the images of a user, by name."""
        return [image for image in self.all() if image.user == user]

    def default(self, model: str) -> StoredImage | None:
        """Return the default image of a model, None when the store has none."""
        return self._images.get(default_image(model))

    def by_id(self, names: Iterable[str]) -> dict[str, StoredImage]:
        """Return the images behind names, by id; names without image only warn."""
        found = {}
        for name in sorted(set(names)):
            image = self._images.get(name)
            if image is None:
                _log.warn("image {name} is used by nodes but missing in the store", name=name)
            else:
                found[image.image_id] = image
        return found

    @contextmanager
    def task(self, fullname: str, label: str) -> Iterator[None]:
        """Hold an image for one task (`label`: shell, build, transfer…); Busy if held."""
        if fullname in self._tasks:
            raise Busy(
                f"image {short_image_name(fullname)} is held by another task "
                f"({self._tasks[fullname]}); try again later"
            )
        self._tasks[fullname] = label
        try:
            yield
        finally:
            del self._tasks[fullname]

    def task_of(self, fullname: str) -> str | None:
        """Return the label of the task that holds an image."""
        return self._tasks.get(fullname)

    @unbroken
    async def clone_defaults(self, user: str, models: Iterable[str]) -> list[Clone]:
        """Give a user without images the default images of `models`; return what was made.

        One clone serves all models that its image supports. Models without a
        default image are passed over. Raises Busy when a clone is being made.
        """
        self.fullname(user, "any")
        if user == PLATFORM_USER or self.working_set(user):
            return []
        present, served, made = sorted(set(models)), set[str](), list[Clone]()
        for model in present:
            image = self.default(model)
            if image is None or model in served:
                continue
            fullname = image_fullname(user, image.preferred_name or f"{model}-default")
            with self.task(fullname, "first clone"):
                await self._add_name(image, fullname)
            clone = Clone(fullname, tuple(model for model in present if image.boots_on(model)))
            made.append(clone)
            served.update(clone.models, (model,))
        return made

    @unbroken
    async def give_default(self, user: str, fullname: str) -> str:
        """Give a user a copy of a default image, unless they have one; return its short name.

        Raises NotFound (no such image) or Busy.
        """
        image = self.get(fullname)
        name = image.preferred_name or short_image_name(fullname)
        wanted = self.fullname(user, name)
        if not self.has(wanted):
            with self.task(wanted, "first clone"):
                await self._add_name(image, wanted)
        return name

    async def _add_name(self, image: StoredImage, fullname: str) -> None:
        await self._store.tag(image.image_id, fullname)
        await self._catalog.put(fullname, image.image_id)
        self._images[fullname] = replace(image, fullname=fullname)

    async def _drop_name(self, fullname: str) -> None:
        await self._store.untag(fullname)
        await self._catalog.remove(fullname)
        self._images.pop(fullname, None)

    def _check_free(self, fullname: str) -> None:
        if fullname in self._images:
            raise Conflict(
                f"an image named {short_image_name(fullname)} exists already; choose another name"
            )

    def _check_unused(self, fullname: str) -> None:
        if fullname in self._in_use():
            raise Conflict(
                f"image {short_image_name(fullname)} is in use by nodes; boot another one on them"
            )

    @unbroken
    async def duplicate(self, user: str, name: str, new_name: str) -> StoredImage:
        """Give a user's image a second name; NotFound, Invalid or Conflict."""
        image = await self.find(user, name)
        fullname = self.fullname(user, new_name)
        self._check_free(fullname)
        with self.task(fullname, "duplicate"):
            await self._add_name(image, fullname)
        return self._images[fullname]

    @unbroken
    async def rename(self, user: str, name: str, new_name: str) -> None:
        """Change the name of a user's image that no node uses; as `duplicate`."""
        image = await self.find(user, name)
        fullname = self.fullname(user, new_name)
        self._check_unused(image.fullname)
        self._check_free(fullname)
        with self.task(image.fullname, "rename"), self.task(fullname, "rename"):
            await self._add_name(image, fullname)
            await self._drop_name(image.fullname)

    @unbroken
    async def remove(self, user: str, name: str) -> None:
        """Remove a user's image that no node uses; NotFound, Conflict or Busy."""
        image = await self.find(user, name)
        self._check_unused(image.fullname)
        with self.task(image.fullname, "remove"):
            await self._drop_name(image.fullname)

    @unbroken
    async def change_owner(self, user: str, other: str) -> list[str]:
        """Move all images of `other` into `user`'s working set; return their new names.

        Nothing moves when one is in use or when a name clashes (Conflict).
        """
        if other == user:
            raise Invalid("these images are yours already")
        images = self.working_set(other)
        if not images:
            raise NotFound(f"user {other!r} has no image")
        targets = {
            image.fullname: self.fullname(user, image.fullname.split("/", 1)[1])
            for image in images
        }
        for old, new in targets.items():
            self._check_unused(old)
            self._check_free(new)
        # All at once: the disk is waited for a few times, instead of twice for each.
        moves: list[tuple[bool, Any]] = await DeferredList(
            [
                Deferred.fromCoroutine(self._move(image, targets[image.fullname]))
                for image in images
            ],
            consumeErrors=True,
        )
        for moved, failure in moves:
            if not moved:
                failure.raiseException()
        return sorted(targets.values())

    async def _move(self, image: StoredImage, target: str) -> None:
        with self.task(image.fullname, "change of owner"), self.task(target, "change of owner"):
            await self._add_name(image, target)
            await self._drop_name(image.fullname)
