"""What the images domain needs from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from pathlib import Path

from zope.interface import Attribute, Interface

from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.model import ContainerOptions, Credentials, RemoteImage, StoredImage
from walt.server.domain.requester import IRequester


class IImageStore(Interface):
    """The images that exist, under their WalT names (`user/name:tag`).

    What `tag`, `untag` and `promote` did survives a power failure once they have returned.
    """

    def scan() -> Awaitable[list[StoredImage]]:
        """Return one StoredImage for each name.

        Images without the label `walt.node.models`, and those that cannot be
        inspected, are left out. Raises CommandFailed or Unavailable.
        """

    def read(fullname: str) -> Awaitable[StoredImage]:
        """Return one image as it is now, without reading the others.

        Raises NotFound, or Invalid for an image without the label of its models.
        """

    def tag(image_id: str, fullname: str) -> Awaitable[None]:
        """Give an image another name, taking that name from any other image."""

    def untag(fullname: str) -> Awaitable[None]:
        """Remove a name; the image goes when it was its last one."""

    def temporary() -> str:
        """Return a new reference under which an image can be made before it is named."""

    def examine(reference: str, fullname: str) -> Awaitable[StoredImage]:
        """Return the image of a temporary reference as `fullname` would be it.

        Raises NotFound, or Invalid for an image without the label of its models.
        """

    def tag_temporary(image_id: str, reference: str) -> Awaitable[None]:
        """Give an image a temporary reference."""

    def promote(reference: str, fullname: str) -> Awaitable[None]:
        """Name the image of a temporary reference, taking the name from any other image.

        The image that had the name goes, unless it has others.
        """

    def discard(reference: str) -> Awaitable[None]:
        """Remove a temporary reference; nothing happens when it is gone."""

    def sweep() -> Awaitable[None]:
        """Remove temporary references that a killed server left."""

    def keep(image_id: str) -> Awaitable[None]:
        """Keep an image although it may lose its last name."""

    def release(image_id: str) -> Awaitable[None]:
        """Undo `keep`; nothing happens when the image was not kept."""


class IImageCatalog(Interface):
    """The names of images that the platform knows, in its database; what changes is recorded."""

    def known() -> Awaitable[Mapping[str, str | None]]:
        """Return the known names, with the id of the image that each was last known to be."""

    def put(fullname: str, image_id: str) -> Awaitable[None]:
        """Record a name and its image; nothing happens when that is known."""

    def remove(fullname: str) -> Awaitable[None]:
        """Forget a name; nothing happens when it is unknown."""


class IImageMounter(Interface):
    """Image trees, mounted and prepared for nodes."""

    def mount(image: StoredImage) -> Awaitable[frozenset[str]]:
        """Mount an image, prepare its tree; return the models of nodes that can start from it.

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

    def apply(plan: ExportPlan) -> Awaitable[Mapping[str, str]]:
        """Export exactly what the plan says; nothing happens when it is the same.

        Done when nodes can mount it. Directories of persistent data are made. Returns
        why it failed, by MAC, for the nodes that cannot mount what the plan gives them.
        """

    def give_up() -> None:
        """Leave what is still to be exported: the server stops. `apply` returns soon from then on.

        Nodes that are left out have a reason.
        """

    def withdraw() -> Awaitable[None]:
        """Export nothing any more: the platform stops for good."""


class IContainers(Interface):
    """Containers of images, in which commands run and whose changes can be kept."""

    def start(image: StoredImage, options: ContainerOptions) -> Awaitable[str]:
        """Start a container; return its name. Raises CommandFailed or Unavailable.

        The image is kept although it may lose its last name meanwhile.
        """

    def command(container: str, argv: Sequence[str], *, terminal: bool) -> list[str]:
        """Return the vector of a program that runs `argv` in the container as root.

        It works in the root directory. `terminal`: it is started in a pseudo-terminal, and
        gives one to the command.
        """

    def script(script: str) -> list[str]:
        """Return the command, for `command`, that runs a POSIX sh script.

        The shell and its tools (tar…) do not depend on the image.
        """

    def run(container: str, script: str, *, input_fd: int | None = None) -> Awaitable[bytes]:
        """Run a POSIX sh script in a container; return its output. Raises CommandFailed.

        `input_fd` is a descriptor of the caller that becomes its standard input.
        """

    def unpack(container: str, input_fd: int) -> Awaitable[list[str]]:
        """Unpack the archive of what changed on a node, read from a descriptor, at `/`.

        What is there changes its type, owner, mode, times and attributes to those of the
        archive. Returns the paths that no image can have (devices, what is in memory).
        Raises CommandFailed.
        """

    def volatile(container: str) -> Awaitable[list[str]]:
        """Return the paths of files that lie in memory, which no image has.

        The container runs. Raises CommandFailed.
        """

    def freeze(container: str) -> Awaitable[None]:
        """End every program of a container, its files stay."""

    def commit(container: str, fullname: str, requester: IRequester) -> Awaitable[None]:
        """Make an image of a container, which takes the name from any other image.

        The name leads to the old image or to the new one, whatever happens; to the new one
        for good, even if the power fails, once this has returned. The configuration (start
        command, environment) is that of the container's image. The requester is told how far
        it is. Raises CommandFailed.
        """

    def remove(container: str) -> Awaitable[None]:
        """Remove a container and what kept its image; nothing happens when it is gone."""

    def sweep() -> Awaitable[None]:
        """Remove what a killed server left."""


class IImageBuilder(Interface):
    """Makes images of recipes and of other images."""

    warning = Attribute("what people must know before each build: a text, or None")

    def open() -> Path:
        """Make a directory for one build."""

    async def fetch_command(place: Path, url: str, *, progress: bool) -> list[str]:
        """Return the program (on the host's network) that gets a git repository.

        `progress`: it tells on its error output, for a terminal, how far it is. Raises
        Invalid for a bad address, CommandFailed (NOT_FETCHED) for one that may not be read.
        """

    def left_out(place: Path) -> str | None:
        """Tell what of a repository was not fetched, None if it is there whole."""

    def unpack(place: Path, archive: Path) -> Awaitable[None]:
        """Unpack an archive sent by a client as the content of a build.

        Raises Invalid or LimitExceeded for what it must not hold.
        """

    async def command(
        place: Path, subdir: str, user: str, reference: str, known: Collection[str]
    ) -> list[str]:
        """Return the program that builds what was fetched or unpacked.

        `subdir` is relative (empty: everything); `reference` the name it gets; `known` are the
        full names of the images of the platform. Raises NotFound (no such directory, no
        recipe, an image that it names) or Invalid.
        """

    def squash(
        image: StoredImage, reference: str, requester: IRequester
    ) -> Awaitable[None]:
        """Make a copy of an image, named `reference`, with a single layer.

        The requester is told how far it is. Raises CommandFailed.
        """

    def close(place: Path) -> Awaitable[None]:
        """Remove what a build left, its program being over."""

    def sweep() -> Awaitable[None]:
        """Remove what the builds of a killed server left."""


class IImageArchiver(Interface):
    """Puts images of the store into one file, and back."""

    def open() -> Path:
        """Make a directory for one archive."""

    async def pack(
        place: Path, images: Mapping[str, StoredImage], requester: IRequester
    ) -> list[str]:
        """Copy images, which are told by id; return the program that writes the archive.

        It writes on its output. The requester is told how far it is. Raises CommandFailed,
        LimitExceeded or Unavailable.
        """

    async def unpack(place: Path, archive: Path, images: Collection[str]) -> None:
        """Take what a stranger sent apart; it must have the images of these ids.

        Raises Invalid or LimitExceeded.
        """

    async def fetch(
        place: Path, image_id: str, reference: str, requester: IRequester
    ) -> None:
        """Copy an image that was unpacked into the store, under a temporary reference.

        Raises CommandFailed, LimitExceeded, Unavailable.
        """

    def close(place: Path) -> Awaitable[None]:
        """Remove what an archive left, its program being over."""


class IImageUsers(Interface):
    """The nodes that boot images."""

    def names(fullname: str) -> list[str]:
        """Return the names of the nodes that boot an image, sorted."""

    def models(fullname: str) -> set[str]:
        """Return the models of these nodes."""

    def follow(fullname: str, requester: IRequester) -> Awaitable[bool]:
        """Have the nodes of an image that changed boot it; tell the requester.

        Returns whether all of them could be rebooted.
        """


class IImageSource(Interface):
    """A place outside the store that images come from. `credentials` may be None.

    Everything raises Unavailable (with its reason) when the place cannot be
    reached or fails, Denied when it refuses the credentials.
    """

    info = Attribute("its RegistryInfo")

    def inspect(fullname: str, credentials: Credentials | None) -> Awaitable[RemoteImage]:
        """Return what an image is; NotFound."""

    def pull(
        fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> Awaitable[None]:
        """Copy an image into the store, under a temporary reference; NotFound.

        An image that is damaged on its way is refused (CommandFailed).
        """


class IDefaultImages(Interface):
    """Where default images come from that the platform does not have."""

    def obtain(fullname: str) -> Awaitable[None]:
        """Make sure that a default image is in the store; Unavailable with the reason."""


class IRegistry(IImageSource):
    """One place outside the server that holds images, and may be given some."""

    def search(credentials: Credentials | None, limit: float) -> Awaitable[list[RemoteImage]]:
        """Return the images with a label of models, found within `limit` seconds."""

    def search_user(
        user: str, credentials: Credentials | None, limit: float
    ) -> Awaitable[list[RemoteImage]]:
        """Return the images of one account."""

    def push(
        fullname: str, remote: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> Awaitable[None]:
        """Copy an image of the store there, under the name `remote`."""

    def push_index(
        remote: str, label: str, value: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> Awaitable[None]:
        """Put there an image without content that carries a label."""

    def stored_credentials() -> Awaitable[Credentials | None]:
        """Return the credentials that the server's root has for it (containers-auth.json)."""

    def login(credentials: Credentials) -> Awaitable[None]:
        """Return when the credentials are accepted."""
