"""Commands about images."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.common.errors import Invalid
from walt.rpc.commands import images as commands
from walt.server.api.context import Context
from walt.server.domain.images.sessions import SHELL, TRANSFER, ImageSession
from walt.server.domain.requester import IRequester
from walt.server.domain.transfers import checked_remote_path, parse_probe, probe_script


class ImagesApi(amp.CommandLocator):
    """Translates commands to calls of the image service."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._operations = context.image_operations
        self._requester = requester

    @commands.ShowImages.responder
    def show(self, all: bool, refresh: bool) -> Deferred[dict[str, Any]]:
        """Return the rows of `walt image show`, by table; `refresh` reads podman's store first."""
        running = Deferred.fromCoroutine(
            self._context.images.tables(self._requester, show_all=all, refresh=refresh)
        )
        return running.addCallback(lambda tables: {"tables": tables})

    @commands.HasImage.responder
    def has(self, image: str, default_allowed: bool) -> Deferred[dict[str, Any]]:
        """Answer when the caller has this image (or says `default`, if allowed); else NotFound."""
        running = Deferred.fromCoroutine(
            self._context.images.check(image, self._requester, default_allowed=default_allowed)
        )
        return running.addCallback(lambda _: {})

    async def _user(self) -> str:
        """Return the caller's name, once a newcomer has copies of the default images."""
        await self._context.images.first_contact(self._requester)
        return self._requester.username

    @commands.ImageWarning.responder
    async def warning(self, image: str) -> dict[str, Any]:
        """Return what to confirm before an image changes: which nodes reboot; empty: nothing."""
        return {"warning": self._operations.changes.warning(await self._user(), image)}

    @commands.DuplicateImage.responder
    async def duplicate(self, image: str, new_name: str) -> dict[str, Any]:
        """Give an image of the caller a second name, for a copy that shares its layers."""
        await self._context.images.duplicate(await self._user(), image, new_name)
        return {}

    @commands.RenameImage.responder
    async def rename(self, image: str, new_name: str) -> dict[str, Any]:
        """Rename an image of the caller; Conflict while nodes boot it."""
        await self._context.images.rename(await self._user(), image, new_name)
        return {}

    @commands.RemoveImage.responder
    async def remove(self, image: str) -> dict[str, Any]:
        """Remove an image of the caller; Conflict while nodes boot it."""
        await self._context.images.remove(await self._user(), image)
        return {}

    @commands.SquashImage.responder
    def squash(self, image: str) -> Deferred[dict[str, Any]]:
        """Make one layer of those of an image, then reboot its nodes; False: some did not."""
        return _ok(
            self._operations.changes.squash(self._requester.username, image, self._requester)
        )

    @commands.ChangeImagesOwner.responder
    def change_owner(self, user: str) -> Deferred[dict[str, Any]]:
        """Give the caller the images of another user, and return their new names."""
        running = Deferred.fromCoroutine(
            self._context.images.change_owner(self._requester.username, user)
        )
        return running.addCallback(lambda names: {"names": names})

    @commands.OpenImageSession.responder
    def open(self, image: str, task: str) -> Deferred[dict[str, Any]]:
        """Open an image for changes, in a container that lives as long as this connection."""

        async def work() -> dict[str, Any]:
            if task not in (SHELL, TRANSFER):
                raise Invalid("a session is for a shell or for a transfer")
            found = await self._context.images.find(await self._user(), image)
            session = await self._operations.sessions.open(found.fullname, task)
            self._requester.at_end(session.close)
            if task == SHELL:
                await session.prepare_shell(self._requester)
            return {"session": session.name}

        return Deferred.fromCoroutine(work())

    def _session(self, name: str) -> ImageSession:
        return self._operations.sessions.named(name)

    @commands.GetImagePathKinds.responder
    def path_kinds(self, session: str, path: str) -> Deferred[dict[str, Any]]:
        """Return what a path of an opened image is, and what its directory is."""
        script = probe_script(checked_remote_path(path))
        running = Deferred.fromCoroutine(self._session(session).run(script))
        return running.addCallback(lambda answer: {"kinds": list(parse_probe(answer))})

    @commands.SaveImageSession.responder
    def save(self, session: str, image: str) -> Deferred[dict[str, Any]]:
        """Save an opened image under a name of the caller, and reboot the nodes that boot it."""
        fullname = self._context.images.fullname(self._requester.username, image)
        return _ok(self._session(session).save(fullname, self._requester))

    @commands.CloseImageSession.responder
    def close(self, session: str) -> Deferred[dict[str, Any]]:
        """Close an opened image; what was not saved is lost."""
        return self._session(session).close().addCallback(lambda _: {})


def _ok(coroutine: Coroutine[Any, Any, bool]) -> Deferred[dict[str, Any]]:
    """Run a coroutine that tells whether all went well."""
    return Deferred.fromCoroutine(coroutine).addCallback(lambda ok: {"ok": ok})
