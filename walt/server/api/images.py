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
        """Rows of the three tables."""
        running = Deferred.fromCoroutine(
            self._context.images.tables(self._requester, show_all=all, refresh=refresh)
        )
        return running.addCallback(lambda tables: {"tables": tables})

    @commands.HasImage.responder
    def has(self, image: str, default_allowed: bool) -> Deferred[dict[str, Any]]:
        """NotFound unless the caller has it."""
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
        """A sentence."""
        return {"warning": self._operations.changes.warning(await self._user(), image)}

    @commands.DuplicateImage.responder
    async def duplicate(self, image: str, new_name: str) -> dict[str, Any]:
        """A second name."""
        await self._context.images.duplicate(await self._user(), image, new_name)
        return {}

    @commands.RenameImage.responder
    async def rename(self, image: str, new_name: str) -> dict[str, Any]:
        """Another name."""
        await self._context.images.rename(await self._user(), image, new_name)
        return {}

    @commands.RemoveImage.responder
    async def remove(self, image: str) -> dict[str, Any]:
        """No name any more."""
        await self._context.images.remove(await self._user(), image)
        return {}

    @commands.SquashImage.responder
    def squash(self, image: str) -> Deferred[dict[str, Any]]:
        """One layer."""
        return _ok(
            self._operations.changes.squash(self._requester.username, image, self._requester)
        )

    @commands.ChangeImagesOwner.responder
    def change_owner(self, user: str) -> Deferred[dict[str, Any]]:
        """Images of somebody who left."""
        running = Deferred.fromCoroutine(
            self._context.images.change_owner(self._requester.username, user)
        )
        return running.addCallback(lambda names: {"names": names})

    @commands.OpenImageSession.responder
    def open(self, image: str, task: str) -> Deferred[dict[str, Any]]:
        """A container, until this connection ends."""

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
        """Of a path and of its directory."""
        script = probe_script(checked_remote_path(path))
        running = Deferred.fromCoroutine(self._session(session).run(script))
        return running.addCallback(lambda answer: {"kinds": list(parse_probe(answer))})

    @commands.SaveImageSession.responder
    def save(self, session: str, image: str) -> Deferred[dict[str, Any]]:
        """Under a name of the caller."""
        fullname = self._context.images.fullname(self._requester.username, image)
        return _ok(self._session(session).save(fullname, self._requester))

    @commands.CloseImageSession.responder
    def close(self, session: str) -> Deferred[dict[str, Any]]:
        """Its container goes."""
        return self._session(session).close().addCallback(lambda _: {})


def _ok(coroutine: Coroutine[Any, Any, bool]) -> Deferred[dict[str, Any]]:
    """Run a coroutine that tells whether all went well."""
    return Deferred.fromCoroutine(coroutine).addCallback(lambda ok: {"ok": ok})
