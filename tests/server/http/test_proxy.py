"""Boot files behind nginx: the configuration that is shipped, in a real nginx."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from importlib.resources import files
from ipaddress import IPv4Network
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from tests.patience import patient
from walt.common.errors import NotFound
from walt.server.domain.network_services.interfaces import BootFile
from walt.server.http.policy import Readers
from walt.server.http.site import make_site

NODES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


class Page(Resource):
    """What only those may read who may read about people's work."""

    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        return b"secret"


class Images:
    """Boot files of nodes: those of one image are the same files."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.image = dict.fromkeys(NODES[:2], "one") | {NODES[2]: "two"}
        self.sent = 0
        for name in ("one", "two"):
            (base / name).mkdir()
            (base / name / "kernel").write_bytes(name.encode() * 100_000)
            (base / name / "a b?%").write_bytes(name.encode())

    def open(self, node: str, path: str) -> BootFile:
        """See IBootFiles."""
        place = self.base / self.image[node] / path
        if not place.is_file():
            raise NotFound("no such file")
        self.sent += 1
        stream = place.open("rb")
        return BootFile(stream, place.stat().st_size)


class ProxyTests(TestCase):
    skip = None if shutil.which("nginx") else "needs nginx"
    timeout = patient(60)

    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="walt-proxy-"))
        self.base.chmod(0o755)  # nginx gives up root for its work
        self.addCleanup(shutil.rmtree, self.base)
        self.images = Images(self.base)
        self.asked: list[tuple[str, str, bool]] = []
        site = make_site(
            self.images, {"metrics": Page()}, watch=lambda *one: self.asked.append(one),  # type: ignore[arg-type]
            readers=Readers(frozenset(), (IPv4Network("127.0.0.1/32"),)),
        )
        listening = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(listening.stopListening)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        cache = self.base / "cache"
        shipped = files("walt.server.http").joinpath("nginx-boot.conf").read_text()
        config = self.base / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {self.base}/pid; error_log {self.base}/log;\n"
            f"events {{ worker_connections 64; }}\nhttp {{ access_log off;\n"
            + shipped.replace("192.168.183.1:80", f"127.0.0.1:{listening.getHost().port}")
            .replace("192.168.183.1", "127.0.0.1")
            .replace("listen 80", f"listen 127.0.0.1:{self.port}")
            .replace("/var/cache/nginx/walt", str(cache)) + "\n}\n"
        )
        nginx = subprocess.Popen(
            ["nginx", "-c", str(config), "-e", f"{self.base}/log"], stdin=subprocess.DEVNULL
        )
        self.addCleanup(deferToThread, nginx.wait)
        self.addCleanup(nginx.terminate)

    def ask(self, node: str, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask the proxy as a node does; return status and body."""
        for _ in range(patient(200)):
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=patient(20), source_address=(node, 0)
            )
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except ConnectionRefusedError:
                time.sleep(0.05)
            finally:
                connection.close()
        raise AssertionError((self.base / "log").read_text())

    def get(self, *words: str) -> Deferred[tuple[int, bytes]]:
        """Do so beside the server."""
        return deferToThread(self.ask, *words)

    async def test_a_file_once(self) -> None:
        """Each node gets the file of its image; the server sends one once, and knows who boots."""
        for node, image in ((NODES[0], b"one"), (NODES[1], b"one"), (NODES[2], b"two")):
            for _ in range(2):
                self.assertEqual(await self.get(node, "/boot/kernel"), (200, image * 100_000))
        heads = len(self.asked) - 2  # two files came from the server, each request was told
        self.assertEqual(heads, 6)
        self.assertEqual({node for node, _, _ in self.asked}, set(NODES))
        # Another image for a node: nothing of the former one is left.
        self.images.image[NODES[0]] = "two"
        self.assertEqual(await self.get(NODES[0], "/boot/kernel"), (200, b"two" * 100_000))
        status, body = await self.get(NODES[0], "/boot/kernel", "HEAD")
        self.assertEqual((status, body), (200, b""))

    async def test_what_is_not_there(self) -> None:
        """The server's own answer; other pages are not passed on."""
        status, body = await self.get(NODES[0], "/boot/none")
        self.assertEqual((status, b"No such file" in body), (404, True))
        self.assertEqual((await self.get(NODES[0], "/api/v1/nodes"))[0], 404)
        self.assertEqual((await self.get(NODES[0], "/walt-tag"))[0], 404)
        self.assertEqual((await self.get(NODES[0], "/boot/kernel", "POST"))[0], 403)

    async def test_ways_around(self) -> None:
        """The proxy may read more than nodes may: they do not get at it by paths."""
        for path in (
            "/metrics", "/metrics/../boot/kernel", "/metrics/..%2fboot/kernel",
            "//metrics/../boot/x",
            "/boot/../metrics", "/boot/%2e%2e/metrics", "/boot/..%2fmetrics", "/./boot/../metrics",
            "/metrics/%2e%2e/boot/kernel", "/boot//../../metrics", "/boot\\..\\metrics",
        ):
            status, body = await self.get(NODES[0], path)
            self.assertIn(status, (400, 404), path)
            self.assertNotIn(b"secret", body)

    async def test_odd_names(self) -> None:
        """Escapes come through as they are; nobody asks as another node."""
        for _ in range(2):
            self.assertEqual(await self.get(NODES[0], "/boot/a%20b%3f%25"), (200, b"one"))
        found = await self.get(NODES[0], f"/boot/kernel?node_ip={NODES[2]}")
        self.assertEqual(found, (200, b"one" * 100_000))
        self.assertEqual({node for node, _, _ in self.asked}, {NODES[0]})
