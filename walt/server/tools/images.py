"""`walt-image-check`, `walt-image-mount`, `walt-image-umount`: images without the server's help.

For the person who looks after a server (spec server §1.11): they work on the podman
storage and the directories of server.conf, whether the server runs or not. Exit status
0, 1 for an error told on standard error, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from walt.common.errors import Invalid, NotFound, WaltError
from walt.server.adapters.network.links import BRIDGE
from walt.server.adapters.podman.mounter import OverlayMounter
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import REGISTRY, PodmanStore
from walt.server.adapters.ssh.keys import PlatformKeys
from walt.server.adapters.volumes.images import open_images
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.config.model import ServerConfig
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.server_values import Facts
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.workers import WorkerPool

_ID = re.compile(r"[0-9a-f]{6,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,500}")


class Toolbox:
    """What the three commands share: the store and the mounter of a configuration."""

    def __init__(self, reactor: IReactor, config: ServerConfig) -> None:
        paths = config.paths
        storage = Storage() if config.images.storage == "system" else Storage.private(
            paths.state, paths.runtime
        )
        self.config = config
        self.runner = ProcessRunner(reactor)
        self.workers = WorkerPool(reactor, Launcher(), size=1)
        self.store = PodmanStore(self.runner, storage, paths.cache / "images.metadata")
        self.keys = PlatformKeys(self.runner, paths.keys, paths.state)
        self.mounter = OverlayMounter(
            self.workers, self.store, storage, images=paths.images, keys=paths.keys,
            facts=Facts(
                str(config.server_ip), partial(_bridge_mac, paths.state), self.keys.node_key,
                config.reconnect_grace,
            ),
            server_spec=config.spec,
        )

    async def image(self, name: str) -> StoredImage:
        """Return an image by name or id. Raises Invalid (label, name) or NotFound."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name[:80]!r} is neither the name nor the id of an image")
        plain = "/" not in name or "." in name.split("/")[0] or name.startswith("localhost/")
        return await self.store.examine(name if plain else REGISTRY + name, name)

    def mounted_id(self, text: str) -> str:
        """Return the id of an image that has a directory here, by the beginning of it."""
        found = [
            path.name for path in self.config.paths.images.glob(f"{text}*") if _ID.fullmatch(text)
        ]
        if len(found) != 1:
            raise NotFound(
                f"{text[:80]!r} is not the id of a mounted image; see {self.config.paths.images}"
            )
        return found[0]


def _bridge_mac(state: Path) -> str:
    try:
        return (state / f".{BRIDGE}.mac").read_text().strip()
    except OSError:
        return ""  # the server never ran


async def _check(tools: Toolbox, options: argparse.Namespace) -> None:
    await tools.image(options.image)
    print("OK")


async def _mount(tools: Toolbox, options: argparse.Namespace) -> None:
    image = await tools.image(options.image)
    await tools.keys.prepare()
    await tools.mounter.mount(image)
    print(tools.mounter.path(image.image_id))


async def _umount(tools: Toolbox, options: argparse.Namespace) -> None:
    await tools.mounter.unmount(tools.mounted_id(options.image))


def _run(
    prog: str, description: str, work: Callable[[Toolbox, argparse.Namespace], Awaitable[None]],
    argument: str, *more: str,
) -> None:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help="server.conf")
    parser.add_argument("image", metavar=argument)
    for name in more:
        parser.add_argument(name, nargs="?", type=int, help="not needed: it is known")
    options = parser.parse_args()

    async def main(reactor: IReactor) -> None:
        tools = None
        try:
            config = load(options.config)
            open_images(
                config.paths.state, lambda text: print(text, file=sys.stderr),
                storage=config.images.storage == "private",
            )
            tools = Toolbox(reactor, config)
            await work(tools, options)
        except WaltError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        finally:
            if tools is not None:
                await tools.workers.stop()

    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))


def check() -> None:
    """Tell whether an image can be one of WalT: it has the label of its node models."""
    _run(
        "walt-image-check", "Check that an image has the label of its node models.", _check,
        "image name or id",
    )


def mount() -> None:
    """Mount an image and prepare it for nodes; print where its tree is."""
    _run(
        "walt-image-mount", "Mount an image and prepare it for nodes; print where its tree is.",
        _mount, "image id", "size-kib",
    )


def umount() -> None:
    """Undo `walt-image-mount`."""
    _run(
        "walt-image-umount", "Unmount an image that was mounted for nodes.", _umount, "image id"
    )
