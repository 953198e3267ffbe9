"""The nodes that boot an image follow its changes (spec server §4.4, §4.5)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.sentences import subject
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.interfaces import IImageUsers
from walt.server.domain.nodes.reboot import Rebooter
from walt.server.domain.requester import IRequester

Updates = Callable[[], Deferred[None]]


@implementer(IImageUsers)
class ImageUsers:
    """`update` brings mounts, exports and boot links in step with the images."""

    def __init__(self, registry: DeviceRegistry, rebooter: Rebooter, update: Updates) -> None:
        self._registry = registry
        self._rebooter = rebooter
        self._update = update

    def _nodes(self, fullname: str) -> list[Device]:
        return [node for node in self._registry.nodes() if node.image == fullname]

    def names(self, fullname: str) -> list[str]:
        """Return the names of the nodes that boot an image."""
        return sorted(node.name for node in self._nodes(fullname))

    def models(self, fullname: str) -> set[str]:
        """Return the models of the nodes that boot an image."""
        return {node.model for node in self._nodes(fullname) if node.model}

    async def follow(self, fullname: str, requester: IRequester) -> bool:
        """Mount the image anew and reboot its nodes; see IImageUsers."""
        nodes = self._nodes(fullname)
        if not nodes:
            return True
        self._update()
        requester.stdout(f"{subject(node.name for node in nodes)} will reboot.")
        outcome = await self._rebooter.reboot(
            nodes, requester=requester, hard_only=False, cause="image change"
        )
        return outcome.ok
