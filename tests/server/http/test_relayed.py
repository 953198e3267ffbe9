"""Sessions of browsers are good by the way they came in: own loopback, or the relay of a user."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.access import FakePeerAccounts, FakeWebSessions
from walt.common import frames
from walt.server.domain.access.web_model import Entry, Way, way_line, way_of_line
from walt.server.domain.access.web_sessions import WebSessions
from walt.server.domain.shares import Shares
from walt.server.http.peer_limits import CountedSite
from walt.server.http.relayed import MAX_LINE, RelayedSite
from walt.server.http.ui import make_ui_site
from walt.server.http.ui_policy import Doorkeeper
from walt.server.streams.base import Peer, StreamProtocol
from walt.server.streams.tcp_relay import WebRequest

PORT = 12381
HERE = f"http://127.0.0.1:{PORT}"
ALICE, BOB = Way("alice", "5e"), Way("bob", "60")


class Everybody:
    """Counts nobody."""

    def admit(self, address: str | None) -> bool:
        return True

    def release(self, address: str | None) -> None:
        pass


class WayTests(SynchronousTestCase):
    def setUp(self) -> None:
        seeds = itertools.count(1)
        self.sessions = WebSessions(
            FakeWebSessions(), lambda: 1e9, lambda size: next(seeds).to_bytes(size, "big"),
            lambda serial: True, lambda text: None,
        )
        self.accounts = FakePeerAccounts()
        self.accounts.open = {(40001, PORT): 1000, (40002, PORT): 1001, (40003, PORT): 0}
        clock = Clock()
        site = make_ui_site(Doorkeeper(self.sessions, self.accounts), lambda session, gone: None,  # type: ignore
                            clock, reactor=clock)
        self.own, self.relayed = CountedSite(site, Everybody()), RelayedSite(site, Everybody())

    def ask(
        self, path: str, body: object, way: Way | None, port: int = PORT, peer: int = 40001,
        **headers: str
    ) -> tuple[bytes, bytes]:
        """Return head and body of an answer to a page, by a relay or at a port of the server."""
        data = json.dumps(body)
        lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in {
            "host": HERE[7:], "origin": HERE, "sec-fetch-site": "same-origin",
            "content-type": "application/json", "content-length": str(len(data)), **headers,
        }.items())
        request = f"POST /ui/{path} HTTP/1.1\r\n{lines}\r\n{data}".encode()
        if way is None:
            address: Any = IPv4Address("TCP", "127.0.0.1", port)
            protocol: Any = self.own.buildProtocol(address)
        else:
            address = UNIXAddress("web.sock")
            protocol = self.relayed.buildProtocol(address)
            request = way_line(way) + request
        transport = StringTransport(
            hostAddress=address,
            peerAddress=IPv4Address("TCP", "127.0.0.1", peer) if way is None else address,
        )
        protocol.makeConnection(transport)
        for at in range(0, len(request), 7):
            protocol.dataReceived(request[at:at + 7])
        head, _, rest = transport.value().partition(b"\r\n\r\n")
        return head, rest

    def enter(self, entry: Entry) -> dict[str, str]:
        """Use a link; return what shows who one is."""
        code, _ = self.sessions.invite(entry)
        head, body = self.ask("login", {"code": code}, entry.way)
        cookie = head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        return {"cookie": cookie, "x_walt_key": json.loads(body)["key"]}

    def status(
        self, way: Way | None, shown: dict[str, str], port: int = PORT, peer: int = 40001
    ) -> int:
        """Return how the question who one is gets answered."""
        return int(self.ask("known", {}, way, port, peer, **shown)[0].split()[1])

    def test_relays(self) -> None:
        """What somebody caught at a port that was free is nothing by a relay of their own, nor at
        the port of the server.
        """
        shown = self.enter(Entry("alice", "5e", HERE, relayed=True))
        self.assertEqual(self.status(ALICE, shown), 200)
        for way in (BOB, Way("alice", "60"), Way("alice", None), Way("bob", None), None):
            self.assertEqual(self.status(way, shown), 403, way)
        self.assertEqual(self.status(ALICE, shown), 200)

    def test_own_loopback(self) -> None:
        shown = self.enter(Entry("alice", None, HERE))
        self.assertEqual(self.status(None, shown), 200)
        for way in (BOB, Way("alice", None), Way("bob", None)):
            self.assertEqual(self.status(way, shown), 403, way)

    def test_other_accounts(self) -> None:
        """What another account caught while the server did not run is nothing from there, nor
        from a connection that is closed, and so nobody's.
        """
        shown = self.enter(Entry("alice", None, HERE))
        for peer in (40002, 40003, 40004):
            self.assertEqual(self.status(None, shown, peer=peer), 403, peer)
        self.assertEqual(self.status(None, shown), 200)

    def test_a_port_of_somebody_else(self) -> None:
        """The server, whose port was taken, is at another one: it is not the one that was left."""
        shown = self.enter(Entry("alice", None, HERE))
        self.assertEqual(self.status(None, shown, port=40000), 403)

    def test_links(self) -> None:
        code, _ = self.sessions.invite(Entry("alice", "5e", HERE, relayed=True))
        self.ask("login", {"code": code}, BOB)
        head, _ = self.ask("login", {"code": code}, ALICE)
        self.assertEqual(head, b"")  # it is worth nothing any more: this is answered late

    def test_first_lines(self) -> None:
        """What does not say whose it is gets no answer."""
        for line in (b"POST / HTTP/1.1\r\n", b"[]\n", b'["a b", null]\n', b'["bob", 7]\n',
                     b"x" * (MAX_LINE + 1)):
            protocol: Any = self.relayed.buildProtocol(UNIXAddress("web.sock"))
            transport = StringTransport()
            protocol.makeConnection(transport)
            protocol.dataReceived(line)
            self.assertTrue(transport.disconnected, line)
            self.assertEqual(transport.value(), b"")
        for way in (ALICE, Way("bob", None)):
            self.assertEqual(way_of_line(way_line(way).strip()), way)


class WebRequestTests(SynchronousTestCase):
    def test_whose_it_is(self) -> None:
        """The pages are told what the connection proves, before anything that the client sends."""
        reactor = MemoryReactorClock()
        for peer, told in (
            (Peer(None, True, "alice", True, Shares(9, "streams"), "5e"), ALICE),
            (Peer(None, True, "root", False), Way("alice", None)),
        ):
            stream = StreamProtocol({"REQ_WEB": lambda connection, peer: WebRequest(
                Path("web.sock"), reactor, connection, peer
            )}, peer, reactor)
            stream.makeConnection(StringTransport())
            stream.dataReceived(b'REQ_WEB\n{"username": "alice", "serial": "60"}\n')
            stream.dataReceived(frames.encode(frames.DATA, way_line(BOB)))
            site = StringTransport()
            reactor.unixClients.pop()[1].buildProtocol(None).makeConnection(site)
            self.assertEqual(site.value(), way_line(told) + way_line(BOB))
