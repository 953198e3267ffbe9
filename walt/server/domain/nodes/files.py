"""Files of nodes: what paths are, before copies (spec user-surface §1.13)."""

from __future__ import annotations

from walt.common.errors import Invalid
from walt.common.transfers import MAX_PATH
from walt.server.domain.nodes.ports import INodeShell
from walt.server.domain.nodes.service import NodeService
from walt.server.domain.requester import IRequester
from walt.server.domain.transfers import parse_probe, probe_script

PROBE_PATIENCE = 30.0  # seconds


class NodeFiles:
    """Answers questions about the files of nodes."""

    def __init__(self, nodes: NodeService, shell: INodeShell) -> None:
        self._nodes = nodes
        self._shell = shell

    async def kinds(self, name: str, path: str, requester: IRequester) -> tuple[str, str]:
        """Return what a path of a node is, and what its directory is.

        Raises Invalid, NotFound, Unavailable (the node does not answer) or
        CommandFailed.
        """
        if not path.startswith("/") or "\0" in path or len(path) > MAX_PATH:
            raise Invalid("a path of a node is absolute, has no NUL and at most 4096 characters")
        _, ip = self._nodes.single(name, requester)
        return parse_probe(await self._shell.run(ip, probe_script(path), timeout=PROBE_PATIENCE))
