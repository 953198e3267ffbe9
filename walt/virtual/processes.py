"""Programs run to their end, and children that never outlive this process."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from walt.common.errors import CommandFailed
from walt.virtual.timing import uninterrupted, within

PATIENCE = 30.0  # seconds that a program gets
GRACE = 5.0  # seconds between TERM and KILL
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Let the kernel kill the calling child when its parent is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def without_threads() -> None:
    """Wait for children through descriptors: older versions of asyncio start threads."""
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


async def run(argv: Sequence[str], stdin: bytes = b"", limit: float = PATIENCE) -> bytes:
    """Run a program and return its output. Raises CommandFailed.

    `limit` is in seconds; a program that takes longer is killed.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE if stdin else DEVNULL, stdout=PIPE, stderr=PIPE,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise CommandFailed(f"{argv[0]}: {error.strerror}") from None
    try:
        out, err = await within(limit, child.communicate(stdin or None))
    except asyncio.TimeoutError:
        raise CommandFailed(f"{argv[0]} took more than {limit:.0f} seconds") from None
    finally:
        await uninterrupted(end(child, grace=0))
    if child.returncode != 0:
        words = err.decode(errors="replace").strip()[-500:]
        raise CommandFailed(f"{argv[0]} failed: {words or f'status {child.returncode}'}")
    return out


async def end(child: Process, grace: float = GRACE) -> None:
    """End a child that still runs: TERM, then KILL after `grace` seconds."""
    if child.returncode is not None:
        return
    try:
        if grace:
            child.terminate()
            try:
                await within(grace, child.wait())
                return
            except asyncio.TimeoutError:
                pass
        child.kill()
    except ProcessLookupError:
        pass
    await child.wait()
