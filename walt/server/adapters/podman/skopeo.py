"""Copies of images by skopeo: into the server's storage and out of it."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from walt.common.errors import CommandFailed, Denied, NotFound, Unavailable, WaltError
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.progress import BytesShown, layers_told
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

PATIENCE = 4 * 3600.0  # seconds for an image: it is large and links may be slow
INSPECT_PATIENCE = 60.0
_PREFIX = re.compile(r'^time="[^"]*" level=\w+ msg="?|"$')
_ABSENT = ("manifest unknown", "name unknown", "not found", "no such", "reference does not exist")
_DENIED = ("unauthorized", "authentication required", "invalid username/password", "denied",
           "401", "403")


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


class Skopeo:
    """Runs skopeo on the host's network. `scratch`: for short-lived files."""

    def __init__(self, runner: ProcessRunner, storage: Storage, scratch: Path) -> None:
        self._runner = runner
        self._storage = storage
        self._scratch = scratch

    @asynccontextmanager
    async def directory(self) -> AsyncIterator[Path]:
        """Give a directory that only root reads, removed at the end."""
        place = self._scratch / secrets.token_hex(8)
        place.mkdir(parents=True, mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    async def inspect(self, words: Sequence[str], place: Path) -> bytes:
        """Return the output of `skopeo inspect`. Raises NotFound, Denied or Unavailable."""
        return await self._run(["inspect", *words], place, INSPECT_PATIENCE)

    async def fetch(
        self, words: Sequence[str], reference: str, place: Path, what: str,
        requester: IRequester,
    ) -> None:
        """Copy an image into the storage; `words` are options and source.

        `what` is as in `Downloading x`. Raises as `inspect` does.
        """
        with BytesShown(self._runner.reactor, what, requester, place):
            await self._run(
                ["copy", *words, self._local(reference)], place, PATIENCE,
                layers_told(what, requester),
            )

    async def send(
        self, options: Sequence[str], reference: str, target: str, place: Path, what: str,
        requester: IRequester,
    ) -> None:
        """Copy an image of the storage elsewhere; as `fetch`."""
        with BytesShown(self._runner.reactor, what, requester) as shown:
            await self._run(
                ["copy", *options, self._local(reference), target], place, PATIENCE,
                layers_told(what, requester), shown.follow,
            )

    async def _run(
        self, words: list[str], place: Path, timeout: float,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> bytes:
        try:
            result = await self._runner.run(
                ["skopeo", "--insecure-policy", *words], timeout=timeout, network="host",
                env={"TMPDIR": str(place)}, on_line=on_line, on_start=on_start,
            )
        except CommandFailed as error:
            raise failure(error) from None
        return result.stdout

    def _local(self, reference: str) -> str:
        storage = self._storage
        place = "" if storage.root is None else f"[overlay@{storage.root}+{storage.runroot}]"
        return f"containers-storage:{place}{reference}"
