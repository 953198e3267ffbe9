"""Commands about images."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.rpc.commands import images as commands
from walt.server.api.context import Context
from walt.server.domain.requester import IRequester


class ImagesApi(amp.CommandLocator):
    """Translates commands to calls of the image service."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
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
