"""Commands about images."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.common.errors import Invalid
from walt.rpc.commands import images as commands
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.operations import ImageOperations
from walt.server.domain.images.sessions import SHELL, TRANSFER, ImageSession
from walt.server.domain.requester import IRequester
from walt.server.domain.transfers import checked_remote_path, parse_probe, probe_script


class ImagesApi(amp.CommandLocator):
    """Images of this platform."""

    def __init__(
        self, requester: IRequester, images: ImageService, operations: ImageOperations
    ) -> None:
        self._requester = requester
        self._images = images
        self._operations = operations

    @commands.ShowImages.responder
    async def show(self, all: bool, refresh: bool) -> dict[str, Any]:
        """Return the rows of `walt image show`, by table; `refresh` reads podman's store first."""
        return {"tables": await self._images.tables(
            self._requester, show_all=all, refresh=refresh
        )}

    @commands.GetImageLayers.responder
    async def layers(self, images: list[str]) -> dict[str, Any]:
        """Return the checksums that tell what images are made of."""
        found = [self._images.get(name) for name in images if self._images.has(name)]
        return {"images": [
            {"fullname": image.fullname, "id": image.image_id, "layers": list(image.contents)}
            for image in found
        ]}

    async def _user(self) -> str:
        """Return the caller's name, once a newcomer has copies of the default images."""
        await self._images.first_contact(self._requester)
        return self._requester.username

    @commands.ImageWarning.responder
    async def warning(self, image: str) -> dict[str, Any]:
        """Return what to confirm before an image changes: which nodes reboot; empty: nothing."""
        return {"warning": self._operations.changes.warning(await self._user(), image)}

    @commands.DuplicateImage.responder
    async def duplicate(self, image: str, new_name: str) -> dict[str, Any]:
        """Give an image of the caller a second name, for a copy that shares its layers."""
        await self._images.duplicate(await self._user(), image, new_name)
        return {}

    @commands.RenameImage.responder
    async def rename(self, image: str, new_name: str) -> dict[str, Any]:
        """Rename an image of the caller; Conflict while nodes boot it."""
        await self._images.rename(await self._user(), image, new_name)
        return {}

    @commands.RemoveImage.responder
    async def remove(self, image: str) -> dict[str, Any]:
        """Remove an image of the caller; Conflict while nodes boot it."""
        await self._images.remove(await self._user(), image)
        return {}

    @commands.SquashImage.responder
    async def squash(self, image: str) -> dict[str, Any]:
        """Make one layer of those of an image, then reboot its nodes; False: some did not."""
        return {"ok": await self._operations.changes.squash(
            self._requester.username, image, self._requester
        )}

    @commands.ChangeImagesOwner.responder
    async def change_owner(self, user: str) -> dict[str, Any]:
        """Give the caller the images of another user, and return their new names."""
        return {"names": await self._images.change_owner(self._requester.username, user)}

    @commands.OpenImageSession.responder
    async def open(self, image: str, task: str) -> dict[str, Any]:
        """Open an image for changes, in a container that lives as long as this connection."""
        if task not in (SHELL, TRANSFER):
            raise Invalid("a session is for a shell or for a transfer")
        found = await self._images.find(await self._user(), image)
        session = await self._operations.sessions.open(found.fullname, task)
        self._requester.at_end(session.close)
        if task == SHELL:
            await session.prepare_shell(self._requester)
        return {"session": session.name}

    def _session(self, name: str) -> ImageSession:
        return self._operations.sessions.named(name)

    @commands.GetImagePathKinds.responder
    async def path_kinds(self, session: str, path: str) -> dict[str, Any]:
        """Return what a path of an opened image is, and what its directory is."""
        script = probe_script(checked_remote_path(path))
        return {"kinds": list(parse_probe(await self._session(session).run(script)))}

    @commands.SaveImageSession.responder
    async def save(self, session: str, image: str) -> dict[str, Any]:
        """Save an opened image under a name of the caller, and reboot the nodes that boot it."""
        fullname = self._images.fullname(self._requester.username, image)
        return {"ok": await self._session(session).save(fullname, self._requester)}

    @commands.CloseImageSession.responder
    async def close(self, session: str) -> dict[str, Any]:
        """Close an opened image; what was not saved is lost."""
        await self._session(session).close()
        return {}

