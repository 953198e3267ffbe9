"""What every INodeShell does: the fake that runs scripts here, and ssh to a real server."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts import ssh_server
from tests.contracts.contract import Contract
from tests.fakes.local_nodes import LocalShell
from tests.patience import patient
from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.ssh.shell import SshNodeShell
from walt.server.domain.nodes.interfaces import INodeShell
from walt.server.runtime.process import ProcessRunner

ABSENT = "127.0.0.9"


class NodeShellContract(Contract):
    """`make` returns an INodeShell to which 127.0.0.1 answers and ABSENT does not."""

    @abstractmethod
    async def make(self) -> INodeShell:
        """Given by each implementation; the class tells what."""

    async def test_scripts(self) -> None:
        """Output, quoting, output to a descriptor, failures with what was said."""
        shell = await self.make()
        verifyObject(INodeShell, shell)
        odd = "it's \"$HOME\" `x`"
        script = "printf %s 'it'\"'\"'s \"$HOME\" `x`'; exit 0"
        self.assertEqual(await shell.run("127.0.0.1", script, timeout=20), odd.encode())
        reading, writing = os.pipe()
        await shell.run("127.0.0.1", "echo to a pipe", timeout=20, output_fd=writing)
        os.close(writing)
        self.assertEqual(os.read(reading, 100), b"to a pipe\n")
        os.close(reading)
        for script, text in (("echo why >&2; exit 3", "why"), ("exit 3", "status 3")):
            failure = await self.assertFailure(self._start(shell, script), CommandFailed)
            self.assertIn(text, str(failure))

    async def test_no_answer(self) -> None:
        """An absent node, and a script that does not end."""
        shell = await self.make()
        for ip, script in ((ABSENT, "true"), ("127.0.0.1", "exec sleep 30")):
            await self.assertFailure(self._start(shell, script, ip, 2), Unavailable)

    @staticmethod
    def _start(shell: Any, script: str, ip: str = "127.0.0.1", timeout: float = 20) -> Any:
        return Deferred.fromCoroutine(shell.run(ip, script, timeout=timeout))


class FakeNodeShellTests(NodeShellContract, TestCase):
    timeout = patient(60)

    async def make(self) -> Any:
        shell = LocalShell(reactor)
        shell.down.add(ABSENT)
        return shell


class SshNodeShellTests(NodeShellContract, TestCase):
    timeout = patient(60)
    skip = ssh_server.why_not()

    async def make(self) -> Any:
        return SshNodeShell(ProcessRunner(reactor), await ssh_server.start(self))
