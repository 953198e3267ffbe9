"""How far a program that copies or makes an image is: layers and bytes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from walt.server.domain.requester import IRequester
from walt.server.runtime.process import ProcessRunner

EVERY = 0.25  # seconds between two numbers on a terminal


@contextlib.contextmanager
def working_directory(base: Path) -> Iterator[Path]:
    """Give a directory below `base` that only root reads, removed at the end.

    For whole layers: on a disk, not in memory.
    """
    place = base / secrets.token_hex(8)
    place.mkdir(parents=True, mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def run_told(
    runner: ProcessRunner, argv: Sequence[str], place: Path, what: str, requester: IRequester,
    *, timeout: float, sending: bool = False,
) -> None:
    """Run a program (on the host's network) that copies an image, telling how far it is.

    `place` is its directory of temporary files, `what` is as in `Saving image x`;
    `sending`: it sends the image elsewhere. Raises CommandFailed or Unavailable.
    """
    with BytesShown(runner.reactor, what, requester, place, sending=sending) as shown:
        await runner.run(
            argv, timeout=timeout, network="host", env={"TMPDIR": str(place)},
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
    """Shows now and then how many bytes of an image were moved: a context manager.

    Programs that copy images write each layer into a directory in `temporary`, once where
    they take it and once where they put it: the larger of these directories counts. With
    `sending`, what the program wrote elsewhere (proc(5), `io`).
    """

    def __init__(
        self, reactor: IReactorTime, what: str, requester: IRequester, temporary: Path, *,
        sending: bool = False,
    ) -> None:
        self._what = what
        self._requester = requester
        self._temporary = temporary
        self._sending = sending
        self._pid = 0
        self._sizes: dict[str, dict[int, int]] = {}
        self._shown = 0
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
        for directory, inode, size in files_below(self._temporary):
            sizes = self._sizes.setdefault(directory, {})
            sizes[inode] = max(size, sizes.get(inode, 0))
        count = max((sum(sizes.values()) for sizes in self._sizes.values()), default=0)
        if self._sending:
            count = written(self._pid) - count
        if count > self._shown:
            self._shown = count
            self._requester.busy(f"{self._what}: {count / 1e6:.1f} MB")


def written(pid: int) -> int:
    """Return how many bytes a process wrote; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["wchar"])
    except (OSError, ValueError, KeyError):
        return 0


def files_below(place: Path) -> Iterator[tuple[str, int, int]]:
    """Yield directory, inode number and size (in bytes) of the files below a directory."""
    for directory, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(directory, name))
                yield directory, status.st_ino, status.st_size
