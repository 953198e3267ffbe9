"""Which files of a state directory are in a backup, and what they are called there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from walt.common.names import is_mac
from walt.server.tools.backup.archive import is_name

# Whole directories and files below the state directory: what cannot be made again.
KEPT = (
    "keys", "ssh", "tls", "vpn-server", "http-boot", "tftp-static", "services/dhcpd/leases",
)
FILES = (".walt-net.mac",)
CONFIG = ("server.conf", "server.spec", "server.env", "log-archive.credentials")
DATABASE = "database/walt.dump"
OCI = "images/oci"
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_PERSISTENT = re.compile(r"persist/([0-9a-f:]{17})/([^/]+)\.ext4")


def state_files(state: Path) -> Iterator[tuple[str, Path]]:
    """Yield plain files of the state directory with their names in a backup.

    Links are not followed, and not kept: nothing of ours is one.
    """
    for name in FILES:
        if (state / name).is_file():
            yield f"state/{name}", state / name
    for name in KEPT:
        for path in sorted((state / name).rglob("*")):
            member = f"state/{path.relative_to(state)}"
            if path.is_file() and not path.is_symlink() and is_name(member):
                yield member, path


def is_saved(file: Path, config: Path) -> bool:
    """Tell whether a file is one of CONFIG, beside the configuration."""
    return file.name in CONFIG and file.parent == config.parent


def persistent_files(nodes: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield names in a backup, files of file systems, and where these are mounted, if they are."""
    for file in sorted(nodes.glob("*/volumes/*.ext4")):
        mac, owner = file.parent.parent.name, file.stem
        if is_mac(mac) and _OWNER.fullmatch(owner) and not file.is_symlink():
            yield (
                f"persist/{mac}/{owner}.ext4", file,
                file.parent.parent / "persist_dirs" / owner,
            )


def target_of(name: str, state: Path, config: Path) -> Path | None:
    """Return where a member belongs, None for one of a kind that is not simply a file.

    Whatever the archive says, that is a place of KEPT, FILES, CONFIG or a node's volume.
    """
    first, _, rest = name.partition("/")
    if first == "config" and rest in CONFIG:
        return config.with_name(rest) if rest != "server.conf" else config
    if first == "state" and is_name(name) and (
        rest in FILES or any(rest.startswith(f"{directory}/") for directory in KEPT)
    ):
        return state / rest
    return None


def persistent_target(name: str, nodes: Path) -> Path | None:
    """Return where the file system of a node's persistent data belongs, None for another name."""
    found = _PERSISTENT.fullmatch(name)
    if found is None or not is_mac(found[1]) or not _OWNER.fullmatch(found[2]):
        return None
    return nodes / found[1] / "volumes" / f"{found[2]}.ext4"
