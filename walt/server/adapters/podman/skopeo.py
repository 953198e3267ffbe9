"""Copies of images by skopeo: into the server's storage and out of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import CommandFailed, Denied, NotFound, Unavailable, WaltError
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.progress import run_told, working_directory
from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

SKOPEO = ("skopeo", "--insecure-policy")
PATIENCE = 4 * 3600.0  # seconds for an image: it is large and links may be slow
INSPECT_PATIENCE = 60.0
_PREFIX = re.compile(r'^time="[^"]*" level=\w+ msg="?|"$')
_ABSENT = (
    "manifest unknown", "name unknown", "not found", "no such", "reference does not exist",
    "does not resolve to an image",
)
_DENIED = re.compile(
    r"unauthorized|authentication required|invalid username|denied|status(code)?:? 40[13]\b"
)


def failure(error: CommandFailed) -> WaltError:
    """Return what a failure of skopeo means, without its decoration."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = _PREFIX.sub("", lines[-1].partition("): ")[2] or lines[-1])[:400]
    # Names of registries and of images say nothing: `host:44013/user/denied`.
    meaning = " ".join(word for word in text.lower().split() if word.count("/") < 2)
    if _DENIED.search(meaning):
        return Denied(text)
    if any(word in meaning for word in _ABSENT):
        return NotFound(text)
    return Unavailable(text)


class Skopeo:
    """Runs skopeo on the host's network. `scratch`: on a disk, for layers on their way."""

    def __init__(self, runner: ProcessRunner, storage: Storage, scratch: Path) -> None:
        self._runner = runner
        self._storage = storage
        self._scratch = scratch

    async def inspect(self, words: Sequence[str]) -> bytes:
        """Return the output of `skopeo inspect`. Raises NotFound, Denied or Unavailable."""
        try:
            result = await self._runner.run(
                [*SKOPEO, "inspect", *words], timeout=INSPECT_PATIENCE, network="host",
            )
        except CommandFailed as error:
            raise failure(error) from None
        return result.stdout

    async def fetch(
        self, words: Sequence[str], reference: str, what: str, requester: IRequester
    ) -> None:
        """Copy an image into the storage; `words` are options and source.

        `what` is as in `Downloading x`. Raises as `inspect` does.
        """
        await self._copy([*words, self._local(reference)], what, requester)

    async def send(
        self, options: Sequence[str], reference: str, target: str, what: str,
        requester: IRequester,
    ) -> None:
        """Copy an image of the storage elsewhere; as `fetch`."""
        await self._copy(
            [*options, self._local(reference), target], what, requester, sending=True
        )

    async def _copy(
        self, words: list[str], what: str, requester: IRequester, *, sending: bool = False
    ) -> None:
        try:
            with working_directory(self._scratch) as place:
                await run_told(
                    self._runner,
                    # The environment does not tell skopeo where its layers go.
                    [*SKOPEO, "--tmpdir", str(place), "copy", *words], place, what, requester,
                    timeout=PATIENCE, sending=sending,
                )
        except CommandFailed as error:
            raise failure(error) from None

    def _local(self, reference: str) -> str:
        storage = self._storage
        place = "" if storage.root is None else f"[overlay@{storage.root}+{storage.runroot}]"
        return f"containers-storage:{place}{reference}"
