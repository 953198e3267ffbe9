"""What the services domain needs from the outside."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface


class PlatformLines(Protocol):
    """The log lines of the platform itself."""

    def write(self, topic: str, line: str, *, error: bool = False) -> None:
        """Add a line to the stream `platform.<topic>`."""


class IConfigurable(Interface):
    """A daemon (or a tree of files) that follows a comparable configuration value."""

    def apply(config: Any) -> Deferred[None]:
        """Make `config` the wanted one.

        Returns a Deferred that fires when it is in force: at once when it
        equals the present one, else after the paced reload or restart.
        """


class IPersistence(Interface):
    """The file systems of nodes' persistent data, each at a directory of its own."""

    def made() -> Awaitable[Collection[Path]]:
        """Return the directories whose file systems exist, mounted or not.

        The directory of a node stands for those of all owners: older servers left data there.
        """

    def ensure(points: Collection[Path]) -> Awaitable[Mapping[Path, str]]:
        """Have a file system mounted at each directory; those that are stay as they are.

        Returns why not, for the directories where that failed.
        """

    def give_up() -> None:
        """Leave what is still to be made: the server stops. `ensure` returns soon from then on."""

    def keep_only(points: Collection[Path]) -> Awaitable[None]:
        """Unmount what is mounted elsewhere and exported no more; what is busy stays."""


class BootFile(NamedTuple):
    """An open regular file and its size in bytes."""

    stream: BinaryIO
    size: int


class IBootFiles(Interface):
    """The boot files of nodes, as TFTP, HTTP and stream request 12 serve them."""

    def open(node: str, path: str) -> BootFile:
        """Open `path` below the tftp directory of `node` (an address or a MAC).

        The file lies inside the node's image or in tftp-static, whatever `..`
        or symbolic links `path` goes through. Raises NotFound.
        """
