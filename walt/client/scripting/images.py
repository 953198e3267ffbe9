"""Images and sets of images (spec user-surface §2.4)."""

from __future__ import annotations

import sys
from abc import abstractmethod

from walt.client.credentials import stored
from walt.client.errors import Refused
from walt.client.exceptions import NoSuchImageNameException
from walt.client.formats import moment
from walt.client.scripting.link import LINK
from walt.client.scripting.objects import Item
from walt.client.scripting.sets import ItemSet
from walt.client.settings import username
from walt.common.controls import visible
from walt.common.names import PLATFORM_USER, default_image, image_user, short_image_name

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from typing import Any

# What is read of the row of an image.
ROW: dict[str, Any] = {
    "name": str, "fullname": str, "id": str, "created": object, "in_use": bool,
    "compatibility": [str],
}
_objects: dict[str, Image] = {}  # by kind and full name: one object for each image


def own_images() -> list[OwnImage]:
    """Return the images of the caller."""
    rows = LINK.json(
        "cs.images.show", "tables", {"own": [ROW]}, all=False, refresh=False
    )["own"]
    return [_own(row) for row in rows]


def _own(row: dict[str, Any]) -> OwnImage:
    image = _objects.get(row["fullname"])
    if not isinstance(image, OwnImage) or image._gone:
        image = _objects[row["fullname"]] = OwnImage(row)
    image._row = row
    return image


def image_of(fullname: str, model: str) -> Image:
    """Return the image with this full name that a node of some model boots."""
    owner = image_user(fullname)
    if owner == username():
        for image in own_images():
            if image.fullname == fullname:
                return image
    if fullname not in _objects:
        _objects[fullname] = (
            DefaultImage(fullname, model) if fullname == default_image(model)
            else OthersImage(fullname)
        )
    return _objects[fullname]


def clone(link: str, force: bool, name: str) -> OwnImage | None:
    """Copy an image into the working set; None, and the reason on stderr, if that fails."""
    before = {image.name for image in own_images()}
    try:
        answer = LINK.call(
            "cs.images.clone", link=link, name=name, force=force,
            hint="Replace it with: force=True", credentials=stored([link.split(":", 1)[0]]),
        )
    except Refused as refused:
        print(visible(str(refused)), file=sys.stderr)
        return None
    if answer[b"ok"] != b"True":
        return None
    images = {image.name: image for image in own_images()}
    # Without a name the server chooses one, for instance that of a label of the image.
    new = [image for image in images if image not in before]
    wanted = name or (new[0] if len(new) == 1 else link.rpartition("/")[2])
    return images.get(short_image_name(wanted))


class Image(Item):
    """What nodes boot."""

    _kind = "image"

    @property
    @abstractmethod
    def fullname(self) -> str:
        """Owner, name and tag."""

    @abstractmethod
    def _bootable(self) -> str:
        """Return the name under which the caller's nodes boot it."""


class OwnImage(Image):
    """An image of the caller."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f"image {self._row['name']}"

    def _known(self, name: str) -> Any:
        self._check()
        return self._row[name]

    def _bootable(self) -> str:
        return self.name

    def _again(self) -> dict[str, Any]:
        for image in own_images():
            if image is self:
                return self._row
        self._gone = True
        self._check()
        return {}

    def __or__(self, other: object) -> ImageSet:
        if not isinstance(other, OwnImage):
            return NotImplemented
        return ImageSet([self, other])

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self._row["fullname"],)

    @property
    def name(self) -> str:
        """The name of the image."""
        return str(self._known("name"))

    @property
    def fullname(self) -> str:
        """Owner, name and tag."""
        return str(self._known("fullname"))

    @property
    def id(self) -> str:
        """What identifies its content on the server."""
        return str(self._known("id"))

    @property
    def created(self) -> str:
        """When it was made, in local time."""
        return moment(self._known("created"))

    @property
    def in_use(self) -> bool:
        """Whether a node boots it now."""
        return bool(self._again()["in_use"])

    @property
    def compatibility(self) -> tuple[str, ...]:
        """The models of nodes that can boot it."""
        return tuple(self._known("compatibility"))

    @property
    def aliases(self) -> set[str]:
        """Other names in the working set with the same content."""
        self._check()
        images = own_images()
        return {image.name for image in images if image.id == self.id and image is not self}

    def remove(self) -> None:
        """Remove this image"""
        if self._told("cs.images.remove", image=self.name):
            self._gone = True

    def rename(self, new_name: str) -> None:
        """Rename this image"""
        if self._told("cs.images.rename", image=self.name, new_name=new_name):
            fullname = f"{image_user(self.fullname)}/{new_name}"
            del _objects[self._row["fullname"]]
            fullname += "" if ":" in new_name else ":latest"
            self._row = {**self._row, "name": short_image_name(fullname), "fullname": fullname}
            _objects[fullname] = self

    def _told(self, call: str, **arguments: Any) -> bool:
        """Do a call; False, and its reason on stderr, if the server refuses."""
        try:
            LINK.call(call, **arguments)
        except Refused as refused:
            print(visible(str(refused)), file=sys.stderr)
            return False
        return True


def restored(fullname: str) -> OwnImage:
    """Return the caller's image of this name. Raises ReferenceError when there is none."""
    for image in own_images():
        if image.fullname == fullname:
            return image
    raise ReferenceError(f"there is no image {fullname} any more")


class OthersImage(Image):
    """An image of somebody else, or a default one."""

    def __init__(self, fullname: str) -> None:
        self._fullname = fullname

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f'{self.owner}\'s "{self.name}"'

    @classmethod
    def _readable(cls) -> list[str]:
        return [name for name in super()._readable() if name != "clonable_link"]

    def _bootable(self) -> str:
        raise NoSuchImageNameException(
            f"{self.fullname} is not yours: nodes boot a clone of it; see its method clone"
        )

    @property
    def name(self) -> str:
        """The name of the image."""
        return short_image_name(self._fullname)

    @property
    def owner(self) -> str:
        """Whose image it is."""
        return image_user(self._fullname)

    @property
    def fullname(self) -> str:
        """Owner, name and tag."""
        return self._fullname

    @property
    def clonable_link(self) -> str:
        """What to clone it with."""
        return f"walt:{self.owner}/{self.name}"

    def clone(self, force: bool = False, image_name: str | None = None) -> OwnImage | None:
        """Clone this image into your working set"""
        return clone(self.clonable_link, force, image_name or "")


class DefaultImage(OthersImage):
    """The image that free nodes of a model boot."""

    def __init__(self, fullname: str, model: str) -> None:
        super().__init__(fullname)
        self._model = model

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f"default for {self._model} nodes"

    @classmethod
    def _readable(cls) -> list[str]:
        return [name for name in super()._readable() if name != "name"]

    def _bootable(self) -> str:
        return "default"

    @property
    def model(self) -> str:
        """The model of the nodes that boot it."""
        return self._model

    @property
    def owner(self) -> str:
        """The platform."""
        return PLATFORM_USER


class ImageSet(ItemSet[OwnImage]):
    """Images of the caller."""

    _plural = "images"

    def _fresh(self) -> list[OwnImage]:
        present = set(own_images())
        return [image for image in self.values() if image in present]

    def _others(self, other: object) -> list[OwnImage]:
        if isinstance(other, OwnImage):
            return [other]
        if isinstance(other, ImageSet):
            return other.values()
        raise TypeError(f"neither an image of yours nor a set of them: {other!r}")
