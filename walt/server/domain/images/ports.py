"""What the images domain needs from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from pathlib import Path

from zope.interface import Interface

from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.model import StoredImage


class IImageStore(Interface):
    """The images that exist, under their WalT names (`user/name:tag`)."""

    def scan() -> Awaitable[list[StoredImage]]:
        """Return one StoredImage for each name.

        Images without the label `walt.node.models`, and those that cannot be
        inspected, are left out. Raises CommandFailed or Unavailable.
        """

    def tag(image_id: str, fullname: str) -> Awaitable[None]:
        """Give an image another name, taking that name from any other image."""

    def untag(fullname: str) -> Awaitable[None]:
        """Remove a name; the image goes when it was its last one."""

    def keep(image_id: str) -> Awaitable[None]:
        """Keep an image although it may lose its last name."""

    def release(image_id: str) -> Awaitable[None]:
        """Undo `keep`; nothing happens when the image was not kept."""


class IImageCatalog(Interface):
    """The names of images that the platform knows, in its database."""

    def fullnames() -> Awaitable[set[str]]:
        """Return the known names."""

    def add(fullname: str) -> Awaitable[None]:
        """Record a name; nothing happens when it is known."""

    def remove(fullname: str) -> Awaitable[None]:
        """Forget a name; nothing happens when it is unknown."""


class IImageMounter(Interface):
    """Image trees, mounted and prepared for nodes."""

    def mount(image: StoredImage) -> Awaitable[Path]:
        """Mount an image, prepare its tree, return the tree's path.

        An image which is mounted already is prepared again. A preparation that
        fails is a warning in the log. Raises CommandFailed.
        """

    def unmount(image_id: str) -> Awaitable[None]:
        """Unmount an image; Busy when something holds it."""

    def mounted() -> Awaitable[Collection[str]]:
        """Return the ids of the images mounted now, left-overs included."""

    def path(image_id: str) -> Path:
        """Return where the tree of an image is, or will be, mounted."""


class INfsExporter(Interface):
    """The NFS server of the platform."""

    def apply(plan: ExportPlan) -> Awaitable[None]:
        """Export exactly what the plan says; nothing happens when it is the same.

        Done when nodes can mount it. Directories of persistent data are made.
        A failure to reload is a warning in the log.
        """

    def withdraw() -> Awaitable[None]:
        """Export nothing any more: the platform stops for good."""


class IImageSources(Interface):
    """Registries from which default images are downloaded."""

    def pull(fullname: str) -> Awaitable[None]:
        """Download an image anonymously, trying the sources in order.

        It is in the store under its WalT name afterwards. Raises Unavailable
        with the reason of each source.
        """
