"""The stop of a server, when something in it does not end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walt.server.assembly.server import WaltServer
from walt.server.assembly.undoing import UNDO_LIMIT
from walt.server.config.load import parse


class StopTests(SynchronousTestCase):
    def test_what_does_not_end(self) -> None:
        """The stop goes on without, whatever kind of wait it is, and tells which it was."""
        clock: Any = Clock()
        server = WaltServer(clock, parse("network:\n  walt-net:\n    ip: 192.168.183.1/24\n"))
        stopped: list[str] = []

        async def coroutine() -> None:
            await Deferred()

        server._undos.plan("last", lambda: stopped.append("last"))
        server._undos.plan("machines", lambda: Deferred())
        server._undos.plan("between", lambda: stopped.append("between"))
        server._undos.plan("nodes", coroutine)
        stopping = server.stopService()
        clock.advance(UNDO_LIMIT)
        self.assertEqual(stopped, ["between"])
        self.assertNoResult(stopping)
        clock.advance(UNDO_LIMIT)
        self.successResultOf(stopping)
        self.assertEqual(stopped, ["between", "last"])
