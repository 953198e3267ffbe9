"""NFS by the kernel: files of /etc/exports.d and exportfs(8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from twisted.application.service import Service
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import WaltError
from walt.common.files import make_hidden, write_if_changed
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.interfaces import INfsExporter
from walt.server.runtime.process import ProcessRunner

_log = Logger()

DIRECTORY = Path("/etc/exports.d")
IMAGE_EXPORTS = "walt.exports"
PERSIST_EXPORTS = "walt-persist.exports"
# Who follows the links of nodes: an account and a group that no machine has (numbers that Debian
# keeps for later use, Debian policy 9.2.2), so that nobody else may go where the links lead.
FOLLOWER = 65533
# A directory for each client of NFS v4: `info` tells its address, and writing `expire` to `ctl`
# ends what it holds (kernel documentation, admin-guide/nfs/nfsd-admin-interfaces).
CLIENTS = Path("/proc/fs/nfsd/clients")
_ADDRESS = re.compile(r'^address: "([0-9.]{7,15}):', re.MULTILINE)
HEADER = "# Written by the WalT server; changes are lost.\n"


def render_images(plan: ExportPlan, nodes: Path) -> str:
    """Return the export lines of images, each to the addresses of its readers.

    `nodes` is the tree of node directories: nodes follow its links, whose names are no
    secret, so that it is exported to all of them. It is no file system of its own: that a
    handle lies in it is checked (exports(5), subtree_check); links are replaced, never moved.
    Whoever reads there is FOLLOWER, whom the way to persistent data is open for.
    """
    text = HEADER
    options = "ro,sync,no_root_squash,no_subtree_check"
    if plan.images:
        names = f"ro,sync,all_squash,anonuid={FOLLOWER},anongid={FOLLOWER},subtree_check"
        text += f"{_escaped(nodes)} {plan.subnet}({names})\n"
    for image in sorted(plan.images):
        clients = " ".join(f"{ip}(fsid={image.fsid},{options})" for ip in image.readers)
        if clients:
            text += f"{_escaped(image.path)} {clients}\n"
    return text


def render_persist(plan: ExportPlan) -> str:
    """Return the export lines of the nodes' read-write directories, each to its node."""
    options = "rw,sync,no_root_squash,no_subtree_check"
    return HEADER + "".join(
        f"{_escaped(persist)} {ip}({options})\n"
        for persist, ip in sorted(
            (node.persist, node.ip) for node in plan.nodes if node.persist is not None
        )
    )


def _escaped(path: Path) -> str:
    """Return a path as exports(5) wants it: octal codes for what separates words."""
    return "".join(
        f"\\{ord(char):03o}" if char in ' \t\n"#\\' else char for char in str(path)
    )


@implementer(INfsExporter)
class KernelExporter(Service):
    """Write the export files and have them read again when they changed.

    `nodes` is the tree of node directories (it holds the links that nodes follow);
    `directory` is that of exportfs(8).
    """

    name = "nfs"

    def __init__(
        self, runner: ProcessRunner, *, nodes: Path, directory: Path = DIRECTORY,
        clients: Path = CLIENTS,
    ) -> None:
        self._runner = runner
        self._clients = clients
        self._subnet: IPv4Network | None = None
        self._nodes = nodes
        self._directory = directory
        self._in_force = True  # whether the files were read after their last change

    async def apply(self, plan: ExportPlan) -> Mapping[str, str]:
        """Export exactly what the plan says; see INfsExporter."""
        self._subnet = plan.subnet
        for node in plan.nodes:
            if node.persist is not None:
                make_hidden(node.persist, FOLLOWER)
        reason = await self._write(render_images(plan, self._nodes), render_persist(plan))
        return {} if reason is None else {node.mac: reason for node in plan.nodes}

    async def _write(self, images: str, persist: str) -> str | None:
        """Put the files in place; return why they could not be put into force."""
        changed = [
            write_if_changed(self._directory / IMAGE_EXPORTS, images),
            write_if_changed(self._directory / PERSIST_EXPORTS, persist),
        ]
        if not any(changed) and self._in_force:
            return None
        try:
            await self._runner.run(["exportfs", "-r", "-f"])
        except WaltError as error:
            _log.warn("NFS exports: {error}", error=str(error))
            self._in_force = False
            return str(error)
        self._in_force = True
        return None

    def give_up(self) -> None:
        """See INfsExporter: all is exported at once."""

    async def withdraw(self) -> None:
        """Export nothing any more; without it, exports outlast the server (design D20)."""
        await self._write(HEADER, HEADER)
        await self._expire()

    async def _expire(self) -> None:
        """End what clients of walt-net hold: files that they have open keep images mounted."""
        for info in sorted(self._clients.glob("*/info")):
            found = _ADDRESS.search(info.read_text())
            if found is None or self._subnet is None or IPv4Address(found[1]) not in self._subnet:
                continue
            done = await self._runner.run(
                ["tee", str(info.with_name("ctl"))], stdin=b"expire\n", check=False
            )
            if done.status != 0:
                _log.warn(
                    "the NFS client {ip} keeps what it has open: {reason}", ip=found[1],
                    reason=done.last_words(),
                )
