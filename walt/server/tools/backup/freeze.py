"""A mounted file system that holds still, for as long as its file is copied."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from walt.common.errors import CommandFailed

# Thaws when its input ends, whatever became of who wanted it: nodes that write wait meanwhile.
_HELD = 'fsfreeze --freeze "$1" || exit 1; echo frozen; read -r end; fsfreeze --unfreeze "$1"'


@contextlib.contextmanager
def frozen(point: Path) -> Iterator[None]:
    """Keep a file system from changing (fsfreeze(8)). Raises CommandFailed."""
    holder = subprocess.Popen(
        ["sh", "-c", _HELD, "sh", str(point)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != b"frozen\n":
            words = holder.stderr.read().decode(errors="replace").strip()
            raise CommandFailed(f"{point} cannot be held still: {words}")
        yield
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()
