"""A podman storage of a test's own, with small images made of a few files."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.places import ON_DISK
from walt.server.adapters.podman.containers import Engine, choose_engine, has_cgroup2
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.process import ProcessRunner

FILES = {"etc/hostname": b"node\n", "root/": b"", "tmp/": b"", "bin/": b"", "run/": b""}
LABEL = "walt.node.models=pc-x86-64"


def why_not() -> str | None:
    """Return why podman cannot run here, None if it can."""
    missing = [name for name in ("podman", "busybox") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        return "needs root, podman and busybox"
    return None


def engine() -> Engine:
    """Return the engine that a server of this machine would choose."""
    return choose_engine(
        None, (), cgroup2=has_cgroup2(), has_runc=shutil.which("runc") is not None
    )


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive; names that end with a slash are directories."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.size = len(content)
            member.mode = 0o755
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def with_busybox(**more: bytes) -> dict[str, bytes]:
    """Return the files of an image whose shell works."""
    busybox = Path("/bin/busybox").read_bytes()
    return {**FILES, "bin/busybox": busybox, "bin/sh": busybox, **more}


class TestStorage:
    """Removed, containers included, by `close`."""

    def __init__(self, reactor: Any) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wtst-", dir=ON_DISK))
        self.runner = ProcessRunner(reactor)
        self.storage = Storage.private(self.base / "s", self.base / "r")
        for name in "sr":
            (self.base / name).mkdir()

    async def podman(self, *words: str, **options: Any) -> str:
        """Run podman on this storage; return its output."""
        result = await self.runner.run(self.storage.podman(*words), **options)
        return result.stdout.decode()

    async def make_image(
        self, name: str, files: Mapping[str, bytes] = FILES, *labels: str
    ) -> str:
        """Import an image; return its id."""
        tree = self.base / "tree.tar"
        tree.write_bytes(archive(files))
        changes = [word for label in labels or (LABEL,) for word in ("--change", f"LABEL {label}")]
        made = await self.podman(
            "import", "--quiet", *changes, str(tree), f"docker.io/{name}"
        )
        return made.strip().removeprefix("sha256:")

    async def references(self) -> set[str]:
        """Return every name of the storage, dangling images as `<none>`."""
        listed = await self.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        return set(listed.split())

    async def close(self) -> None:
        """Remove all of it."""
        await self.podman("rm", "--all", "--force", "--time", "0", check=False)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(str(self.base)):
                await self.runner.run(["umount", "-l", place], check=False)
        shutil.rmtree(self.base, ignore_errors=True)
