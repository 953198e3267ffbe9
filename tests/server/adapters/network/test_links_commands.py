"""What Links tells iproute2 and dhclient where the real ones cannot run in tests."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.server.adapters.network.links import Links
from walt.server.adapters.network.plans import LinkPlan
from walt.server.runtime.process import ProcessResult

ETH0 = b'[{"ifname": "eth0", "address": "02:00:00:00:00:01", "addr_info": []}]'


class Recorder:
    """Stands for ProcessRunner: shows one interface, remembers the rest."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.others: list[Sequence[str]] = []

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", **more: Any) -> ProcessResult:
        """Take one command."""
        if argv[:2] == ["ip", "-batch"]:
            self.batches.append(stdin.decode().splitlines())
        elif argv[0] != "ip":
            self.others.append(argv)
        return ProcessResult(tuple(argv), 0, ETH0, b"")


class LinksCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.state: Path = short_dir(self)
        self.recorder = Recorder()
        self.links = Links(Clock(), self.recorder, self.state)  # type: ignore[arg-type]

    def do(self, coroutine: Any) -> None:
        self.successResultOf(Deferred.fromCoroutine(coroutine))


class VlanTests(LinksCase):
    def test_vlan_below_the_bridge(self) -> None:
        """The VLAN interface is made on the raw device and becomes the port of the bridge."""
        self.do(self.links.up(LinkPlan("walt-net", "eth0", 12, IPv4Interface("10.0.0.1/24"))))
        mac = (self.state / ".walt-net.mac").read_text().strip()
        self.assertEqual(self.recorder.batches, [[
            "link set dev lo up", "link set dev eth0 up",
            "link add link eth0 name eth0.12 type vlan id 12", "link set dev eth0.12 up",
            "link add name walt-net type bridge", f"link set dev walt-net address {mac}",
            "link set dev eth0.12 master walt-net", "link set dev walt-net up",
            "address add 10.0.0.1/24 broadcast 10.0.0.255 dev walt-net",
        ]])
        self.assertEqual(
            (self.state / ".walt-net.state").read_text(), "eth0.12\nwalt-net\n"
        )


class DhcpClientTests(LinksCase):
    def test_client_started_and_ended(self) -> None:
        """`ip: dhcp` starts dhclient on the interface, `down` ends it."""
        plan = LinkPlan("walt-adm", "eth0", ip="dhcp")
        files = ["-pf", f"{self.state}/.walt-adm.dhclient.pid",
                 "-lf", f"{self.state}/.walt-adm.dhclient.leases"]
        self.do(self.links.up(plan))
        self.assertEqual(self.recorder.others, [["dhclient", "-4", "-nw", *files, "eth0"]])
        (self.state / ".walt-adm.dhclient.pid").write_text("1\n")
        self.do(self.links.down(plan))
        self.assertEqual(self.recorder.others[1:], [["dhclient", "-4", "-r", *files, "eth0"]])
