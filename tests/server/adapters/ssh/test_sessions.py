"""Sessions: real programs in place of ssh, with their input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from walt.server.adapters.ssh.sessions import SshSessions
from walt.server.domain.nodes.sessions import Terminal
from walt.server.runtime.process import Launcher


class _Instead(Launcher):
    """Starts a shell command in place of the ssh client."""

    def __new__(cls, text: str) -> _Instead:
        return super().__new__(cls)

    def __init__(self, text: str) -> None:
        super().__init__(None)
        object.__setattr__(self, "text", text)

    def command(self, argv: Any, **options: Any) -> list[str]:
        return ["/bin/sh", "-c", self.text]  # type: ignore[attr-defined]


class _Client:
    """The producer that a session slows down."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.paused: Deferred[None] = Deferred()
        self.resumed: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self.events.append("pause")
        if not self.paused.called:
            self.paused.callback(None)

    def resumeProducing(self) -> None:
        self.events.append("resume")
        if not self.resumed.called:
            self.resumed.callback(None)


class SessionTests(TestCase):
    timeout = patient(30)

    def _start(self, text: str, terminal: Terminal | None = None) -> Any:
        from twisted.internet import reactor

        self.reactor = reactor
        self.output, self.errors = bytearray(), bytearray()
        self.ended: Deferred[int] = Deferred()
        sessions = SshSessions(reactor, _Instead(text), [])
        return sessions.node_command(
            "192.0.2.1", "", node_terminal=False, terminal=terminal, output=self.output.extend,
            errors=self.errors.extend, ended=self.ended.callback,
        )

    async def test_pipes(self) -> None:
        """Input reaches the program, its outputs stay apart, its status is told."""
        session = self._start("cat; echo oops >&2; exit 9")
        session.write(b"hello\n")
        session.end_of_input()
        self.assertEqual(await self.ended, 9)
        self.assertEqual((bytes(self.output), bytes(self.errors)), (b"hello\n", b"oops\n"))

    async def test_slow_program_slows_its_client_down(self) -> None:
        """A client that gives more than the program reads is paused, then resumed."""
        session = self._start("read start; cat > /dev/null; exit 4")
        client = _Client()
        session.throttle(client)
        session.write(bytes(1 << 20))
        await client.paused
        session.write(b"\n")
        await client.resumed
        session.end_of_input()
        self.assertEqual(await self.ended, 4)

    async def test_program_that_ends_first(self) -> None:
        """The end of the program leaves the client connected, and not paused."""
        session = self._start("sleep 0.2; exit 0")
        client = _Client()
        session.throttle(client)
        session.write(bytes(1 << 20))
        self.assertEqual(await self.ended, 0)
        await deferLater(self.reactor, 0, lambda: None)
        self.assertEqual(client.events[-1], "resume")

    async def test_terminal(self) -> None:
        """With a terminal the program has one of the client's size, which may change."""
        session = self._start("stty size; read go; stty size", Terminal("xterm", 24, 80))
        while b"24 80" not in self.output:
            await deferLater(self.reactor, 0.05, lambda: None)
        session.resize(30, 100)
        session.write(b"\n")
        self.assertEqual(await self.ended, 0)
        self.assertIn(b"30 100", self.output)

    async def test_lost_client(self) -> None:
        """A session that is closed ends its program."""
        session = self._start("exec sleep 60")
        session.pause()
        session.resume()
        session.close()
        self.assertEqual(await self.ended, 128 + 9)

    async def test_empty_input(self) -> None:
        """Input without bytes changes nothing: the end of the program is still seen."""
        for terminal in (None, Terminal("dumb", 24, 80)):
            session = self._start("read line; exit 7", terminal)
            session.write(b"")
            session.write(b"line\n")
            session.write(b"")
            self.assertEqual(await self.ended, 7)
        go_on = self.mktemp()
        session = self._start(
            f"read line; echo got; until [ -e {go_on} ]; do sleep 0.02; done; exit 7"
        )
        session.write(b"line\n")
        while b"got" not in self.output:
            await deferLater(self.reactor, 0.01)
        session.write(b"")  # nothing is on its way: Twisted watches for the end only
        Path(go_on).touch()
        self.assertEqual(await self.ended, 7)
