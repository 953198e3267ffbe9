"""The web API, the metrics and the documentation, and who may read them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from tests.fakes.boots import FakeBoots
from tests.fakes.nodes import FakePower, FakeProvisioning
from tests.fakes.services import FakeBootFiles
from tests.patience import patient
from tests.server.streams.platform import EPOCH, NODE, Platform
from walt.server.domain.images.model import StoredImage
from walt.server.domain.logs.model import LogQuery
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.shares import MAX_WEB_READERS
from walt.server.http.api import READER_PATIENCE, Api, WebApi
from walt.server.http.pages import Documentation, Metrics
from walt.server.http.policy import Guarded, Readers
from walt.server.http.site import make_site
from walt.server.runtime.metrics import Metrics as Counters

reactor: Any = any_reactor
NAMES = frozenset({"localhost", "walt-server"})
SERVICE = {
    "name": "dhcpd", "state": "running", "running": True, "pid": 7, "restarts": 0,
    "status": None, "trouble": None, "trouble_time": None,
}
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float),
    "array": (list,), "object": (dict,), "null": (type(None),),
}


def mistakes(
    value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "it"
) -> Iterator[str]:
    """Yield what a value has that a schema does not say, as far as our document goes."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    allowed = tuple(one for kind in kinds for one in JSON_TYPES[kind])
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        yield f"{where} is {value!r}, not {kinds}"
    elif isinstance(value, dict) and "properties" in schema:
        missing = [one for one in schema.get("required", []) if one not in value]
        yield from (f"{where} lacks {one}" for one in missing)
        for name, one in value.items():
            if name not in schema["properties"]:
                yield f"{where}.{name} is not described"
            else:
                yield from mistakes(one, schema["properties"][name], document, f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from mistakes(one, schema["items"], document, f"{where}[]")


class Images:
    """The image service, as far as the pages go."""

    refreshed = 0

    def all(self) -> list[StoredImage]:
        return [
            StoredImage("alice/img:latest", "ab" * 32, labels={"walt.node.models": "pc-x86-64"}),
            StoredImage("bob/other:latest", "cd" * 32),
        ]

    async def refresh(self) -> None:
        self.refreshed += 1


class PagesTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.platform = Platform()
        self.images: Any = Images()
        self.counters = Counters()
        platform = self.platform
        self.views = NodeViews(
            platform.registry, platform.status, FakePower("at no switch"), FakeProvisioning(),
            BootProgress(
                platform.clock, platform.registry, FakeBoots({}), platform.status.is_booted,
                lambda image: None,
            ),
            Reservations(platform.clock), lambda device: device.virtual, reactor,
        )
        self.serve(Readers(NAMES))

    def serve(self, readers: Readers) -> None:
        """Open the site with a policy."""
        api = WebApi(
            self.platform.registry, self.views, self.images,
            self.platform.logs, lambda: [SERVICE],
            self.platform.clock,
        )
        site = make_site(FakeBootFiles({}), {
            "api": Guarded(readers, Api(api)),
            "metrics": Guarded(readers, Metrics(self.counters.page)),
            "doc": Documentation(),
        })
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    async def get(self, path: str, host: str = "localhost") -> tuple[int, bytes]:
        """Return status and body."""
        agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        response = await agent.request(
            b"GET", f"http://127.0.0.1:{self.port}{path}".encode(), Headers({"host": [host]})
        )
        return response.code, await readBody(response)

    async def json(self, path: str) -> Any:
        """Return the value of a page that must be there."""
        status, body = await self.get(path)
        self.assertEqual(status, 200, body)
        return json.loads(body)

    async def refused(self, path: str, status: int = 400) -> str:
        """Return the text of a refusal."""
        code, body = await self.get(path)
        self.assertEqual(code, status, path)
        self.assertNotIn(b"Traceback", body)
        return body.decode()

    async def shown(self) -> dict[str, Any]:
        """Return the tables that the walt command gets."""
        tables: dict[str, Any] = json.loads(
            b"".join(await self.views.tables("alice", show_all=True))
        )
        self.assertEqual(tables.pop("total"), sum(map(len, tables.values())))
        return tables

    async def test_rows_of_the_command(self) -> None:
        """What the command prints are the same values, fewer of them."""
        whole = await self.shown()
        listed = json.loads(b"".join(await self.views.listed("alice", show_all=True)))
        self.assertTrue(whole["own"] or whole["free"] or whole["others"])
        for kind, rows in whole.items():
            self.assertEqual(
                listed[kind], [[row[name] for name in listed["columns"]] for row in rows]
            )

    async def test_nodes(self) -> None:
        """All nodes, those of a filter, none."""
        found = await self.json("/api/v1/nodes")
        self.assertEqual(found["num_nodes"], 1)
        [node] = found["nodes"]
        [shown] = (await self.shown())["own"]
        self.assertEqual(node, json.loads(json.dumps(shown)))  # what the walt command gives
        for name, value in (
            ("booted", False), ("virtual", True), ("powersave", False), ("trouble", None),
            ("boot_stage", None), ("state", "off"), ("failure", None),
            ("image", "alice/img:latest"), ("image_name", "img"),
            ("owner", "alice"), ("clonable_image_link", "walt:alice/img"),
        ):
            self.assertIs(type(node[name]), type(value), name)
            self.assertEqual(node[name], value, name)
        self.assertEqual(
            [node["config"][name] for name in ("boot.retries", "kexec.allow", "boot.timeout")],
            [9, True, 720],
        )
        self.assertTrue(all(re.fullmatch("[a-z_]+", name) for name in node), node)
        self.assertEqual((node["name"], node["booted"]), (NODE.name, False))
        self.assertIsNone(node["trouble"])
        self.assertEqual(node["config"]["netsetup"], "LAN")
        for query, count in (
            ("virtual=true&booted=0", 1), ("name=node-1&model=&ip=", 1), ("booted=true", 0),
            ("name=node", 0), ("owner=alice&state=off", 1), ("owner=bob", 0), ("state=failed", 0),
        ):
            self.assertEqual((await self.json(f"/api/v1/nodes?{query}"))["num_nodes"], count)
        await self.refused("/api/v1/nodes?booted=maybe")
        self.assertIn("&lt;script&gt;", await self.refused("/api/v1/nodes?%3Cscript%3E=1"))
        await self.refused("/api/v1/nodes?name=%ff")

    async def test_openapi(self) -> None:
        """Answers are what the document says; it is the one of docs/."""
        told = await self.json("/api/v1/openapi.json")
        kept = Path(__file__).resolve().parents[3] / "docs/openapi.json"
        self.assertEqual(told, json.loads(kept.read_text()), "run: make docs")
        self.platform.logs.write(NODE.mac, "app", "line", timestamp=EPOCH - 5)
        queries = {"/logs": f"?from={EPOCH - 10}&to={EPOCH - 1}"}
        for path, entry in told["paths"].items():
            answer = await self.json(f"/api/v1{path}{queries.get(path, '')}")
            self.assertTrue(answer[path[1:]], path)
            schema = entry["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            self.assertEqual(list(mistakes(answer, schema, told)), [])
        for entry in told["paths"]:
            await self.refused(f"/api/v1{entry}?nothing=1")

    async def test_images(self) -> None:
        """All users' images; refresh reads the store again."""
        found = (await self.json("/api/v1/images?refresh=true"))["images"]
        self.assertEqual(self.images.refreshed, 1)
        self.assertEqual([(one["user"], one["in_use"]) for one in found],
                         [("alice", True), ("bob", False)])
        self.assertEqual((await self.json("/api/v1/images?in_use=true"))["num_images"], 1)
        await self.refused("/api/v1/images?size=3")

    async def test_logs(self) -> None:
        """Lines between two moments, in the unit asked."""
        start = EPOCH - 10
        for number, stream in ((1, "app"), (2, "app-2"), (3, "other")):
            self.platform.logs.write(
                NODE.mac, stream, f"line {number}", timestamp=start + number
            )
        found = await self.json(f"/api/v1/logs?from={start}&to={start + 9}")
        self.assertEqual(found["num_logs"], 3)
        self.assertEqual(found["logs"][0], {
            "timestamp": start + 1, "line": "line 1", "issuer": NODE.name, "stream": "app",
        })
        ms = (
            f"/api/v1/logs?from={start * 1000}&to={(start + 9) * 1000}&ts_unit=ms"
            f"&issuer={NODE.name}&stream=app"
        )
        found = await self.json(ms)
        self.assertEqual([one["timestamp"] for one in found["logs"]], [(start + 1) * 1000])
        self.assertEqual((await self.json(f"{ms}.*"))["num_logs"], 2)
        self.assertEqual(
            (await self.json(f"/api/v1/logs?from={start}&to={start}&issuer=nobody"))["num_logs"], 0
        )
        for bad in (
            "", "from=1", f"from={start}", f"from=x&to={start}", f"from=nan&to={start}",
            f"from={start}&to={EPOCH + 60}", f"from={start}&to={start}&ts_unit=h",
            f"from={start}&to={start}&what=1", f"from=1e400&to={start}",
            f"from={start}&to={start}&stream=(",
            # PostgreSQL would work on these for hours.
            f"from={start}&to={start}&stream=(a*)*\\1", f"from={start}&to={start}&stream=a)|(b",
            f"from={start}&to={start}&stream=((a%7B1,100%7D)%7B1,100%7D)%7B1,100%7D",
        ):
            await self.refused(f"/api/v1/logs?{bad}")

    async def test_other_pages(self) -> None:
        """The lists, the daemons, what is not there."""
        for path in ("/api", "/api/", "/api/index.html"):
            status, body = await self.get(path)
            self.assertEqual((status, b"/api/v1/nodes" in body), (200, True), path)
        self.assertEqual((await self.json("/api/v1/services"))["services"][0]["name"], "dhcpd")
        for path in ("/api/v1", "/api/v2/nodes", "/api/v1/nodes/x", "/api/v1/..", "/doc/../x"):
            await self.refused(path, 404)

    async def test_metrics(self) -> None:
        """What was counted, in Prometheus' format."""
        self.counters.call(b"cs.nodes.show", 0.25, "")
        self.counters.call(b"cs.nodes.show", 0.25, "DENIED")
        self.counters.gauge("walt_test", "A test", lambda: 7)
        status, body = await self.get("/metrics")
        self.assertEqual(status, 200)
        for line in (
            b'walt_rpc_call_seconds_count{command="cs.nodes.show"} 2.0', b"walt_test 7.0",
            b'walt_rpc_call_errors_total{code="DENIED",command="cs.nodes.show"} 1.0',
        ):
            self.assertIn(line, body)

    async def test_documentation(self) -> None:
        """The pages of `walt help`, quoted."""
        status, body = await self.get("/doc/")
        self.assertEqual((status, b"logging.html" in body), (200, True))
        status, body = await self.get("/doc/logging.html")
        self.assertEqual((status, b"<pre>" in body), (200, True))
        for path in ("/doc/nothing.html", "/doc/..%2f..%2fetc%2fpasswd", "/doc/logging.md"):
            await self.refused(path, 404)

    async def test_other_sites(self) -> None:
        """A page of another site cannot read through a browser of this machine."""
        for path in ("/api/v1/nodes", "/metrics", "/api"):
            status, body = await self.get(path, host="evil.example")
            self.assertEqual((status, b"node-1" in body), (403, False))
        for host, allowed in (("127.0.0.1", True), ("WALT-server:80", True), ("[::1]", False)):
            status = (await self.get("/metrics", host=host))[0]
            self.assertEqual(status, 200 if allowed else 403, host)

    async def test_readers(self) -> None:
        """The machine itself, the networks of the settings, everybody if told so."""
        class From:
            """A request from an address to another."""

            def __init__(self, peer: str, own: str = "192.168.1.1") -> None:
                self.peer, self.own = peer, own

            def getClientAddress(self) -> Any:
                return type("Address", (), {"host": self.peer})

            def getHost(self) -> Any:
                return type("Address", (), {"host": self.own})

            def getRequestHostname(self) -> bytes:
                return b"walt-server"

        lab = (IPv4Network("192.168.7.0/24"),)
        for readers, peer, allowed in (
            (Readers(NAMES), "127.0.0.1", True), (Readers(NAMES), "192.168.1.1", True),
            (Readers(NAMES), "192.168.1.2", False), (Readers(NAMES), "192.168.7.9", False),
            (Readers(NAMES, lab), "192.168.7.9", True), (Readers(NAMES, lab), "192.168.8.9", False),
            (Readers(NAMES, (), True), "10.1.1.1", True), (Readers(NAMES), "", False),
        ):
            refusal = readers.refusal(From(peer))  # type: ignore[arg-type]
            self.assertEqual(refusal is None, allowed, peer)

    async def test_reader_that_leaves(self) -> None:
        """The rest of the lines is not read, nothing is logged as a failure."""
        start = EPOCH - 1000
        for number in range(20_000):
            self.platform.logs.write(
                NODE.mac, "app", "x" * 200, timestamp=start + number / 100
            )
            if number % 1000 == 999:
                await self.platform.logs.flush()
                await deferLater(reactor, 0)
        done: Deferred[None] = Deferred()
        request = f"GET /api/v1/logs?from={start}&to={EPOCH} HTTP/1.1\r\nHost: localhost\r\n\r\n"

        class Leave(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(request.encode())

            def dataReceived(self, data: bytes) -> None:
                self.transport.abortConnection()  # type: ignore[union-attr]

            def connectionLost(self, reason: object = None) -> None:
                done.callback(None)

        reactor.connectTCP("127.0.0.1", self.port, ClientFactory.forProtocol(Leave))
        await done
        again = await self.json(f"/api/v1/logs?from={start}&to={start + 1}")
        self.assertGreater(again["num_logs"], 10)

    async def test_readers_that_take_nothing(self) -> None:
        """They are few, and closed after a minute; others are told so, and served afterwards."""
        start = EPOCH - 1000
        for number in range(8_000):
            self.platform.logs.write(
                NODE.mac, "app", "x" * 2000, timestamp=start + number / 100
            )
        path = f"/api/v1/logs?from={start}&to={EPOCH}"
        query = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

        class Silent(Protocol):
            def __init__(self) -> None:
                self.begun: Deferred[None] = Deferred()
                self.over: Deferred[None] = Deferred()

            def connectionMade(self) -> None:
                transport: Any = self.transport
                transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                transport.write(query)

            def dataReceived(self, data: bytes) -> None:
                if not self.begun.called:
                    self.transport.pauseProducing()  # type: ignore[union-attr]
                    self.begun.callback(None)

            def connectionLost(self, reason: object = None) -> None:
                self.over.callback(None)

        peers = []
        for _ in range(MAX_WEB_READERS):
            point = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            peer = Silent()
            await connectProtocol(point, peer)
            await peer.begun
            peers.append(peer)
        self.assertIn("is the limit", await self.refused(path, 503))
        # Lines and people do not wait for them.
        cursor, _ = await self.platform.logs.open(LogQuery(), "ann")
        await cursor.close()
        clock = self.platform.clock
        # Each of them is waited for, beside what else this clock is to call.
        while sum(
            call.getTime() >= clock.seconds() + READER_PATIENCE / 2
            for call in clock.getDelayedCalls()
        ) < MAX_WEB_READERS:
            await deferLater(reactor, 0.01)
        clock.advance(READER_PATIENCE)
        for peer in peers:
            peer.transport.resumeProducing()  # type: ignore[union-attr]
            await peer.over
        found = await self.json(f"/api/v1/logs?from={start}&to={start + 1}")
        self.assertGreater(found["num_logs"], 0)
