"""Files of nodes: what paths are, before copies, and what is there (spec user-surface §1.13)."""

from __future__ import annotations

from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.interfaces import INodeQuestions
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.domain.transfers import (
    checked_remote_path,
    list_script,
    parse_list,
    parse_probe,
    probe_script,
)

PATIENCE = 30.0  # seconds


class NodeFiles:
    """Answers questions about the files of nodes."""

    def __init__(self, nodes: NodeService, questions: INodeQuestions) -> None:
        self._nodes = nodes
        self._questions = questions

    async def kinds(self, name: str, path: str, requester: IRequester) -> tuple[str, str]:
        """Return what a path of a node is, and what its directory is.

        Raises Invalid, NotFound, Unavailable (the node does not answer) or
        CommandFailed.
        """
        script = probe_script(checked_remote_path(path))
        _, ip = self._nodes.single(name, requester)
        return parse_probe(await self._questions.ask(ip, script, timeout=PATIENCE))

    async def entries(self, ip: str, directory: str, prefix: str) -> list[str]:
        """Return what a directory of a node holds under names that begin with `prefix`.

        Names of directories end with a slash. Raises as `kinds` does.
        """
        script = list_script(checked_remote_path(directory), prefix)
        return parse_list(await self._questions.ask(ip, script, timeout=PATIENCE))


def close_with_nodes(
    questions: INodeQuestions, registry: DeviceRegistry, status: BootStatus, nodes: NodeService
) -> None:
    """End the shell of a node when its operating system changes, and when it is removed."""

    def changed(mac: str, booted: bool, cause: str | None) -> None:
        device = registry.get(mac)
        if device is not None and device.ip is not None:
            questions.close(device.ip)

    status.changed.observe(changed)
    nodes.forgotten.observe(lambda device: questions.close(device.ip) if device.ip else None)
