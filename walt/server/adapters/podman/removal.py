"""Removing images and containers, on a full disk too."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from walt.common.errors import CommandFailed
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.reserve import Reserve
from walt.server.runtime.process import ProcessResult, ProcessRunner

PATIENCE = 120.0  # seconds


async def run_freeing(runner: ProcessRunner, storage: Storage, *words: str) -> ProcessResult:
    """Run a podman command that frees space, once more with the reserve if the disk is full.

    Raises CommandFailed.
    """
    reserve = Reserve(runner, storage)
    await reserve.fill()
    argv = storage.podman(*words)
    try:
        return await runner.run(argv, timeout=PATIENCE, network="host")
    except CommandFailed:
        if not reserve.needed():
            raise
    await reserve.spend()
    try:
        return await runner.run(argv, timeout=PATIENCE, network="host")
    finally:
        await reserve.fill()


async def remove_images(runner: ProcessRunner, storage: Storage, *references: str) -> None:
    """Remove names of images, which may be gone already. Raises CommandFailed."""
    await run_freeing(runner, storage, "image", "rm", "--ignore", "--", *references)


async def remove_containers(
    runner: ProcessRunner, storage: Storage, options: Sequence[str], names: Collection[str]
) -> None:
    """Remove containers, which may be gone already; `options` are global ones of podman.

    Raises CommandFailed.
    """
    words = (*options, "rm", "--force", "--time", "0", "--ignore", "--", *names)
    try:
        await run_freeing(runner, storage, *words)
    except CommandFailed:
        # The system's storage has no reserve: what they wrote goes first.
        changes = [str(path) for path in storage.changes_of(names)]
        await runner.run(["rm", "-rf", "--one-file-system", "--", *changes])
        await run_freeing(runner, storage, *words)
