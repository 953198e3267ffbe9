"""Real registries for tests: docker-registry children, plain, with accounts, with TLS."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

_CONFIG = """version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {root}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""
# walter, secret: bcrypt, the only form that the registry takes.
ACCOUNT = "walter:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def why_not() -> str | None:
    """Return why no registry can run here."""
    return None if shutil.which("docker-registry") else "needs docker-registry"


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class TestRegistry:
    """One docker-registry on a port of the loopback address, in its own directory."""

    def __init__(
        self, reactor: Any, base: Path, *, accounts: bool = False,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.reactor = reactor
        self.port = free_port()
        self.root = base / f"registry-{self.port}"
        self.root.mkdir()
        text = _CONFIG.format(root=self.root / "data", port=self.port)
        if accounts:
            (self.root / "accounts").write_text(ACCOUNT)
            text += f"auth:\n  htpasswd:\n    realm: test\n    path: {self.root / 'accounts'}\n"
        if certificate is not None:
            lines = f"  tls:\n    certificate: {certificate[0]}\n    key: {certificate[1]}\n"
            text = text.replace(f"{self.port}\n", f"{self.port}\n{lines}", 1)
        config = self.root / "config.yml"
        config.write_text(text)
        self.child = ChildService(reactor, Launcher(), ChildSpec(
            "registry", ("docker-registry", "serve", str(config))
        ))

    @property
    def host(self) -> str:
        """Host and port, as references name it."""
        return f"127.0.0.1:{self.port}"

    def settings(self, label: str, **more: Any) -> str:
        """Return an entry of `registries` in server.conf."""
        values = {
            "label": label, "api": "docker-registry-v2", "host": "127.0.0.1", "port": self.port,
            "protocol": "http", "auth": "none", **more,
        }
        lines = [f"{name}: {value}" for name, value in values.items()]
        return "- " + "\n  ".join(lines) + "\n"

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self.child.startService()
        limit = self.reactor.seconds() + 20
        while not await self._listens():
            if self.reactor.seconds() > limit:
                raise AssertionError("the registry does not listen")
            await deferLater(self.reactor, 0.1, lambda: None)

    async def _listens(self) -> bool:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port, timeout=2)
        try:
            made = await endpoint.connect(Factory.forProtocol(Protocol))
        except Exception:
            return False
        made.transport.loseConnection()
        return True

    def stop(self) -> Any:
        """End it."""
        return self.child.stopService()


class _JfrogFront(Resource):
    """What JFrog Artifactory answers, made of what a registry behind it answers.

    Images are those of `repository`; their catalogue has no other place than
    `/v2/<repository>/_catalog`, and its names lack the repository (spec server §5.6).
    """

    isLeaf = True

    def __init__(self, reactor: Any, registry: TestRegistry, repository: str) -> None:
        super().__init__()
        self._agent = Agent(reactor)
        self._registry = registry
        self._top = f"/v2/{repository}/"
        self._prefix = f"{repository}/"
        self.catalogues = 0

    def render(self, request: Any) -> Any:
        """Pass a request on."""
        Deferred.fromCoroutine(self._pass_on(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _pass_on(self, request: Any) -> None:
        uri = request.uri.decode()
        catalogue = uri.startswith(f"{self._top}_catalog")
        if catalogue:
            self.catalogues += 1
            uri = uri.replace(self._top, "/v2/", 1)
        elif uri != "/v2/" and not uri.startswith(self._top):
            uri = "/v2/nothing/of/that/name"
        headers = request.requestHeaders
        headers.setRawHeaders(b"x-forwarded-host", headers.getRawHeaders(b"host"))
        for name in ("transfer-encoding", "content-length", "connection", "expect"):
            headers.removeHeader(name.encode())
        answer = await self._agent.request(
            request.method, f"http://{self._registry.host}{uri}".encode(), headers,
            FileBodyProducer(request.content),
        )
        body = await readBody(answer)
        if catalogue and answer.code == 200:
            body = self._shortened(body)
        request.setResponseCode(answer.code)
        for name, values in answer.headers.getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        size = answer.length if request.method == b"HEAD" else len(body)
        request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % size])
        request.write(body)
        request.finish()

    def _shortened(self, body: bytes) -> bytes:
        """Take the repository off the names of a catalogue, others off the list."""
        names = json.loads(body)["repositories"]
        return json.dumps({"repositories": [
            one[len(self._prefix):] for one in names if one.startswith(self._prefix)
        ]}).encode()


class PlainSite(Site):
    """A site that closes at once what begins as TLS: skopeo tries that first."""

    def buildProtocol(self, addr: Any) -> Any:
        """Look at the first byte."""
        made: Any = super().buildProtocol(addr)
        received, connected = made.dataReceived, made.makeConnection

        def make_connection(transport: Any) -> None:
            def first(data: bytes) -> None:
                made.dataReceived = received
                if data.startswith(b"\x16"):
                    transport.abortConnection()
                else:
                    received(data)

            made.dataReceived = first
            connected(transport)

        made.makeConnection = make_connection
        return made


class TestJfrog(TestRegistry):
    """The protocol of JFrog Artifactory: a front, with a real registry behind."""

    def __init__(self, reactor: Any, base: Path, repository: str, **options: Any) -> None:
        super().__init__(reactor, base, **options)
        self.repository = repository
        self.front = _JfrogFront(reactor, self, repository)
        self.listening = reactor.listenTCP(0, PlainSite(self.front), interface="127.0.0.1")
        self.front_port: int = self.listening.getHost().port

    def settings(self, label: str, **more: Any) -> str:
        """Return an entry of `registries` in server.conf."""
        return super().settings(label, **{
            "api": "jfrog-artifactory", "port": self.front_port,
            "repository": self.repository, **more,
        })

    async def stop(self) -> None:
        """End it."""
        await maybeDeferred(self.listening.stopListening)
        await super().stop()
