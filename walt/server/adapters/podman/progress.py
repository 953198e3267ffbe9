"""How far a program that copies or makes an image is: layers and bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

EVERY = 0.25  # seconds between two numbers on a terminal


async def run_told(
    runner: ProcessRunner, argv: Sequence[str], what: str, requester: IRequester, *,
    timeout: float, env: Mapping[str, str] | None = None,
) -> None:
    """Run a program (on the host's network) that writes an image, telling how far it is.

    `what` is as in `Saving image x`. Raises CommandFailed or Unavailable.
    """
    with BytesShown(runner.reactor, what, requester) as shown:
        await runner.run(
            argv, timeout=timeout, network="host", env=env,
            on_line=layers_told(what, requester), on_start=shown.follow,
        )


def layers_told(what: str, requester: IRequester) -> Callable[[str], None]:
    """Return a reader of the lines of skopeo, podman and buildah: it counts layers.

    `what` comes in front, as in `Downloading x: layer 2`. Layers that are there already
    are not told.
    """
    seen: set[str] = set()

    def on_line(line: str) -> None:
        words = line.split()
        if words[:2] == ["Copying", "blob"] and len(words) > 2:
            if words[2] not in seen and "already" not in words:
                seen.add(words[2])
                requester.progress(f"{what}: layer {len(seen)}")
        elif words[:2] == ["Writing", "manifest"]:
            requester.progress(f"{what}: finishing")

    return on_line


class BytesShown:
    """Shows now and then how many bytes were moved: a context manager.

    What a program wrote counts (proc(5), `io`), to a socket as well as to files; for a
    copy into the storage, with its directory of temporary files, what is there.
    """

    def __init__(
        self, reactor: Any, what: str, requester: IRequester, temporary: Path | None = None
    ) -> None:
        self._what = what
        self._requester = requester
        self._temporary = temporary
        self._pid = 0
        self._most = 0
        self._loop = LoopingCall(self._show)
        self._loop.clock = reactor

    def __enter__(self) -> BytesShown:
        self._loop.start(EVERY, now=False)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.stop()
        self._requester.busy("")

    def follow(self, pid: int) -> None:
        """Count what this process writes."""
        self._pid = pid

    def _show(self) -> None:
        count = written(self._pid) if self._temporary is None else size_below(self._temporary)
        if count > self._most:
            self._most = count
            self._requester.busy(f"{self._what}: {count / 1e6:.1f} MB")


def written(pid: int) -> int:
    """Return how many bytes a process wrote; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["wchar"])
    except (OSError, ValueError, KeyError):
        return 0


def size_below(place: Path) -> int:
    """Return the size of the files below a directory, in bytes."""
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total
