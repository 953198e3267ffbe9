"""The console of a machine whose end must be seen, whatever was typed."""

from __future__ import annotations

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from walt.server.adapters.qemu import hypervisor


class ConsoleTests(TestCase):
    timeout = patient(30)

    async def test_empty_input(self) -> None:
        """Typing no bytes does not hide the end of the machine."""
        ended: Deferred[str] = Deferred()
        machine = hypervisor._Machine(lambda data: None, ended.callback)
        argv = ["/bin/sh", "-c", "exec sleep 60"]
        any_reactor.spawnProcess(machine, argv[0], argv, {})  # type: ignore[attr-defined]
        machine.write(b"x")
        await deferLater(any_reactor, 0.05)  # type: ignore[arg-type]
        machine.write(b"")
        machine.kill()
        self.assertIn("status 137", await ended)
