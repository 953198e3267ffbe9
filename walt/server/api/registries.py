"""Commands about registries and what goes through them."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.rpc.commands import images as commands
from walt.server.domain.images.clone import CloneRequest
from walt.server.domain.images.operations import ImageOperations
from walt.server.domain.images.places import parse_credentials
from walt.server.domain.requester import IRequester


class RegistriesApi(amp.CommandLocator):
    """Images that come from other places, and go there."""

    def __init__(self, requester: IRequester, images: ImageOperations) -> None:
        self._requester = requester
        self._images = images

    @commands.ListRegistries.responder
    async def registries(self) -> dict[str, Any]:
        """Return one row for each registry of server.conf."""
        return {"rows": await self._images.places.rows()}

    @commands.RegistryLogin.responder
    async def login(self, label: str, credentials: Any) -> dict[str, Any]:
        """Try an account at a registry; Denied when it does not accept it."""
        await self._images.publisher.login(label, parse_credentials(credentials))
        return {}

    @commands.CloneImage.responder
    async def clone(
        self, link: str, name: str, force: bool, hint: str, credentials: Any
    ) -> dict[str, Any]:
        """Clone an image into the working set of the caller; False: some nodes did not reboot."""
        return {"ok": await self._images.cloner.clone(
            CloneRequest(link, name, force, hint), self._requester,
            parse_credentials(credentials),
        )}

    @commands.PublishImage.responder
    async def publish(self, registry: str, image: str, credentials: Any) -> dict[str, Any]:
        """Publish an image of the caller, and return the link that others clone it with."""
        return {"link": await self._images.publisher.publish(
            registry, image, self._requester, parse_credentials(credentials)
        )}

    @commands.SearchImages.responder
    async def search(self, keyword: str, credentials: Any) -> dict[str, Any]:
        """Look for a word in links of images: on this platform, in registries, in docker."""
        return {"rows": await self._images.searcher.search(
            keyword, self._requester, parse_credentials(credentials)
        )}

    @commands.UpdateDefaultImages.responder
    async def update_defaults(self, credentials: Any) -> dict[str, Any]:
        """Replace default images by newer ones of registries, and reboot their nodes."""
        return {"ok": await self._images.defaults.update(
            self._requester, parse_credentials(credentials)
        )}

    @commands.UpdateHubIndex.responder
    async def update_hub_index(
        self, platform_user: bool, credentials: Any
    ) -> dict[str, Any]:
        """Write anew which images an account of the Docker Hub offers."""
        return {"names": await self._images.publisher.rebuild_index(
            self._requester, parse_credentials(credentials), platform_user=platform_user
        )}

