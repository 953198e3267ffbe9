"""What viewers cost: crowd.py serve CHANGES SECONDS serves a topic as the server does, from a
process of its own, and prints its CPU; crowd.py watch PORT COUNT SECONDS takes it by many sockets.

Rows change at a steady rate, which is no part of what is measured: with one viewer and with a
hundred, the differences, their one encoding, the WebSockets and the system calls are all there is.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from walt.server.domain.access.web_model import Entry, WebSession
from walt.server.domain.topics import Topic
from walt.server.http.tab import Tab
from walt.server.http.websocket import WebSocket, text_message
from walt.server.runtime.turns import TurnMonitor

NODES = 1000
EVERY = 0.02  # seconds between two moments at which rows change
MASK = bytes(4)  # RFC 6455 §5.3: browsers mask what they send

reactor: Any = installed


class _Calls:
    """No calls are made."""

    def call(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        """Never called."""

    def end(self) -> None:
        """Nothing is open."""


class Sockets(Factory):
    """Connections that are WebSockets from their first byte on: the handshake is not measured."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    def buildProtocol(self, addr: IAddress) -> Any:
        """Return one tab."""
        session = WebSession("", "", Entry("ann", None, ""), 0.0, 0.0)
        return WebSocket(Tab(
            session, {self._topic.name: self._topic}, lambda session, send: _Calls(),
            cast(Any, None), {"user": "ann"},
        ), reactor)


def serve(changes: int, seconds: float) -> None:
    """Serve for some seconds from the first word of standard input on; print what it cost."""
    base: dict[str, Any] = {
        "name": "node-000001", "ip": "10.0.0.1", "type": "physical", "model": "pc-x86-64",
        "image_name": "image", "owner": "ann", "clonable_image_link": "walt:ann/image",
        "netsetup": "LAN", "booted": True, "powersave": False, "trouble": None,
        "reserved_by": None, "reserved_until": None, "mac": "02:00:00:00:00:01",
        "state": "booted", "stage": None, "failure": None, "switch": "access", "port": "g1",
    }
    rows = {str(number): json.dumps(base) for number in range(NODES)}

    async def ask() -> dict[str, str]:
        return rows

    topic = Topic("nodes", ask, text_message, reactor)
    port = reactor.listenTCP(0, Sockets(topic), interface="127.0.0.1", backlog=200)
    number = 0

    def change() -> None:
        nonlocal number
        for _ in range(int(changes * EVERY)):
            number += 1
            rows[str(number % NODES)] = json.dumps({**base, "stage": str(number)})
            topic.changed()

    monitor = TurnMonitor(reactor, lambda spent, stack: None)

    def begin() -> None:
        sys.stdin.readline()  # the viewers are there
        monitor.start()
        LoopingCall(change).start(EVERY)
        before = time.process_time()

        def end() -> None:
            spent = time.process_time() - before
            print(json.dumps({"cpu": spent / seconds, "turn": monitor.longest}), flush=True)
            reactor.stop()

        reactor.callLater(seconds, end)

    print(port.getHost().port, flush=True)
    # Viewers connect meanwhile: their rows are sent before anything is measured.
    reactor.callLater(5, begin)
    reactor.run()


def watch(port: int, count: int, seconds: float) -> None:
    """Follow the nodes by sockets; print how many bytes the one got that got the least."""
    selector = selectors.DefaultSelector()
    got: dict[socket.socket, int] = {}
    text = b'{"watch": ["nodes"]}'
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), 30)
        connection.sendall(b"\x81" + bytes([128 | len(text)]) + MASK + text)
        got[connection] = 0
        selector.register(connection, selectors.EVENT_READ)
    end = time.monotonic() + seconds
    while time.monotonic() < end and got:
        for key, _ in selector.select(0.2):
            connection = cast(socket.socket, key.fileobj)
            data = connection.recv(1 << 20)
            if not data:
                selector.unregister(connection)
                print(min(got.values()), flush=True)
                return
            got[connection] += len(data)
    print(min(got.values()), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), float(sys.argv[3]))
    else:
        watch(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
