"""NFS by the kernel: files of /etc/exports.d and exportfs(8)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from twisted.application.service import Service
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import WaltError
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.ports import INfsExporter
from walt.server.runtime.files import write_if_changed
from walt.server.runtime.process import ProcessRunner

_log = Logger()

IMAGE_EXPORTS = "walt.exports"
PERSIST_EXPORTS = "walt-persist.exports"
HEADER = "# Written by the WalT server; changes are lost.\n"


def render_images(plan: ExportPlan, nodes: Path) -> str:
    """Return the export lines of images; `nodes` is the tree of node directories."""
    text = HEADER
    options = "ro,sync,no_root_squash,no_subtree_check"
    if plan.images:
        text += f"{_escaped(nodes)} {plan.subnet}({options})\n"
    for image in sorted(plan.images):
        text += f"{_escaped(image.path)} {plan.subnet}(fsid={image.fsid},{options})\n"
    return text


def render_persist(plan: ExportPlan) -> str:
    """Return the export lines of the nodes' read-write directories."""
    directories = sorted({node.persist for node in plan.nodes if node.persist is not None})
    options = "rw,sync,no_root_squash,no_subtree_check"
    return HEADER + "".join(
        f"{_escaped(directory)} {plan.subnet}({options})\n" for directory in directories
    )


def _escaped(path: Path) -> str:
    """Return a path as exports(5) wants it: octal codes for what separates words."""
    return "".join(
        f"\\{ord(char):03o}" if char in ' \t\n"#\\' else char for char in str(path)
    )


def usable(
    proc: Path = Path("/proc"), which: Callable[[str], str | None] = shutil.which
) -> bool:
    """Tell whether this kernel has an NFS server that exportfs can command."""
    known = (proc / "fs" / "nfsd").is_dir() or "nfsd" in (proc / "filesystems").read_text()
    return known and which("exportfs") is not None


@implementer(INfsExporter)
class KernelExporter(Service):
    """Write the export files and have them read again when they changed.

    `nodes` is the tree of node directories (it holds the links that nodes follow);
    `directory` is /etc/exports.d.
    """

    name = "nfs"

    def __init__(
        self, runner: ProcessRunner, *, nodes: Path, directory: Path = Path("/etc/exports.d")
    ) -> None:
        self._runner = runner
        self._nodes = nodes
        self._directory = directory

    async def apply(self, plan: ExportPlan) -> None:
        """Export exactly what the plan says; see INfsExporter."""
        for node in plan.nodes:
            if node.persist is not None:
                node.persist.mkdir(parents=True, exist_ok=True)
        await self._write(render_images(plan, self._nodes), render_persist(plan))

    async def _write(self, images: str, persist: str) -> None:
        changed = [
            write_if_changed(self._directory / IMAGE_EXPORTS, images),
            write_if_changed(self._directory / PERSIST_EXPORTS, persist),
        ]
        if not any(changed):
            return
        try:
            await self._runner.run(["exportfs", "-r", "-f"])
        except WaltError as error:
            _log.warn("NFS exports: {error}", error=str(error))

    async def withdraw(self) -> None:
        """Export nothing any more; without it, exports outlast the server (design D20)."""
        await self._write(HEADER, HEADER)
