"""What a power failure would take from a podman storage: waiting for the disk, and mending.

podman waits for the disk for its lists of names alone (containers/storage, AtomicFileWriter).
The files of new layers, and the place of a renamed file in its directory, follow up to half a
minute later.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from twisted.logger import Logger

from walt.common.errors import WaltError
from walt.common.files import write_durable
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.waiting import Waiters

_log = Logger()

PATIENCE = 3600.0  # seconds: a large image on a slow disk
LINKS = "l"  # directory of short names of layers
LINK = "link"  # file of a layer with its short name
TREE = "diff"  # directory of a layer with its files
_SHORT = re.compile(r"[A-Z2-7]{26}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class Settling:
    """Waits until the disk has what was done in a storage.

    The file system is that of others, too, whose writes are waited for: nobody should hold a
    lock meanwhile. Those who come while it is waited for already wait for the next time,
    together.
    """

    def __init__(self, runner: ProcessRunner, storage: Storage) -> None:
        self._runner = runner
        self._storage = storage
        self._waiting: Waiters[None] = Waiters()
        self._syncing = False

    async def before(self) -> None:
        """Return once the disk has all that a deed relies on.

        Raises CommandFailed (the disk failed) or Unavailable: the deed must not be done.
        """
        waiting = self._waiting.wait()
        if not self._syncing:
            spawn(self._sync(), "waiting for the disk of images")
        await waiting

    async def after(self, what: str) -> None:
        """Return once the disk has a deed, `what` in a few words.

        It is done, so a failure is a warning in the log alone.
        """
        try:
            await self.before()
        except WaltError as error:
            _log.warn(
                "{what}: done, but a power failure now may undo it, the disk fails: {error}",
                what=what, error=str(error),
            )

    async def _sync(self) -> None:
        self._syncing = True
        try:
            while self._waiting:
                served = self._waiting.taken()
                try:
                    # sync(1) waits in our place.
                    await self._runner.run(
                        ["sync", "--file-system", "--", str(self._storage.graph_root)],
                        timeout=PATIENCE,
                    )
                except Exception as error:
                    served.fail(error)
                else:
                    served.release(None)
        finally:
            self._syncing = False


def mend_layers(overlay: Path) -> list[str]:
    """Give short names to the layers of a directory `overlay` that lost them; return their ids.

    A layer that was being made when the power failed may have an empty file of its short name.
    Removing such a one, podman removes the directory of all short names, by which images are
    mounted (4.3.1, drivers/overlay). To be done before podman is asked for anything; blocking.
    """
    links = overlay / LINKS
    try:
        layers = sorted(layer.name for layer in overlay.iterdir() if (layer / TREE).is_dir())
    except FileNotFoundError:
        return []
    links.mkdir(mode=0o700, exist_ok=True)
    names = _names_of_targets(links)
    mended = []
    for layer in layers:
        short = _read(overlay / layer / LINK)
        target = f"../{layer}/{TREE}"
        if _SHORT.fullmatch(short) and (links / short).is_symlink():
            continue
        if not _SHORT.fullmatch(short):
            # Layers above it may know it by the name that it had.
            short = names.get(target) or "".join(secrets.choice(_LETTERS) for _ in range(26))
            write_durable(overlay / layer / LINK, short)
        if not (links / short).is_symlink():
            os.symlink(target, links / short)
        mended.append(layer)
    return mended


def _names_of_targets(links: Path) -> dict[str, str]:
    found = {}
    for link in links.iterdir():
        try:
            found[os.readlink(link)] = link.name
        except OSError:
            continue  # no link
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
