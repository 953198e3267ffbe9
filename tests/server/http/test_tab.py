"""Tabs: what they say, and that nothing of them stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from walt.common.errors import LimitExceeded
from walt.server.domain.access.web_model import Entry, WebSession
from walt.server.domain.topics import Topic
from walt.server.http.tab import BAD_MESSAGE, NOT_IN, Tab
from walt.server.http.websocket import WebSocket, text_message

SESSION = WebSession("c0", "4e", Entry("ann", None, "http://127.0.0.1:12381"), 1e9, 1e9)


class Calls:
    """Serves nothing."""

    ended = 0

    def call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        """Nobody calls."""

    def end(self) -> None:
        self.ended += 1


def too_many(session: WebSession, send: Callable[[str], object]) -> Calls:
    """Refuse."""
    raise LimitExceeded("there are too many sessions of ann")


class TabTests(SynchronousTestCase):
    def open(self, make: Callable[..., Calls] | None = None) -> Tab:
        """Return a tab whose socket is open."""
        self.clock, self.transport, self.calls = Clock(), StringTransport(), Calls()
        self.gone: list[Tab] = []
        self.browser = Connection(ConnectionType.CLIENT)

        async def rows() -> dict[str, str]:
            return {"a": "1"}

        self.topic = Topic("things", rows, text_message, self.clock)
        tab = Tab(
            SESSION, {"things": self.topic}, make or (lambda session, send: self.calls),
            lambda *_: self.fail("no stream is wanted"), {}, self.gone.append,
        )
        self.socket = WebSocket(tab, self.clock)
        self.socket.makeConnection(self.transport)
        return tab

    def heard(self) -> list[Any]:
        """Return what the browser was told since the last time; of an end, its code."""
        self.browser.receive_data(self.transport.value())
        self.transport.clear()
        return [
            int(one.code) if isinstance(one, CloseConnection) else json.loads(one.data)
            for one in self.browser.events() if isinstance(one, CloseConnection | TextMessage)
        ]

    def test_refused(self) -> None:
        """Who gets no session is gone like the others."""
        tab = self.open(too_many)
        self.assertEqual(self.heard(), [BAD_MESSAGE])
        self.assertEqual(self.gone, [])
        self.socket.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.gone, [tab])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages_without_sense(self) -> None:
        """They end the tab, and nothing else."""
        for text in ('{"watch": [[]]}', '{"watch": [{}]}', '{"watch": ["things", 1]}',
                     '{"watch": "things"}', '{"watch": null}', '{"watch": ["passwd"]}',
                     '{"call": 1, "command": []}', '{"call": [], "command": "x"}',
                     '{"open": {}, "request": "x", "parameters": {}}',
                     '{"open": 1, "request": ["x"], "parameters": {}}', '{"close": []}', "[]"):
            self.open()
            self.socket.dataReceived(self.browser.send(TextMessage(text)))
            self.assertEqual(self.heard(), [{"hello": {}}, BAD_MESSAGE], text)

    def test_over(self) -> None:
        """The session ends, then the connection: that is one end."""
        tab = self.open()
        self.assertEqual(self.heard(), [{"hello": {}}])
        self.socket.dataReceived(self.browser.send(TextMessage('{"watch": ["things"]}')))
        self.assertEqual(self.heard(), [{"topic": "things", "rows": {"a": 1}}])
        tab.end()
        self.assertEqual(self.heard(), [NOT_IN])
        self.socket.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.gone, self.calls.ended), ([tab], 1))
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
