"""The docker daemon of the server's machine, as a place to clone from (spec server §5.6)."""

from __future__ import annotations

import json

from zope.interface import implementer

from walt.common.errors import CommandFailed, Invalid, NotFound, Unavailable
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.registry import failure
from walt.server.adapters.podman.store import epoch
from walt.server.domain.images.model import (
    MODELS_LABEL,
    Credentials,
    RegistryInfo,
    RemoteImage,
)
from walt.server.domain.images.ports import IRegistry
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

PATIENCE = 3600.0
QUICK = 30.0


@implementer(IRegistry)
class DockerDaemon:
    """Read with the docker command, copied with skopeo; nothing is written there."""

    info = RegistryInfo("docker", "docker daemon of the server", "daemon")

    def __init__(self, runner: ProcessRunner, storage: Storage) -> None:
        self._runner = runner
        self._storage = storage

    async def _docker(self, *words: str) -> str:
        try:
            result = await self._runner.run(["docker", *words], timeout=QUICK, network="host")
        except CommandFailed as error:
            if "No such" in str(error):
                raise NotFound("the docker daemon has no such image") from None
            raise Unavailable(str(error).splitlines()[-1][:300]) from None
        return result.stdout.decode()

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        """Return what an image is; see IRegistry."""
        (item,) = json.loads(await self._docker("image", "inspect", "--", fullname))
        labels = (item.get("Config") or {}).get("Labels") or {}
        return RemoteImage(fullname, labels, epoch(item.get("Created") or ""))

    async def search(self, credentials: Credentials | None, limit: float) -> list[RemoteImage]:
        """Return the images for nodes; see IRegistry."""
        listed = await self._docker(
            "image", "ls", "--filter", f"label={MODELS_LABEL}", "--format",
            "{{.Repository}}:{{.Tag}}",
        )
        names = [one for one in listed.split() if one.count("/") == 1 and "<none>" not in one]
        return [await self.inspect(name, None) for name in names]

    async def search_user(
        self, user: str, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        """Return the images of one account; see IRegistry."""
        return [
            one for one in await self.search(credentials, limit)
            if one.fullname.startswith(f"{user}/")
        ]

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image into the store; see IRegistry."""
        storage = self._storage
        place = "" if storage.root is None else f"[overlay@{storage.root}+{storage.runroot}]"
        requester.progress(f"Copying {fullname} from the docker daemon")
        try:
            await self._runner.run(
                ["skopeo", "--insecure-policy", "copy", f"docker-daemon:{fullname}",
                 f"containers-storage:{place}{reference}"],
                timeout=PATIENCE, network="host",
            )
        except CommandFailed as error:
            raise failure(error) from None

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
