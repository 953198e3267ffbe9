"""Registries: copies with skopeo, questions over HTTP in workers (spec server §5.6)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twisted.internet.task import LoopingCall
from zope.interface import implementer

from walt.common.errors import CommandFailed, Denied, NotFound, Unavailable, WaltError
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import REGISTRY, epoch
from walt.server.domain.images import hub
from walt.server.domain.images.model import Credentials, RegistryInfo, RemoteImage
from walt.server.domain.images.ports import IRegistry
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.workers import WorkerPool

PATIENCE = 4 * 3600.0  # seconds for an image: it is large and links may be slow
INSPECT_PATIENCE = 60.0
RETRIES = "2"
AUTHORITIES = Path("/etc/containers/certs.d")
HUB_SKOPEO, HUB_HTTP = "docker.io", "registry-1.docker.io"
_PREFIX = re.compile(r'^time="[^"]*" level=\w+ msg="?|"$')
_ABSENT = ("manifest unknown", "name unknown", "not found", "no such", "reference does not exist")
_DENIED = ("unauthorized", "authentication required", "invalid username/password", "denied",
           "401", "403")


@dataclass(frozen=True)
class Location:
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


def failure(error: CommandFailed) -> WaltError:
    """Return what a failure of skopeo means, without its decoration."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = _PREFIX.sub("", lines[-1].partition("): ")[2] or lines[-1])[:400]
    lower = text.lower()
    if any(word in lower for word in _DENIED):
        return Denied(text)
    if any(word in lower for word in _ABSENT):
        return NotFound(text)
    return Unavailable(text)


@implementer(IRegistry)
class SkopeoRegistry:
    """A registry that speaks the distribution protocol. `scratch`: for short-lived files."""

    def __init__(
        self, reactor: Any, runner: ProcessRunner, workers: WorkerPool, storage: Storage,
        info: RegistryInfo, location: Location, scratch: Path,
    ) -> None:
        self._reactor = reactor
        self._runner = runner
        self._workers = workers
        self._storage = storage
        self.info = info
        self._location = location
        self._scratch = scratch

    # -- questions over HTTP ---------------------------------------------

    def _arguments(self, credentials: Credentials | None, **more: Any) -> dict[str, Any]:
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
        await self._workers.call("registry_api:login", self._arguments(credentials))

    async def stored_credentials(self) -> Credentials | None:
        """Return the credentials that root has; see IRegistry."""
        found = await self._workers.call(
            "registry_api:stored", {"host": self._location.skopeo}
        )
        return None if found is None else Credentials(*found)

    async def search(self, credentials: Credentials | None, limit: float) -> list[RemoteImage]:
        """Return the images for nodes; see IRegistry."""
        if self.info.kind == "hub" and not self._location.host:
            return await self._search_hub(credentials, limit)
        answer = await self._workers.call("registry_api:search", self._arguments(
            credentials, repository=self.info.repository, limit=limit,
        ))
        return [
            RemoteImage(one["fullname"], one["labels"], epoch(one["created"]))
            for one in answer["images"]
        ]

    async def search_user(
        self, user: str, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        """Return the images of one account; see IRegistry."""
        if self.info.kind != "hub" or self._location.host:
            return [
                one for one in await self.search(credentials, limit)
                if one.fullname.startswith(f"{user}/")
            ]
        answer = await self._workers.call("registry_api:account", self._arguments(
            credentials, user=user, limit=limit,
        ))
        return [RemoteImage(one["fullname"], one["labels"]) for one in answer]

    async def _search_hub(
        self, credentials: Credentials | None, limit: float
    ) -> list[RemoteImage]:
        found: list[RemoteImage] = []
        users = await self._workers.call(
            "registry_api:hub_users", self._arguments(credentials, limit=limit)
        )
        for user in users:
            with contextlib.suppress(NotFound):
                found.append(await self.inspect(hub.index_image(user), credentials))
        return found

    # -- skopeo ----------------------------------------------------------

    def _remote(self, fullname: str) -> str:
        return f"docker://{self._location.skopeo}/{fullname}"

    def _local(self, reference: str) -> str:
        storage = self._storage
        place = "" if storage.root is None else f"[overlay@{storage.root}+{storage.runroot}]"
        return f"containers-storage:{place}{reference}"

    async def inspect(self, fullname: str, credentials: Credentials | None) -> RemoteImage:
        """Return what an image is; see IRegistry."""
        async with self._work(credentials) as (auth, env):
            output = await self._skopeo(
                ["inspect", "--no-tags", "--retry-times", RETRIES,
                 f"--tls-verify={_flag(self._location.verify)}", *_option("--authfile", auth),
                 self._remote(fullname)],
                env, INSPECT_PATIENCE,
            )
        item = json.loads(output)
        return RemoteImage(fullname, item.get("Labels") or {}, epoch(item.get("Created") or ""))

    async def pull(
        self, fullname: str, reference: str, credentials: Credentials | None,
        requester: IRequester,
    ) -> None:
        """Copy an image into the store; see IRegistry."""
        async with self._work(credentials) as (auth, env):
            with self._bytes_shown(env["TMPDIR"], f"Downloading {fullname}", requester):
                await self._skopeo(
                    ["copy", "--retry-times", RETRIES,
                     f"--src-tls-verify={_flag(self._location.verify)}",
                     *_option("--src-authfile", auth),
                     self._remote(fullname), self._local(reference)],
                    env, PATIENCE, _layers(f"Downloading {fullname}", requester),
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
        async with self._work(credentials) as (auth, env):
            await self._skopeo(
                ["copy", "--retry-times", RETRIES,
                 f"--dest-tls-verify={_flag(self._location.verify)}",
                 *_option("--dest-authfile", auth),
                 self._local(reference), self._remote(remote)],
                env, PATIENCE, _layers(f"Uploading {remote}", requester),
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
            await self._run([*self._storage.podman("image", "rm", "--ignore", "--", reference)])

    async def _run(self, argv: list[str]) -> None:
        await self._runner.run(argv, timeout=INSPECT_PATIENCE, network="host")

    async def _skopeo(
        self, words: list[str], env: dict[str, str], timeout: float,
        on_line: Callable[[str], None] | None = None,
    ) -> bytes:
        try:
            result = await self._runner.run(
                ["skopeo", "--insecure-policy", *words], timeout=timeout, network="host",
                env=env, on_line=on_line,
            )
        except CommandFailed as error:
            raise failure(error) from None
        return result.stdout

    @asynccontextmanager
    async def _work(
        self, credentials: Credentials | None
    ) -> AsyncIterator[tuple[str | None, dict[str, str]]]:
        """Give a file of credentials (None: root's own) and an environment; remove both."""
        place = self._scratch / secrets.token_hex(8)
        place.mkdir(parents=True, mode=0o700)
        try:
            auth = None
            if credentials is not None:
                auth = str(place / "auth.json")
                _write_private(auth, json.dumps(_auth_file(self._location.skopeo, credentials)))
            yield auth, {"TMPDIR": str(place)}
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def _bytes_shown(self, place: str, what: str, requester: IRequester) -> Any:
        """Show how much was downloaded, each second: skopeo keeps it in its own directory."""

        def show() -> None:
            requester.busy(f"{what}: {_size(place) / 1e6:.1f} MB")

        loop = LoopingCall(show)
        loop.clock = self._reactor
        loop.start(1.0, now=False)
        try:
            yield
        finally:
            loop.stop()
            requester.busy("")


def _layers(what: str, requester: IRequester) -> Callable[[str], None]:
    seen: set[str] = set()

    def on_line(line: str) -> None:
        words = line.split()
        if words[:2] == ["Copying", "blob"] and len(words) > 2 and words[2] not in seen:
            seen.add(words[2])
            requester.progress(f"{what}: layer {len(seen)}")
        elif words[:2] == ["Writing", "manifest"]:
            requester.progress(f"{what}: finishing")

    return on_line


def _size(place: str) -> int:
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def _auth_file(host: str, credentials: Credentials) -> dict[str, Any]:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return {"auths": {host: {"auth": base64.b64encode(pair).decode()}}}


def _write_private(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _flag(value: bool) -> str:
    return "true" if value else "false"
