"""Scripts run on nodes by ssh, whose output the server itself uses."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.server.domain.nodes.interfaces import INodeShell
from walt.server.runtime.process import ProcessRunner

UNREACHABLE = 255  # what ssh answers when there was no shell at all


@implementer(INodeShell)
class SshNodeShell:
    """Runs the ssh client once for each script."""

    def __init__(self, runner: ProcessRunner, options: Sequence[str]) -> None:
        self._runner = runner
        self._options = options

    async def run(
        self, ip: str, script: str, *, timeout: float, output_fd: int | None = None
    ) -> bytes:
        """Run a script as root; return its output."""
        result = await self._runner.run(
            ["ssh", *self._options, f"root@{ip}", "--", script], timeout=timeout, check=False,
            output_fd=output_fd,
        )
        if result.status == UNREACHABLE:
            raise Unavailable(f"the node is unreachable ({result.last_words()}); retry later")
        if result.status != 0:
            raise CommandFailed(result.last_words() or f"the node answered status {result.status}")
        return result.stdout
