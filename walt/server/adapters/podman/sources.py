"""Anonymous downloads from registries, with podman (spec server §4.1, §5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.podman.options import Storage
from walt.server.domain.images.ports import IImageSources
from walt.server.runtime.process import ProcessRunner

PATIENCE = 3600.0  # seconds; an image is large and links may be slow


@dataclass(frozen=True)
class Source:
    """One registry: `location` is `host[:port][/repository]`, `verify` tells about TLS."""

    label: str
    location: str
    verify: bool = True
    anonymous: bool = True


@implementer(IImageSources)
class Registries:
    """The configured registries, in order."""

    def __init__(
        self, runner: ProcessRunner, storage: Storage, sources: Sequence[Source]
    ) -> None:
        self._runner = runner
        self._storage = storage
        self._sources = sources

    async def pull(self, fullname: str) -> None:
        """Download an image; see IImageSources."""
        reasons = []
        for source in self._sources:
            if not source.anonymous:
                reasons.append(f"{source.label}: refuses anonymous downloads")
                continue
            try:
                await self._pull(source, fullname)
                return
            except (CommandFailed, Unavailable) as error:
                reasons.append(f"{source.label}: {str(error).splitlines()[-1][:300]}")
        raise Unavailable(
            f"Could not download {fullname}: " + ("; ".join(reasons) or "no registry configured")
        )

    async def _pull(self, source: Source, fullname: str) -> None:
        remote = f"{source.location}/{fullname}"
        local = f"docker.io/{fullname}"
        verify = [] if source.verify else ["--tls-verify=false"]
        await self._podman("pull", "--quiet", *verify, "--", remote)
        if remote != local:
            await self._podman("tag", remote, local)
            await self._podman("untag", remote, remote)

    async def _podman(self, *words: str) -> None:
        await self._runner.run(self._storage.podman(*words), timeout=PATIENCE, network="host")
