"""Boots of simulated nodes onto an image, as a person orders them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bench.simulator import Fleet, SimulatedNode
from tests.system.live import LivePlatform
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage

OTHER = "other"  # an image of alice, who runs the commands
CONTENTS = 25  # different images among many names


async def add_other_image(platform: LivePlatform) -> None:
    """Make the image; to be done before the server starts."""
    await platform.add_image(f"alice/{OTHER}", {f"/etc/{OTHER}": f"{OTHER}\n"})


async def add_images(platform: LivePlatform, count: int) -> list[str]:
    """Make images with `count` names, of `CONTENTS` contents; return the names.

    To be done before the server starts. Simulated nodes alone boot them: they have little in them.
    """
    storage = Storage.private(platform.state, platform.runtime)
    names = [f"bob/image-{number}:latest" for number in range(count)]
    tree = platform.base / "tree.tar"
    for number, name in enumerate(names[:CONTENTS]):
        tree.write_bytes(archive({**with_busybox(), "etc/number": str(number).encode()}))
        await platform.runner.run(storage.podman(
            "import", "--quiet", "--change", "LABEL walt.node.models=pc-x86-64", str(tree),
            f"docker.io/{name}",
        ))
        alike = [f"docker.io/{other}" for other in names[number::CONTENTS]]
        # The first one once more: podman wants a new name, and there may be no other.
        await platform.runner.run(storage.podman("tag", *alike, alike[0]))
    return names


async def find_names(platform: LivePlatform, fleet: Fleet) -> None:
    """Wait until all nodes of a fleet are registered; note their names."""
    wanted = {node.mac: node for node in fleet.nodes}

    async def registered() -> bool:
        rows = json.loads(await platform.ok("device", "show", "--json"))["known"]
        names = {
            row["mac"]: row["name"] for row in rows
            if row["mac"] in wanted and row["type"].startswith("node")
        }
        for mac, name in names.items():
            wanted[mac].name = name
        return len(names) == len(wanted)

    await platform.until(registered, "all nodes are registered")


async def all_booted(platform: LivePlatform, fleet: Fleet) -> None:
    """Wait for the notifications of all nodes."""
    await platform.ok("node", "wait", "--timeout", "60", names_of(fleet))


def names_of(fleet: Fleet) -> str:
    """Return the set of all nodes of a fleet, as commands take it."""
    return ",".join(sorted(node.name for node in fleet.nodes))


async def boot(platform: LivePlatform, fleet: Fleet, image: str) -> tuple[float, float]:
    """Boot all nodes of a fleet onto another image, by one command.

    Return the seconds of the command, and those until all boot links lead to the same image and
    all nodes were asked to reboot, which comes when what they mount is exported.
    """
    start = time.monotonic()
    result = await platform.walt("node", "boot", names_of(fleet), image)
    command = time.monotonic() - start
    await requested(platform, fleet.nodes)
    done = time.monotonic() - start
    print(result.stdout.decode() + result.stderr.decode())
    assert result.status == 0, result
    root = platform.state / "nodes"
    wanted = {Path(root / node.ip / "fs").resolve() for node in fleet.nodes}
    assert len(wanted) == 1, wanted
    return command, done


async def requested(platform: LivePlatform, nodes: list[SimulatedNode]) -> None:
    """Return when each of these nodes was asked to reboot."""
    while not all("REBOOT" in node.requests for node in nodes):
        await platform.sleep(0.01)
