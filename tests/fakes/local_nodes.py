"""Nodes that are this machine: scripts run here, by a shell, without ssh."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.ssh.sessions import SshSessions
from walt.server.domain.nodes.interfaces import INodeQuestions, INodeShell
from walt.server.runtime.process import Launcher, ProcessRunner


class LocalLauncher(Launcher):
    """Runs the command given to ssh here; without command, a shell."""

    def command(self, argv: Any, **options: Any) -> list[str]:
        """Return what to execute in place of an ssh client."""
        script = argv[argv.index("--") + 1] if "--" in argv else "exec sh -i"
        # As with sshd, its processes are a group.
        session = ["setsid", "--"] if options.get("new_session", True) else []
        return [*session, "/bin/sh", "-c", script]


def local_sessions(reactor: Any) -> SshSessions:
    """Return ISessions whose programs run here."""
    return SshSessions(reactor, LocalLauncher(), [])


@implementer(INodeShell)
class LocalShell:
    """Runs scripts here; `down` addresses do not answer."""

    def __init__(self, reactor: Any) -> None:
        self._runner = ProcessRunner(reactor)
        self.down: set[str] = set()

    async def run(
        self, ip: str, script: str, *, timeout: float, output_fd: int | None = None
    ) -> bytes:
        """Run a script."""
        if ip in self.down:
            raise Unavailable("the node is unreachable; retry later")
        result = await self._runner.run(
            ["sh", "-c", script], timeout=timeout, check=False, output_fd=output_fd
        )
        if result.status != 0:
            raise CommandFailed(result.last_words() or f"the node answered status {result.status}")
        return result.stdout


@implementer(INodeQuestions)
class LocalQuestions:
    """Answers questions here; notes the addresses asked, and those whose shell was closed."""

    def __init__(self, reactor: Any) -> None:
        self._shell = LocalShell(reactor)
        self.down = self._shell.down
        self.asked: list[str] = []
        self.closed: list[str] = []

    async def ask(self, ip: str, script: str, *, timeout: float) -> bytes:
        """Run a script, its error output apart."""
        self.asked.append(ip)
        answer = await self._shell.run(ip, f"exec </dev/null; {script}", timeout=timeout)
        if len(answer) > 1 << 20:
            raise CommandFailed("the answer of the node is too long")
        return answer

    def close(self, ip: str) -> None:
        """Note it."""
        self.closed.append(ip)
