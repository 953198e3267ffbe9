"""Building images of recipes (spec server §4.6): one object for each build."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from twisted.internet.defer import Deferred

from walt.common.names import short_image_name
from walt.server.domain.images.consequences import ImageChanges
from walt.server.domain.images.interfaces import IImageBuilder
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import shielded

HELP = "See `walt help show image-build`."


class ImageBuild:
    """One build: fetch or unpack, run the build command, put the image in place, close."""

    def __init__(
        self, owner: ImageBuilds, fullname: str, user: str, place: Path, held: ExitStack
    ) -> None:
        self.fullname = fullname
        self.archive = place / "archive"
        self._owner = owner
        self._user = user
        self._place = place
        self._held = held
        self._finishing: Deferred[bool] | None = None
        self._reference = owner.changes.store.temporary()

    @property
    def warning(self) -> str | None:
        """What whoever builds must know."""
        warning: str | None = self._owner.builder.warning
        return warning

    async def fetch_command(self, url: str, *, progress: bool) -> list[str]:
        """Return the program that gets a repository; Invalid for a bad
        address, CommandFailed for one that may not be read.

        `progress`: it tells a terminal how far it is.
        """
        command: list[str] = await self._owner.builder.fetch_command(
            self._place, url, progress=progress
        )
        return command

    def left_out(self) -> str | None:
        """What of a repository was not fetched, as a sentence."""
        told: str | None = self._owner.builder.left_out(self._place)
        return told

    async def unpack(self) -> None:
        """Unpack `archive`, which the client sent. Raises Invalid or LimitExceeded."""
        await self._owner.builder.unpack(self._place, self.archive)

    async def command(self, subdir: str = "") -> list[str]:
        """Return the program that builds. Raises NotFound or Invalid."""
        command: list[str] = await self._owner.builder.command(
            self._place, subdir, self._user, self._reference,
            [image.fullname for image in self._owner.changes.images.all()],
        )
        return command

    async def finish(self, requester: IRequester) -> bool:
        """Put the image in place; return whether nodes that use it could be rebooted.

        A requester who leaves does not keep it from being put in place. Raises
        Invalid when it lacks its label: the old image stays.
        """
        self._finishing = Deferred.fromCoroutine(self._finish(requester))
        ok: bool = await shielded(self._finishing)
        return ok

    async def _finish(self, requester: IRequester) -> bool:
        ok = await self._owner.changes.put(self._reference, self.fullname, requester)
        requester.stdout(f"Image {short_image_name(self.fullname)} was built.")
        return ok

    async def close(self) -> None:
        """Leave nothing: directory, temporary image, containers."""
        if self._finishing is not None:
            await shielded(self._finishing).addErrback(lambda _: None)
        try:
            await self._owner.changes.store.discard(self._reference)
            await self._owner.builder.close(self._place)
        finally:
            self._held.close()


class ImageBuilds:
    """The builds of a server. `builder` provides IImageBuilder."""

    def __init__(self, changes: ImageChanges, builder: IImageBuilder) -> None:
        self.changes = changes
        self.builder = builder

    def open(self, user: str, name: str) -> ImageBuild:
        """Begin a build of a user's image; Invalid or Busy."""
        fullname = self.changes.images.fullname(user, name)
        with ExitStack() as held:
            held.enter_context(self.changes.images.task(fullname, "build"))
            return ImageBuild(self, fullname, user, self.builder.open(), held.pop_all())


def build_failure(error: Exception) -> str:
    """Return the text of an error of a build, with the pointer to its help page."""
    return f"{error}\nThe image was not built. {HELP}"
