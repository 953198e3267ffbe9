"""Registries: copies with skopeo, questions over HTTP in workers (spec server §5.6)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zope.interface import implementer

from walt.common.errors import NotFound
from walt.common.texts import load_json
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.removal import remove_images
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import REGISTRY, epoch
from walt.server.domain.images import hub
from walt.server.domain.images.interfaces import IRegistry
from walt.server.domain.images.model import Credentials, RegistryInfo, RemoteImage
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.workers import WorkerPool

QUICK = 60.0  # seconds
RETRIES = "2"
AUTHORITIES = Path("/etc/containers/certs.d")
HUB_SKOPEO, HUB_HTTP = "docker.io", "registry-1.docker.io"


class Location(NamedTuple):
    """Where a registry is; `host` has no scheme, empty for the Docker Hub itself."""

    host: str
    port: int
    protocol: Literal["https", "http", "https-no-verify"]

    @property
    def skopeo(self) -> str:
        """Its name in references."""
        return f"{self.host}:{self.port}" if self.host else HUB_SKOPEO

    @property
    def base(self) -> str:
        """The start of its URLs."""
        scheme = "http" if self.protocol == "http" else "https"
        return f"{scheme}://{self.host}:{self.port}/" if self.host else f"https://{HUB_HTTP}/"

    @property
    def verify(self) -> bool:
        """Whether it has TLS with a certificate to check."""
        return self.protocol == "https"


@implementer(IRegistry)
class SkopeoRegistry:
    """A registry that speaks the distribution protocol; `secrets`: a directory in memory.

    `workers` read what the registry sends, and need no rights; `keeper` reads
    what root keeps.
    """

    def __init__(
        self, runner: ProcessRunner, workers: WorkerPool, keeper: WorkerPool,
        storage: Storage, skopeo: Skopeo, info: RegistryInfo, location: Location, secrets: Path,
    ) -> None:
        self._runner = runner
        self._skopeo = skopeo
        self._workers = workers
        self._keeper = keeper
        self._storage = storage
        self.info = info
        self._location = location
        self._secrets = secrets

    # -- questions over HTTP ---------------------------------------------

    async def _arguments(
        self, credentials: Credentials | None, **more: Any
    ) -> dict[str, Any]:
        credentials = credentials or await self.stored_credentials()
        known = {} if credentials is None else {
            "username": credentials.username, "password": credentials.password,
        }
        host = self._location.skopeo
        return {
            "base": self._location.base, "host": host, "verify": self._location.verify,
            "ca_directory": str(AUTHORITIES / host), **known, **more,
        }

    async def login(self, credentials: Credentials) -> None:
        """Return when the credentials are accepted; see IRegistry."""
        await self._workers.call("registry_api:login", await self._arguments(credentials))

    async def stored_credentials(self) -> Credentials | None:
        """Return the credentials that root has; see IRegistry."""
        found = await self._keeper.call(
            "registry_credentials:stored", {"host": self._location.skopeo}
        )
        return None if found is None else Credentials(*found)

    async def search(self, credentials: Credentials | None, limit: float) -> list[RemoteImage]:
        """Return the images for nodes; see IRegistry."""
        if self.info.kind == "hub" and not self._location.host:
            return await self._search_hub(credentials, limit)
        answer = await self._workers.call("registry_api:search", await self._arguments(
            credentials, repository=self.info.repository, limit=limit,
        ))
        return [
            RemoteImage(image["fullname"], image["labels"], epoch(image["created"]))
            for image in answer["images"]
        ]

    async def search_user(
        self, user: str, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        """Return the images of one account; see IRegistry."""
        if self.info.kind != "hub" or self._location.host:
            return [
                image for image in await self.search(credentials, limit)
                if image.fullname.startswith(f"{user}/")
            ]
        answer = await self._workers.call("registry_api:account", await self._arguments(
            credentials, user=user, limit=limit,
        ))
        return [RemoteImage(image["fullname"], image["labels"]) for image in answer]

    async def _search_hub(
        self, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        found: list[RemoteImage] = []
        users = await self._workers.call(
            "registry_api:hub_users", await self._arguments(credentials, limit=limit)
        )
        for user in users:
            with contextlib.suppress(NotFound):
                found.append(await self.inspect(hub.index_image(user), credentials))
        return found

    # -- skopeo ----------------------------------------------------------

    def _remote(self, fullname: str) -> str:
        return f"docker://{self._location.skopeo}/{fullname}"

    def _options(self, side: str, auth: str) -> list[str]:
        """Return options of skopeo; `side` is `src-`, `dest-` or empty."""
        verify = "true" if self._location.verify else "false"
        return [
            "--retry-times", RETRIES, f"--{side}tls-verify={verify}", f"--{side}authfile", auth,
        ]

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        """Return what an image is; see IRegistry."""
        async with self._credentials(credentials) as auth:
            output = await self._skopeo.inspect(
                ["--no-tags", *self._options("", auth), self._remote(fullname)]
            )
        item = load_json(output)
        return RemoteImage(fullname, item.get("Labels") or {}, epoch(item.get("Created") or ""))

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image into the store; see IRegistry."""
        async with self._credentials(credentials) as auth:
            await self._skopeo.fetch(
                [*self._options("src-", auth), self._remote(fullname)], reference,
                f"Downloading {fullname}", requester,
            )

    async def push(
        self, fullname: str, remote: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image of the store there; see IRegistry."""
        await self._push(REGISTRY + fullname, remote, credentials, requester)

    async def _push(
        self, reference: str, remote: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        async with self._credentials(credentials) as auth:
            await self._skopeo.send(
                self._options("dest-", auth), reference, self._remote(remote),
                f"Uploading {remote}", requester,
            )

    async def push_index(
        self, remote: str, label: str, value: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Put there an image without content that carries a label; see IRegistry."""
        name = f"walt-index-{secrets.token_hex(4)}"
        reference = f"localhost/walt/temporary:{name}"
        buildah = ["buildah", *self._storage.options()]
        try:
            await self._run([*buildah, "from", "--name", name, "scratch"])
            await self._run([*buildah, "config", "--label", f"{label}={value}", name])
            await self._run([*buildah, "commit", "--quiet", "--rm", "--format", "docker", name,
                             reference])
            await self._push(reference, remote, credentials, requester)
        finally:
            await remove_images(self._runner, self._storage, reference)

    async def _run(self, argv: list[str]) -> None:
        await self._runner.run(argv, timeout=QUICK, network="host")

    @asynccontextmanager
    async def _credentials(self, credentials: Credentials | None) -> AsyncIterator[str]:
        """Give a file of credentials (None: root's own), removed at the end."""
        if credentials is None:
            credentials = await self.stored_credentials()
        self._secrets.mkdir(parents=True, mode=0o700, exist_ok=True)
        file = self._secrets / f"{secrets.token_hex(8)}.json"
        try:
            _write_private(file, json.dumps(_auth_file(self._location.skopeo, credentials)))
            yield str(file)
        finally:
            file.unlink(missing_ok=True)


def _auth_file(host: str, credentials: Credentials | None) -> dict[str, Any]:
    if credentials is None:
        return {"auths": {}}
    pair = f"{credentials.username}:{credentials.password}".encode()
    return {"auths": {host: {"auth": base64.b64encode(pair).decode()}}}


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
