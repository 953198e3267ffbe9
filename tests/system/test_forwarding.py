"""Names of the outside: the live server's named asks whom the machine asks."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from walt.server.adapters.network.namespace import inside

UPSTREAM = "10.99.99.53"
NAME, ADDRESS = "www.example.test", "10.1.2.3"


class Upstream(DatagramProtocol):
    """Knows one name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        message = dns.Message()
        message.fromStr(data)
        name = message.queries[0].name.name.decode().lower()
        self.asked.append(name)
        message.answer = message.recAv = 1
        message.additional = []
        if name == NAME and message.queries[0].type == dns.A:
            message.answers = [dns.RRHeader(name, dns.A, ttl=60, payload=dns.Record_A(ADDRESS))]
        elif name != NAME:
            message.rCode = dns.ENAME
        assert self.transport is not None
        self.transport.write(message.toStr(), addr)


class ForwardingTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_names_of_the_outside(self) -> None:
        """They are asked of the server that resolv.conf names, those of walt-net never."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor, own_namespace=False)
        namespace, run = platform.namespace, platform.runner.run
        await run(["ip", "netns", "add", namespace])
        self.addCleanup(run, ["ip", "netns", "del", namespace], check=False)
        for words in (
            ["link", "set", "lo", "up"], ["address", "add", f"{UPSTREAM}/32", "dev", "lo"],
        ):
            await run(["ip", "-n", namespace, *words])
        # `ip netns exec` puts what is there over /etc (ip-netns(8)).
        settings = Path("/etc/netns") / namespace
        settings.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, settings)
        (settings / "resolv.conf").write_text(f"nameserver {UPSTREAM}\n")
        platform.enter = ["ip", "netns", "exec", namespace]
        with inside(f"/run/netns/{namespace}"):
            there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(there.close)
        there.setblocking(False)
        there.bind((UPSTREAM, 53))
        upstream = Upstream()
        listener: Any = reactor
        port = listener.adoptDatagramPort(there.fileno(), socket.AF_INET, upstream)
        self.addCleanup(port.stopListening)
        self.addCleanup(platform.close)
        await platform.start()

        async def asked(name: str) -> str:
            done = await run([
                "nsenter", f"--net=/run/netns/{namespace}", "--", "dig", "+short", "+time=2",
                "+tries=1", f"@{platform.net}.1", name,
            ], check=False)
            return done.stdout.decode().strip()

        async def is_known() -> bool:
            return await asked(NAME) == ADDRESS

        await platform.until(is_known, "a name of the outside is known", 30)
        self.assertIn(NAME, upstream.asked)
        self.assertEqual(await asked("server.walt"), f"{platform.net}.1")
        self.assertEqual(await asked("nobody.walt"), "")
        self.assertEqual([name for name in upstream.asked if name.endswith("walt")], [])
