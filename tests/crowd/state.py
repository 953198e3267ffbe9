"""What the files of a platform say, compared with what its devices say."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.live import LivePlatform
from walt.server.adapters.dhcpd.daemon import LEASES
from walt.server.domain.network_services.lease_file import parse_leases

_HOST = re.compile(r"host (\S+) \{\s*hardware ethernet ([0-9a-f:]+);\s*fixed-address ([0-9.]+);")
_NAME = re.compile(r"^(\S+)\s+IN\s+A\s+([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Node:
    """A node as `walt` tells it; `image` is the id of what it boots."""

    name: str
    mac: str
    ip: str
    image: str
    owner: str
    persist: bool


async def nodes_of(platform: LivePlatform) -> list[Node]:
    """Return the nodes as the database and the store of images say."""
    from tests.system.load import Load

    database = Load(platform).database
    try:
        rows = await database.query(
            "SELECT d.name, d.mac, d.ip, n.image, d.conf FROM devices d JOIN nodes n USING (mac)",
            (),
        )
    finally:
        database.close()
    ids = await image_ids(platform)
    return [
        Node(
            name, mac, ip, ids[image], image.partition("/")[0],
            (json.loads(conf) if isinstance(conf, str) else conf).get("mount.persist", True),
        )
        for name, mac, ip, image, conf in rows
    ]


async def image_ids(platform: LivePlatform) -> dict[str, str]:
    """Return the id of each image of the store, by WalT name."""
    from walt.server.adapters.podman.options import Storage

    result = await platform.runner.run(
        Storage.private(platform.state, platform.runtime).podman(
            "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"
        ), timeout=60,
    )
    found = {}
    for line in result.stdout.decode().splitlines():
        name, _, image_id = line.partition(" ")
        found[name.removeprefix("docker.io/")] = image_id.removeprefix("sha256:")
    return found


def differences(platform: LivePlatform, nodes: list[Node]) -> list[str]:
    """Return where mounts, exports, names, leases and links are not what the nodes say."""
    found: list[str] = []

    def same(what: str, is_: Any, wanted: Any) -> None:
        if is_ != wanted:
            found.append(f"{what}: {is_}, and should be {wanted}")

    state = platform.state
    images = {node.image for node in nodes}
    mounts = {
        Path(line.split()[1]).parent.name for line in Path("/proc/self/mounts").read_text()
        .splitlines() if line.split()[1].startswith(f"{state}/images/")
    }
    same("mounts", mounts, images)

    conf = (state / "services/dhcpd/dhcpd.conf").read_text()
    same(
        "hosts of dhcpd",
        sorted((mac, ip) for _, mac, ip in _HOST.findall(conf)),
        sorted((node.mac, node.ip) for node in nodes),
    )
    zone = (state / "services/named/walt.forward.zone").read_text()
    names = {name: ip for name, ip in _NAME.findall(zone)}
    same(
        "names", {name: ip for name, ip in names.items() if ip != f"{platform.net}.1"},
        {node.name: node.ip for node in nodes},
    )
    file = state / "services/dhcpd" / LEASES
    leases = {
        lease.mac: lease.ip for lease in parse_leases(file.read_text("latin-1"))
    }
    by_mac = {node.mac: node for node in nodes}
    for mac, ip in leases.items():
        if mac in by_mac:
            same(f"lease of {by_mac[mac].name}", ip, by_mac[mac].ip)
    found += _links(state / "nodes", nodes)
    found += _exports(state / "services/ganesha/exports", state / "volumes/images/links", state,
                      nodes)
    return found


def _links(tree: Path, nodes: list[Node]) -> list[str]:
    found = []
    for node in nodes:
        for alias in (node.mac, node.ip, node.name, node.mac.replace(":", "-")):
            target = tree / alias / "fs"
            wanted = f"../../images/{node.image}/fs"
            if not target.is_symlink() or os.readlink(target) != wanted:
                found.append(f"boot link {alias}/fs of {node.name} is not {wanted}")
    real = {one.name for one in tree.iterdir() if one.is_dir() and not one.is_symlink()}
    strange = {one for one in real if ":" in one} - {node.mac for node in nodes}
    return [*found, *(f"a directory of nobody: {one}" for one in sorted(strange))]


def _exports(records: Path, links: Path, state: Path, nodes: list[Node]) -> list[str]:
    keys = {path.stem: path.read_text().splitlines()[0][2:] for path in records.glob("*.conf")}
    wanted, found = set(), []
    for node in nodes:
        pairs = {"fs": f"ro {node.ip.rpartition('.')[0]} {state}/images/{node.image}/fs"}
        if node.persist:
            pairs["persist"] = f"rw {node.ip} {state}/nodes/{node.mac}/persist_dirs/{node.owner}"
        wanted |= set(pairs.values())
        for name in ("fs", "persist"):
            link = links / node.name / name
            reached = keys.get(os.readlink(link).rpartition("/")[2]) if link.is_symlink() else None
            if reached != pairs.get(name):
                found.append(f"{node.name}/{name} leads to {reached}, not {pairs.get(name)}")
    if set(keys.values()) != wanted:
        found.append(f"exports: {sorted(set(keys.values()) ^ wanted)} differ")
    directories = {one.name for one in links.iterdir() if not one.is_symlink()}
    if directories != {node.mac for node in nodes}:
        found.append(f"links of nobody: {sorted(directories)}")
    return found
