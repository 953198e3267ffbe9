"""Run with `python -m bench.images [PART…]`, as root, with the full default image in the cache.

Parts: listing, saving, cloning, mounting.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from bench.starting import postgres_alone
from tests.system import registry
from tests.system.live import CACHE, ROOT, why_not
from tests.system.load import Load, figure, run_bench
from tests.system.registry import TestRegistry
from tests.system.storage import archive, with_busybox
from tests.system.test_registries import HomePlatform

ROUNDS = 3
IMAGES = 300
MOUNTS, NODES = 50, 500
LABEL = "LABEL walt.node.models=pc-x86-64"


class _Saving(ProcessProtocol):
    def __init__(self) -> None:
        self.saved: Deferred[float] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._text = b""

    def outReceived(self, data: bytes) -> None:
        self._text += data
        line = next((line for line in self._text.split(b"\n") if line.startswith(b"saved ")), b"")
        if line and not self.saved.called:
            self.saved.callback(float(line.split()[1]))

    def processEnded(self, reason: Any) -> None:
        if not self.saved.called:
            self.saved.errback(reason)
        self.ended.callback(None)


async def timed(platform: HomePlatform, argv: list[str], timeout: float = 600) -> float:
    """Return the seconds that a program takes."""
    start = time.monotonic()
    await platform.runner.run(argv, timeout=timeout)
    return time.monotonic() - start


def client(platform: HomePlatform, what: str) -> tuple[_Saving, Any]:
    """Start a client that changes 10 MB in the full image, then does `what`."""
    child = _Saving()
    transport = platform.reactor.spawnProcess(
        child, sys.executable, [sys.executable, "-m", "bench.images.saving", "full", what],
        {**platform.environment(), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    return child, transport


async def saving(platform: HomePlatform) -> None:
    """10 MB changed in the full image: through the server, and podman commit alone."""
    server, alone = [], []
    for _ in range(ROUNDS):
        child, transport = client(platform, "save")
        server.append(await child.saved)
        transport.write(b"\n")
        await child.ended
        child, transport = client(platform, "hold")
        await child.saved
        listed = await platform.runner.run(platform.podman("ps", "--format", "{{.Names}}"))
        alone.append(await timed(platform, platform.podman(
            "commit", "--quiet", "--format", "docker", listed.stdout.decode().split()[0],
            "localhost/bench:commit",
        )))
        transport.write(b"\n")
        await child.ended
        await platform.runner.run(platform.podman("image", "rm", "localhost/bench:commit"))
    figure("save of 10 MB on the full image, podman commit alone", statistics.median(alone), "s")
    figure("  the same through the server", statistics.median(server), "s")
    figure("  ratio", statistics.median(server) / statistics.median(alone), "times", 1.3)


async def cloning(platform: HomePlatform, lab: TestRegistry) -> None:
    """The full image from a registry of this machine: by clone, by skopeo."""
    await platform.ok("image", "publish", "full", timeout=600)
    await platform.ok("image", "remove", "full")
    clone, alone = [], []
    storage = f"[overlay@{platform.state}/containers/storage+{platform.runtime}/containers]"
    for _ in range(ROUNDS):
        start = time.monotonic()
        await platform.ok("image", "clone", "lab:alice/full", timeout=600)
        clone.append(time.monotonic() - start)
        await platform.ok("image", "remove", "full")
        alone.append(await timed(platform, [
            "skopeo", "copy", "--src-tls-verify=false", f"docker://{lab.host}/alice/full:latest",
            f"containers-storage:{storage}localhost/bench:clone",
        ]))
        await platform.runner.run(platform.podman("image", "rm", "localhost/bench:clone"))
    figure("copy of the full image from a registry, skopeo alone", statistics.median(alone), "s")
    figure("  walt image clone", statistics.median(clone), "s")
    figure("  ratio", statistics.median(clone) / statistics.median(alone), "times", 1.2)


async def listing(platform: HomePlatform, count: int) -> None:
    """300 images in the store."""
    times = []
    for _ in range(10):
        start = time.monotonic()
        shown = await platform.ok("image", "show", "--all")
        times.append(time.monotonic() - start)
    assert shown.count("walt:bob/image-") == count, shown[:2000]
    figure(f"walt image show --all, {count} images", statistics.median(times) * 1e3, "ms", 100)


async def mounting(platform: HomePlatform) -> None:
    """50 images of 500 nodes, mounted and exported when the server starts."""
    load = Load(platform)
    await load.register(range(1, NODES + 1))
    names = [f"node-{number:06x}" for number in range(1, NODES + 1)]
    for number in range(MOUNTS):
        await platform.walt(
            "node", "boot", ",".join(names[number::MOUNTS]), f"image-{number}", user="bob"
        )
    load.database.close()
    await platform.stop()
    alone = await postgres_alone(load)
    own, ready = await load.stages_of_start(120)
    # What is mounted meanwhile tears the text of /proc/mounts.
    mounted = sum((image / "fs").is_mount() for image in (platform.state / "images").iterdir())
    assert mounted == MOUNTS, f"{mounted} images are mounted"
    figure(f"{NODES} nodes, {MOUNTS} images: ready, besides PostgreSQL's own start", ready - alone,
           "s", 10)
    figure("  of that, images mounted and exported", ready - own, "s")
    begun = time.monotonic()
    await platform.stop()
    figure("  stopped", time.monotonic() - begun, "s", 10)


async def main(reactor: Any) -> None:
    """Print the figures."""
    full = sorted((CACHE / "default-images").glob("pc-x86-64-full-*.tar"))
    missing = why_not() or registry.why_not() or (None if full else "no full image in the cache")
    if missing is not None:
        print(f"skipped: {missing}")
        return
    parts = sys.argv[1:] or ["listing", "saving", "cloning", "mounting"]
    count = IMAGES if "listing" in parts else MOUNTS if "mounting" in parts else 0
    platform = HomePlatform(reactor, net="192.168.176", prefix=20)
    lab = TestRegistry(reactor, platform.base)
    try:
        await lab.start()
        await platform.runner.run(platform.podman(
            "import", "--quiet", "--change", LABEL, str(full[-1]), "docker.io/alice/full:latest"
        ), timeout=600)
        await platform.import_tiny("waltplatform/pc-x86-64-default:latest")
        tree = platform.base / "tree.tar"
        for number in range(count):
            tree.write_bytes(archive({**with_busybox(), "etc/number": str(number).encode()}))
            await platform.runner.run(platform.podman(
                "import", "--quiet", "--change", LABEL, str(tree),
                f"docker.io/bob/image-{number}:latest",
            ))
        platform.write_config("registries:\n" + lab.settings("lab"))
        await platform.start()
        if "listing" in parts:
            await listing(platform, count)
        if "saving" in parts:
            await saving(platform)
        if "cloning" in parts:
            await cloning(platform, lab)
        if "mounting" in parts:
            await mounting(platform)
    finally:
        await platform.close()
        await lab.stop()


if __name__ == "__main__":
    run_bench(main)
