"""Podman's storage of the machine, where WalT 5 to 10 kept images (spec server §5.1)."""

from __future__ import annotations

import json

from zope.interface import implementer

from walt.common.errors import CommandFailed, NotFound, Unavailable
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import epoch
from walt.server.domain.images.interfaces import IImageSource
from walt.server.domain.images.model import Credentials, RegistryInfo, RemoteImage
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

INSPECT_PATIENCE = 60.0  # seconds


@implementer(IImageSource)
class FormerStorage:
    """Copied from with skopeo; nothing is written there. `storage` is the machine's."""

    info = RegistryInfo("podman", "podman's storage of this machine", "daemon")

    def __init__(self, runner: ProcessRunner, skopeo: Skopeo, storage: Storage) -> None:
        self._runner = runner
        self._skopeo = skopeo
        self._storage = storage

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        """Return what an image is; see IImageSource."""
        name = f"docker.io/{fullname}"
        # Most machines have no such image: podman need not be run.
        if not self._storage.may_hold("images", name):
            raise NotFound(f"{self.info.description} has no image {fullname}")
        try:
            done = await self._runner.run(
                self._storage.podman("image", "inspect", "--", name), timeout=INSPECT_PATIENCE,
                network="host",
            )
            (item,) = json.loads(done.stdout)
            return RemoteImage(fullname, dict(item["Labels"] or {}), epoch(item["Created"]))
        except (CommandFailed, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{name} cannot be read there: {error}") from None

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image into the store; see IImageSource."""
        graph, run = self._storage.places()
        await self._skopeo.fetch(
            [f"containers-storage:[overlay@{graph}+{run}]docker.io/{fullname}"],
            reference, f"Copying {fullname} from {self.info.description}", requester,
        )
