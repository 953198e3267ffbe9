"""Disks of virtual nodes: sparse files with one partition (spec node-protocols §8.5).

The blocking half: it runs in a worker.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from walt.common.errors import CommandFailed

PARTITION = 2048  # first sector
SECTOR = 512
TYPES = {"ext4": 0x83, "fat32": 0x0C, "hybrid-boot-v": 0x83, "hybrid-boot-p": 0x83}


def prepare(directory: Path, disks: list[dict[str, Any]]) -> list[str]:
    """Make the disk files that are missing or differ; return their paths.

    Each disk has `size` (bytes) and `template`. A file is made anew when its
    size or its template changed; the others keep their content. Files of disks
    that are no longer wanted are removed. Raises CommandFailed.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)  # its files are of no account of this machine
    paths = []
    for number, disk in enumerate(disks):
        path = directory / f"disk_{number}.dd"
        info = directory / f"disk_{number}.info"
        if _present(path, info) != (disk["size"], disk["template"]):
            info.unlink(missing_ok=True)
            _make(path, disk["size"], disk["template"])
            info.write_text(json.dumps({"template": disk["template"]}))
        paths.append(str(path))
    for old in directory.glob("disk_*"):
        if str(old.with_suffix(".dd")) not in paths:
            old.unlink()
    return paths


def _present(path: Path, info: Path) -> tuple[int, str] | None:
    try:
        return path.stat().st_size, json.loads(info.read_text())["template"]
    except (OSError, ValueError, KeyError):
        return None


def _make(path: Path, size: int, template: str) -> None:
    path.unlink(missing_ok=True)
    with open(path, "wb") as stream:
        try:
            os.ftruncate(stream.fileno(), size)
        except OSError as error:
            path.unlink()
            raise CommandFailed(
                f"a disk of {size >> 30} GiB cannot be made on this machine: {error.strerror}"
            ) from None
        if template == "none":
            return
        sectors = min(size // SECTOR - PARTITION, 0xFFFFFFFF)
        entry = struct.pack("<B3sB3sII", 0, bytes(3), TYPES[template], bytes(3), PARTITION, sectors)
        stream.seek(446)
        stream.write(entry + bytes(48) + b"\x55\xaa")
    kib = sectors * SECTOR // 1024
    if template == "fat32":
        _run([
            "mkfs.vfat", "-F", "32", "-S", str(SECTOR), "--offset", str(PARTITION), "--",
            str(path), str(kib),
        ])
        return
    with tempfile.TemporaryDirectory() as content:
        if template.startswith("hybrid-boot"):
            (Path(content) / "walt_hybrid").mkdir()
            if template == "hybrid-boot-p":
                (Path(content) / "walt_hybrid" / ".persistent").touch()
        _run([
            "mke2fs", "-q", "-F", "-t", "ext4", "-d", content,
            "-E", f"offset={PARTITION * SECTOR},lazy_itable_init=1", "--", str(path), f"{kib}k",
        ])


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()[-500:]
        raise CommandFailed(f"{argv[0]} failed on a disk of a virtual node: {words}")
