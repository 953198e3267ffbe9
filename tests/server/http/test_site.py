from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.fakes.services import FakeBootFiles
from tests.patience import patient
from walt.server.http.answers import preferred_format
from walt.server.http.peer_limits import MAX_BODY, CountedSite
from walt.server.http.sending import LEAST, MOST, TURN, Sending, share
from walt.server.http.site import make_site

BIG = bytes(range(256)) * 8192


class Page(Resource):
    """A page of another part of the server."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"api of " + b"/".join(request.postpath)


class ShareTests(SynchronousTestCase):
    def test_share(self) -> None:
        """One turn is bounded however many files are sent, and none of them waits for ever."""
        for files in range(1, 2000):
            self.assertLessEqual(LEAST, share(files))
            self.assertLessEqual(share(files), MOST)
            self.assertLessEqual(files * share(files), max(TURN, files * LEAST))


class SiteTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.files = FakeBootFiles({
            ("127.0.0.1", "start.ipxe"): b"#!ipxe\n",
            ("192.168.77.20", "kernel"): BIG,
            ("192.168.77.20", "a b/é"): b"odd",
            ("192.168.77.20", "empty"): b"",
        })
        self.asked: list[tuple[str, str, bool]] = []
        self.preparing: dict[str, Deferred[None]] = {}
        site = make_site(
            self.files, {"api": Page()}, watch=lambda *one: self.asked.append(one),
            prepare=self.preparing.get,
        )
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.agent = Agent(reactor, pool=pool)

    async def get(self, path: str, method: bytes = b"GET", **headers: str) -> tuple[Any, bytes]:
        """Return the response and its body."""
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}".encode()
        response = await self.agent.request(
            method, url, Headers({name: [value] for name, value in headers.items()})
        )
        return response, await readBody(response)

    async def raw(self, request: bytes) -> bytes:
        """Return what the server answers to these very bytes."""
        done: Deferred[bytes] = Deferred()

        class Collect(Protocol):
            def connectionMade(self) -> None:
                self.got = b""
                self.transport.write(request)  # type: ignore[union-attr]

            def dataReceived(self, data: bytes) -> None:
                self.got += data

            def connectionLost(self, reason: object = None) -> None:
                done.callback(self.got)

        creator = ClientCreator(reactor, Collect)
        await creator.connectTCP("127.0.0.1", self.port.getHost().port)
        return await done

    async def test_index(self) -> None:
        """The index page is recognised by tests of platforms."""
        for path in ("/", "/index.html"):
            response, body = await self.get(path)
            self.assertEqual(response.code, 200)
            self.assertIn(b"WalT server HTTP service", body)

    async def test_no_access_log(self) -> None:
        """Strangers do not decide how long the daemon's log is."""
        told: list[LogEvent] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        await self.get("/boot/start.ipxe")
        await self.get("/nothing")
        await self.raw(b"GET /nothing HTTP/1.0\r\n\r\n")
        self.assertEqual([event for event in told if "nothing" in formatEvent(event)
                          or "start.ipxe" in formatEvent(event)], [])

    async def test_boot_file_of_the_requester(self) -> None:
        """Without node_ip the requester's own address counts."""
        response, body = await self.get("/boot/start.ipxe")
        self.assertEqual((response.code, body), (200, b"#!ipxe\n"))
        self.assertEqual(response.length, 7)

    async def test_what_a_node_boots_is_prepared(self) -> None:
        """A file waits for the rest of what its node will want; who left gets none."""
        self.preparing["127.0.0.1"] = preparing = Deferred[None]()
        asking = Deferred.fromCoroutine(self.get("/boot/start.ipxe"))
        leaving = self.agent.request(
            b"GET", f"http://127.0.0.1:{self.port.getHost().port}/boot/start.ipxe".encode()
        )
        while len(self.asked) < 2:
            await deferLater(reactor, 0.01, lambda: None)
        leaving.cancel()
        await leaving.addErrback(lambda failure: None)
        await deferLater(reactor, 0.05, lambda: None)
        self.assertFalse(asking.called)
        preparing.callback(None)
        response, body = await asking
        self.assertEqual((response.code, body), (200, b"#!ipxe\n"))
        self.assertEqual(await self.get("/boot/start.ipxe") and self.asked[-1][2], True)

    async def test_node_ip(self) -> None:
        """node_ip replaces the address; big files come whole, with their length."""
        response, body = await self.get("/boot/kernel?node_ip=192.168.77.20")
        self.assertEqual((response.code, response.length), (200, len(BIG)))
        self.assertEqual(body, BIG)
        response, body = await self.get("/boot/empty?node_ip=192.168.77.20")
        self.assertEqual((response.code, response.length, body), (200, 0, b""))
        response, body = await self.get("/boot/a%20b/%C3%A9?node_ip=192.168.77.20")
        self.assertEqual(body, b"odd")

    async def test_head(self) -> None:
        """HEAD tells the length and sends nothing."""
        response, body = await self.get("/boot/kernel?node_ip=192.168.77.20", b"HEAD")
        self.assertEqual((response.code, body), (200, b""))
        self.assertEqual(
            response.headers.getRawHeaders("content-length"), [str(len(BIG))]
        )

    async def test_error_formats(self) -> None:
        """The header Prefer chooses between a page, plain text and JSON."""
        response, body = await self.get("/boot/absent")
        self.assertEqual(response.code, 404)
        self.assertIn(b"<html>", body)
        response, body = await self.get("/boot/absent", Prefer="errors=text-only")
        self.assertEqual((response.code, body), (404, b"No such file.\n"))
        self.assertIn("text/plain", response.headers.getRawHeaders("content-type")[0])
        response, body = await self.get("/boot/absent", Prefer="errors=json")
        self.assertEqual(json.loads(body), {"error": "No such file.", "status_code": 404})
        response, _ = await self.get("/nothing", Prefer="errors=text-only")
        self.assertEqual(response.code, 404)
        self.assertEqual(self.asked, 3 * [("127.0.0.1", "absent", False)])
        await self.get("/boot/start.ipxe")
        self.assertEqual(self.asked[3:], [("127.0.0.1", "start.ipxe", True)])

    async def test_bad_node_ip(self) -> None:
        """An address that is none is refused."""
        for text in ("..", "1.2.3", "", "%00", "::1", "192.168.77.20/24"):
            response, _ = await self.get(f"/boot/kernel?node_ip={text}x")
            self.assertEqual(response.code, 400, text)

    async def test_hostile_paths(self) -> None:
        """Parent directories, written in any way, and odd bytes are not found."""
        for path in ("../start.ipxe", "%2e%2e/start.ipxe", "x/..%2fstart.ipxe", "%00", "%ff%fe",
                     "start.ipxe%00", "", "a" * 5000):
            answer = await self.raw(
                b"GET /boot/" + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            self.assertTrue(answer.startswith(b"HTTP/1.1 404"), (path, answer[:60]))

    async def test_bodies(self) -> None:
        """A body is never kept: a long one, announced or not, ends the connection."""
        start = b"POST / HTTP/1.1\r\nHost: x\r\n"
        answer = await self.raw(start + b"Content-Length: 9999999999\r\n\r\nx")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"), answer)
        chunk = b"%x\r\n%s\r\n" % (MAX_BODY // 2, b"x" * (MAX_BODY // 2))
        answer = await self.raw(start + b"Transfer-Encoding: chunked\r\n\r\n" + 5 * chunk)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"), answer[:100])
        short = b"Connection: close\r\nContent-Length: 3\r\n\r\nabc"
        self.assertTrue((await self.raw(start + short)).startswith(b"HTTP/1.1 405"))

    async def test_other_pages(self) -> None:
        """Pages given by other parts are below their first path element."""
        _, body = await self.get("/api/v1/nodes")
        self.assertEqual(body, b"api of v1/nodes")

    async def test_requester_that_leaves(self) -> None:
        """A requester that leaves in the middle has the file closed, and nothing is logged."""
        huge = bytes(8 * 1024 * 1024)
        self.files.files[("127.0.0.1", "huge")] = huge
        opened = []
        original = self.files.open

        def spy(node: str, path: str) -> Any:
            opened.append(original(node, path))
            return opened[-1]

        self.files.open = spy  # type: ignore[method-assign]
        left: Deferred[None] = Deferred()

        class Leave(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"GET /boot/huge HTTP/1.1\r\nHost: x\r\n\r\n")  # type: ignore[union-attr]

            def dataReceived(self, data: bytes) -> None:
                self.transport.abortConnection()  # type: ignore[union-attr]

            def connectionLost(self, reason: object = None) -> None:
                left.callback(None)

        await ClientCreator(reactor, Leave).connectTCP("127.0.0.1", self.port.getHost().port)
        await left
        (file,) = opened
        while not file.stream.closed:  # as long as the test may last
            await deferLater(reactor, 0.01)
        self.assertEqual(Sending.under_way, 0)
        await self.get("/boot/huge")
        self.assertEqual(Sending.under_way, 0)


class PreferTests(SynchronousTestCase):
    def test_header(self) -> None:
        """Only the two known values count, whatever else is preferred."""
        for header, expected in (
            (None, "html"), ("errors=json", "json"), ("wait=1, errors=text-only", "text-only"),
            ('Errors="json"', "json"), ("errors=xml", "html"), ("errors", "html"), ("", "html"),
        ):
            self.assertEqual(preferred_format(header), expected)


class Places:
    """Counts connections; there is place for two."""

    open = 0

    def admit(self, address: str | None) -> bool:
        """Count one more."""
        self.open += 1
        return self.open <= 2 or bool(self.release(address))

    def release(self, address: str | None) -> None:
        """Count one less."""
        assert address == "192.168.77.20"
        self.open -= 1


class CountedSiteTests(SynchronousTestCase):
    def test_too_many(self) -> None:
        """What is too much is not taken; what ends makes place."""
        places = Places()
        site = CountedSite(make_site(FakeBootFiles({})), places)
        address = IPv4Address("TCP", "192.168.77.20", 1234)
        transports = []
        for _ in range(2):
            protocol = site.buildProtocol(address)
            assert protocol is not None
            transport = StringTransport(peerAddress=address)
            protocol.makeConnection(transport)
            transports.append((protocol, transport))
        self.assertIs(site.buildProtocol(address), None)
        protocol, transport = transports[0]
        protocol.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"200 OK", transport.value())
        for one, _ in transports:
            one.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(places.open, 0)
