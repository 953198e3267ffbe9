"""The pages of the VPN by HTTP, with what strangers try on them."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, PartialDownloadError, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.services import FakeBootFiles
from tests.fakes.vpn import (
    FakeAuthority,
    FakeHostKeys,
    FakeNeighbours,
    FakeSignatures,
    FakeVpnKeys,
)
from tests.patience import patient
from tests.server.domain.nodes.test_keys import key
from walt.server.adapters.tftpd.boot_files import BootFiles
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.vpn.enrolment import VpnNodes
from walt.server.domain.vpn.model import EntryPoints
from walt.server.http.site import make_site
from walt.server.http.vpn import BOOT_EVERY, vpn_pages
from walt.server.http.vpn_requesters import Requesters

ME, SERVER, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.9"
MAC = "d8:3a:dd:00:00:05"
IMAGE = bytes(range(256)) * 64


ENTRY_POINTS = EntryPoints("ssh.org", "web.org", "permissive")
KEY = "secret of root"


@implementer(IBodyProducer)
class Body:
    """The body of a request."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is sent already."""

    def resumeProducing(self) -> None:
        """It is sent already."""

    def stopProducing(self) -> None:
        """It is sent already."""


def form(name: str, value: str, file: bool = True) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an upload."""
    named = f'name="{name}"' + ('; filename="key.pub"' if file else "")
    text = (
        f"--edge\r\nContent-Disposition: form-data; {named}\r\n\r\n{value}\r\n--edge--\r\n"
    )
    return text.encode(), {"content-type": "multipart/form-data; boundary=edge"}


class VpnPagesTests(TestCase):
    timeout = patient(30)
    as_root = {"x_walt_requester_key": KEY}

    async def start(
        self, entry_points: EntryPoints | None = ENTRY_POINTS, model: str = "rpi-5-b",
        key: str = KEY,
    ) -> None:
        self.clock = Clock()
        self.watched: list[tuple[str, str, bool]] = []
        self.prepared: list[str] = []
        requesters = Requesters(SERVER, frozenset({"server", "web.org"}), lambda: key)
        self.registry = DeviceRegistry(FakeDeviceStore(
            Device(MAC, "pi", "node", ME, model=model, image="waltplatform/x:latest"),
            Device("d8:3a:dd:00:00:09", "pj", "node", OTHER, model="rpi-5-b",
                   image="waltplatform/x:latest"),
            Device("02:00:00:00:00:0a", "pc", "node", "127.0.0.10", model="pc-x86-64",
                   image="waltplatform/x:latest"),
        ), IPv4Network("127.0.0.0/24"))
        await self.registry.load()
        self.cable = FakeNeighbours({ME: MAC, SERVER: "02:00:00:00:00:01"})
        self.vpn = VpnNodes(
            self.registry, entry_points, FakeVpnKeys(), FakeAuthority(), self.cable,
            FakeHostKeys(), iter(["52:54:00:00:00:01", "52:54:00:00:00:02"]).__next__,
            lambda text: None, lambda device: None,
        )
        files = FakeBootFiles({
            (ME, "boot.img"): IMAGE, (OTHER, "boot.img"): b"other", (ME, "config.txt"): b"c",
            ("127.0.0.10", "kernel"): b"kernel",
        })
        site = make_site(files, vpn=lambda boot: vpn_pages(
            self.vpn, files, boot, FakeSignatures(), requesters=requesters, name="walt.example.org",
            seconds=self.clock.seconds,
        ), watch=lambda *words: self.watched.append(words),
            prepare=lambda node: self.prepared.append(node))
        self.port = reactor.listenTCP(0, site)  # type: ignore[attr-defined]
        self.addCleanup(self.port.stopListening)

    async def ask(
        self, path: str, body: bytes | None = None, host: str = ME, host_name: str = "",
        **headers: str,
    ) -> tuple[int, str]:
        """Return status and text of an answer: a request to an address comes from it, here."""
        agent = Agent(
            reactor, pool=HTTPConnectionPool(reactor, persistent=False), bindAddress=(host, 0)
        )
        response = await agent.request(
            b"GET" if body is None else b"POST",
            f"http://{host}:{self.port.getHost().port}/walt-vpn/{path}".encode(),
            Headers({name.replace("_", "-"): [value] for name, value in {
                "prefer": "errors=text-only", **({"host": host_name} if host_name else {}),
                **headers,
            }.items()}),
            None if body is None else Body(body),
        )
        try:
            text = await readBody(response)
        except PartialDownloadError as cut:  # a refusal without a length
            text = cut.response or b""
        return response.code, text.decode("latin-1")

    async def enrol(
        self, line: str = "", query: str = "", host: str = ME, **headers: str
    ) -> tuple[int, str]:
        body, kind = form("ssh-pubkey", line or key(1))
        return await self.ask(f"enroll{query}", body, host, **kind, **headers)

    async def test_a_board(self) -> None:
        """It asks what is configured, enrols, and asks again."""
        await self.start()
        for item, text in (
            ("ssh-entrypoint", "ssh.org"), ("http-entrypoint", "web.org"),
            ("boot-mode", "permissive"), ("vpn-mac", ""), ("ssh-pubkey-cert", ""),
            ("http-path", "walt-vpn/per-ip/127-0-0-1"),
            ("ssh-entrypoint-host-keys", "|1|hashed|ssh.org:22 ssh-ed25519 AAAA\n"),
            ("public.pem", "-----BEGIN PUBLIC KEY-----\n"),
        ):
            self.assertEqual(await self.ask(f"node-conf/{item}"), (200, text))
        self.assertEqual(await self.ask("server"), (200, "walt.example.org\n"))
        self.assertEqual(await self.enrol(), (200, "OK\n"))
        self.assertEqual(await self.ask("node-conf/vpn-mac"), (200, "52:54:00:00:00:01"))
        _, certificate = await self.ask("node-conf/ssh-pubkey-cert")
        self.assertIn("vpn_d83add000005", certificate)
        self.assertEqual(await self.enrol(key(2)), (200, "OK\n"))
        self.assertNotEqual((await self.ask("node-conf/ssh-pubkey-cert"))[1], certificate)

    async def test_without_vpn(self) -> None:
        """What is not configured is empty; nobody enrols."""
        await self.start(None)
        for item in ("ssh-entrypoint", "http-entrypoint", "boot-mode", "vpn-mac"):
            self.assertEqual(await self.ask(f"node-conf/{item}"), (200, ""))
        for answer in (await self.enrol(), await self.ask("node-conf/ssh-entrypoint-host-keys")):
            self.assertEqual(answer[0], 400)
            self.assertIn("server.conf", answer[1])

    async def test_refusals(self) -> None:
        """Not a board, no key, not a key, another's cable, a revoked key: 400, with the reason."""
        await self.start(model="rpi-4-b")
        for answer in (
            await self.enrol(), await self.ask("node-conf/vpn-mac"),
            await self.ask("node-conf/ssh-pubkey-cert"),
        ):
            self.assertEqual(answer[0], 400)
            self.assertIn("rpi-5-b", answer[1])
        await self.start()
        empty, kind = form("other", "x")
        for body, headers in ((empty, kind), (b"", {}), form("ssh-pubkey", " "), (b"x=y", {})):
            self.assertEqual(
                await self.ask("enroll", body, **headers), (400, "Public key not provided.\n")
            )
        self.assertEqual((await self.enrol("ssh-rsa AAAA"))[0], 400)
        self.assertEqual((await self.ask("enroll"))[0], 405)
        self.cable.macs[ME] = "02:00:00:00:00:66"
        self.assertIn("another machine", (await self.enrol())[1])
        self.cable.macs[ME] = MAC
        self.assertEqual(await self.enrol(), (200, "OK\n"))
        await self.vpn.revoke("vpn_d83add000005")
        status, text = await self.enrol()
        self.assertEqual((status, "revoked" in text), (400, True))
        self.assertEqual(
            json.loads((await self.enrol(prefer="errors=json"))[1]),
            {"error": text.strip(), "status_code": 400},
        )

    async def test_fake_requester(self) -> None:
        """Only root of the server's own machine speaks for others, and not through a proxy."""
        await self.start()
        query = f"?fake_requester_ip={OTHER}"
        self.assertEqual(await self.ask(f"node-conf/http-path{query}"),
                         (200, "walt-vpn/per-ip/127-0-0-1"))
        self.assertEqual(await self.enrol(query=query), (200, "OK\n"))
        self.assertEqual(self.vpn.vpn_mac(OTHER), "")
        for header in ("x_forwarded_for", "forwarded", "via", "x_real_ip"):
            for value in ("x", ""):
                status, _ = await self.enrol(
                    query=query, host=SERVER, **{header: value, **self.as_root}
                )
                self.assertEqual(status, 400)
        for wrong in ({}, {"x_walt_requester_key": ""}, {"x_walt_requester_key": "é"}):
            self.assertEqual((await self.enrol(query=query, host=SERVER, **wrong))[0], 400)
        self.assertEqual(await self.enrol(query=query, **self.as_root), (200, "OK\n"))
        self.assertEqual(
            (await self.enrol(query="?fake_requester_ip=x", host=SERVER, **self.as_root))[0], 400
        )
        self.assertEqual((await self.enrol(host=SERVER))[0], 400)
        self.assertEqual(self.vpn.vpn_mac(OTHER), "")
        self.assertEqual(
            await self.enrol(query=query, host=SERVER, **self.as_root), (200, "OK\n")
        )
        self.assertEqual(
            await self.ask(f"node-conf/vpn-mac{query}", host=SERVER, **self.as_root),
            (200, "52:54:00:00:00:02"),
        )

    async def test_no_key_of_root(self) -> None:
        """Before the key is made nobody has it."""
        await self.start(key="")
        query = f"?fake_requester_ip={OTHER}"
        for shown in ({}, {"x_walt_requester_key": ""}):
            self.assertEqual((await self.enrol(query=query, host=SERVER, **shown))[0], 400)

    async def test_pages_of_browsers(self) -> None:
        """A page of another site, or of a name that points here, neither enrols nor reads."""
        await self.start()
        for headers in (
            {"origin": "http://evil.org"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "none"}, {"host_name": "evil.org"}, {"host_name": "evil.org:80"},
        ):
            for answer in (
                await self.enrol(**headers), await self.ask("node-conf/vpn-mac", **headers),
                await self.ask("node-conf/ssh-pubkey-cert", **headers),
            ):
                self.assertEqual(answer[0], 403, headers)
        self.assertEqual(self.vpn.vpn_mac(ME), "")
        for host in ("server", "WEB.org:80", "10.0.0.1"):
            self.assertEqual(await self.ask("node-conf/vpn-mac", host_name=host), (200, ""))
        self.assertEqual(await self.enrol(host_name="server"), (200, "OK\n"))

    async def test_boot_files(self) -> None:
        """Whoever asks gets the image of a board, and its signature."""
        await self.start()
        for host in (ME, "127.0.0.77"):
            status, body = await self.ask("per-ip/127-0-0-1/boot.img", host=host)
            self.assertEqual((status, body.encode("latin-1")), (200, IMAGE))
        self.assertEqual(await self.ask("per-ip/127-0-0-9/boot.img"), (200, "other"))
        self.assertEqual(await self.ask("per-ip/127-0-0-1/config.txt"), (200, "c"))
        status, text = await self.ask("per-ip/127-0-0-1/boot.sig")
        self.assertEqual((status, text.splitlines()[1]), (200, "ts: 1"))

    async def test_boots_of_boards(self) -> None:
        """Who fetches an image again and again is one boot of a board, of an enrolled one."""
        await self.start()
        stranger = "127.0.0.77"

        async def fetch(*paths: str) -> None:
            for _ in range(20):
                for path in paths:
                    await self.ask(f"per-ip/127-0-0-1/{path}", host=stranger)

        await fetch("boot.img", "none")
        self.assertEqual((self.watched, self.prepared), ([], []))
        self.assertEqual(await self.enrol(), (200, "OK\n"))
        await fetch("config.txt", "none", "boot.img")
        self.assertEqual((self.watched, self.prepared), ([(ME, "boot.img", True)], [ME]))
        self.clock.advance(BOOT_EVERY)
        self.assertEqual((await self.ask("per-ip/127-0-0-1/boot.img"))[0], 200)
        self.assertEqual(len(self.prepared), 2)

    async def test_replaced_during_a_download(self) -> None:
        """Who has begun to read an image gets that one, whole; the next one gets the new one."""
        await self.start()
        state = Path(self.mktemp())
        place = state / "images" / ("a" * 12) / "fs" / "boot" / "rpi-5-b"
        (state / "nodes" / ME).mkdir(parents=True)
        (state / "nodes" / ME / "tftp").symlink_to(f"../../images/{'a' * 12}/fs/boot/rpi-5-b")
        place.mkdir(parents=True)
        old, new = b"old " * (4 << 20), b"new " * 1000
        (place / "boot.img").write_bytes(old)
        files = BootFiles(state)
        site = make_site(files, vpn=lambda boot: vpn_pages(
            self.vpn, files, boot, FakeSignatures(), name="x",
            requesters=Requesters(SERVER, frozenset(), str), seconds=self.clock.seconds,
        ))
        port = reactor.listenTCP(0, site)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        url = f"http://{ME}:{port.getHost().port}/walt-vpn/per-ip/127-0-0-1/boot.img".encode()
        response = await agent.request(b"GET", url)  # nothing of the body is read yet
        (place / "new").write_bytes(new)
        (place / "new").rename(place / "boot.img")
        self.assertEqual(await readBody(response), old)
        self.assertEqual(await readBody(await agent.request(b"GET", url)), new)

    async def test_paths_that_lead_nowhere(self) -> None:
        """Other nodes' files, climbing, odd addresses: there is no such file."""
        await self.start()
        for path in (
            "127-0-0-1/none", "127-0-0-1/", "127-0-0-1", "", "127-0-0-10/kernel",
            "127-0-0-10/boot.sig", "127.0.0.1/boot.img", "127-0-0-77/boot.img", "x/boot.img",
            "127-0-0-1/../127-0-0-9/boot.img", "127-0-0-1/%2e%2e/%2e%2e/etc/passwd",
            "127-0-0-1%2f..%2fboot.img", "..%2f..%2fetc/passwd", "127-0-0-9/boot.img%00",
            "999-0-0-1/boot.sig", "%ff/boot.sig", "-1/boot.sig",
        ):
            status, _ = await self.ask(f"per-ip/{path}")
            self.assertEqual(status, 404, path)
        for path in ("", "node-conf", "node-conf/", "node-conf/private.pem", "node-conf/../enroll",
                     "server/x/../../node-conf"):
            self.assertIn((await self.ask(path))[0], (200, 404), path)
        self.assertEqual((await self.ask("node-conf/private.pem"))[0], 404)

    async def test_large_and_broken_uploads(self) -> None:
        """More than a request may have, and forms that are none."""
        await self.start()
        body, kind = form("ssh-pubkey", "A" * 70_000)
        self.assertEqual((await self.ask("enroll", body, **kind))[0], 413)
        for broken in (b"--edge\r\n", b"--edge--", b"\0" * 100, body[:50]):
            status, _ = await self.ask("enroll", broken, **kind)
            self.assertEqual(status, 400)
        self.assertEqual(self.vpn.vpn_mac(ME), "")
