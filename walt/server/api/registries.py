"""Commands about registries and what goes through them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.rpc.commands import images as commands
from walt.server.api.context import Context
from walt.server.domain.images.clone import CloneRequest
from walt.server.domain.images.places import parse_credentials
from walt.server.domain.requester import IRequester


class RegistriesApi(amp.CommandLocator):
    """Translates commands to calls of the images domain."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._images = context.image_operations
        self._requester = requester

    @commands.ListRegistries.responder
    def registries(self) -> Deferred[dict[str, Any]]:
        """Return one row for each registry of server.conf."""
        return _named("rows", self._images.places.rows())

    @commands.RegistryLogin.responder
    def login(self, label: str, credentials: Any) -> Deferred[dict[str, Any]]:
        """Try an account at a registry; Denied when it does not accept it."""
        trying = self._images.publisher.login(label, parse_credentials(credentials))
        return Deferred.fromCoroutine(trying).addCallback(lambda _: {})

    @commands.CloneImage.responder
    def clone(
        self, link: str, name: str, force: bool, hint: str, credentials: Any
    ) -> Deferred[dict[str, Any]]:
        """Clone an image into the working set of the caller; False: some nodes did not reboot."""
        return _named("ok", self._images.cloner.clone(
            CloneRequest(link, name, force, hint), self._requester,
            parse_credentials(credentials),
        ))

    @commands.PublishImage.responder
    def publish(self, registry: str, image: str, credentials: Any) -> Deferred[dict[str, Any]]:
        """Publish an image of the caller, and return the link that others clone it with."""
        return _named("link", self._images.publisher.publish(
            registry, image, self._requester, parse_credentials(credentials)
        ))

    @commands.SearchImages.responder
    def search(self, keyword: str, credentials: Any) -> Deferred[dict[str, Any]]:
        """Look for a word in links of images: on this platform, in registries, in docker."""
        return _named("rows", self._images.searcher.search(
            keyword, self._requester, parse_credentials(credentials)
        ))

    @commands.UpdateDefaultImages.responder
    def update_defaults(self, credentials: Any) -> Deferred[dict[str, Any]]:
        """Replace default images by newer ones of registries, and reboot their nodes."""
        return _named("ok", self._images.defaults.update(
            self._requester, parse_credentials(credentials)
        ))

    @commands.UpdateHubIndex.responder
    def update_hub_index(
        self, platform_user: bool, credentials: Any
    ) -> Deferred[dict[str, Any]]:
        """Write anew which images an account of the Docker Hub offers."""
        return _named("names", self._images.publisher.rebuild_index(
            self._requester, parse_credentials(credentials), platform_user=platform_user
        ))


def _named(name: str, coroutine: Coroutine[Any, Any, Any]) -> Deferred[dict[str, Any]]:
    """Run a coroutine; its result is the value `name` of the answer."""
    return Deferred.fromCoroutine(coroutine).addCallback(lambda result: {name: result})
