"""The docker daemon of the server's machine, as a place to clone from (spec server §5.6)."""

from __future__ import annotations

from pathlib import Path

from zope.interface import implementer

from walt.common.errors import Invalid
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import epoch
from walt.server.domain.images.interfaces import IRegistry
from walt.server.domain.images.model import (
    MODELS_LABEL,
    Credentials,
    RegistryInfo,
    RemoteImage,
)
from walt.server.domain.requester import IRequester
from walt.server.runtime.workers import WorkerPool


@implementer(IRegistry)
class DockerDaemon:
    """Read through its socket, copied with skopeo; nothing is written there."""

    info = RegistryInfo("docker", "docker daemon of the server", "daemon")

    def __init__(self, workers: WorkerPool, skopeo: Skopeo, socket: Path) -> None:
        self._workers = workers
        self._skopeo = skopeo
        self._socket = str(socket)

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        """Return what an image is; see IRegistry."""
        item = await self._workers.call(
            "docker_api:image", {"socket": self._socket, "fullname": fullname}
        )
        return RemoteImage(fullname, item["labels"], epoch(item["created"]))

    async def search(self, credentials: Credentials | None, limit: float) -> list[RemoteImage]:
        """Return the images for nodes; see IRegistry."""
        found = await self._workers.call(
            "docker_api:names", {"socket": self._socket, "label": MODELS_LABEL}
        )
        return [
            RemoteImage(name, item["labels"], float(item["created"]))
            for name, item in found.items()
        ]

    async def search_user(
        self, user: str, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        """Return the images of one account; see IRegistry."""
        return [
            image for image in await self.search(credentials, limit)
            if image.fullname.startswith(f"{user}/")
        ]

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image into the store; see IRegistry."""
        await self._skopeo.fetch(
            ["--src-daemon-host", f"unix://{self._socket}", f"docker-daemon:{fullname}"],
            reference, f"Copying {fullname} from the docker daemon", requester,
        )

    async def push(
        self, fullname: str, remote: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Refuse; see IRegistry."""
        raise Invalid("images are not published to the docker daemon")

    async def push_index(
        self, remote: str, label: str, value: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Refuse; see IRegistry."""
        raise Invalid("images are not published to the docker daemon")

    async def stored_credentials(self) -> Credentials | None:
        """There are none."""
        return None

    async def login(self, credentials: Credentials) -> None:
        """Nothing to check: it has no accounts."""
