"""A map of cables of a real network: three bridges of the kernel as switches, with the real lldpd
and snmpd in each, two machines that boot, and the server.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import bridge_mib
from tests.system.live import LivePlatform, why_not
from tests.system.netns import Namespace, join, short_dir
from tests.system.test_foreign_node import script
from walt.common.qemu import PC
from walt.server.adapters.lldp.lldpd import SOCKET, lldpd_spec
from walt.server.adapters.lldp.snmpd import USER, snmpd_spec
from walt.server.domain.network_services.announcing import LldpdConfig
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

NET = "192.168.181"
COMMUNITY = "lab"
NODES = ("52:54:00:00:aa:01", "52:54:00:00:aa:02")
NAMES = ("node-00aa01", "node-00aa02")


class BridgeSwitch:
    """A namespace with a bridge: it forwards, speaks LLDP at each port, and answers SNMP."""

    def __init__(self, case: LiveMapTests, number: int) -> None:
        self.case, self.number = case, number
        self.space = Namespace(case)
        self.mac = f"02:00:00:00:0d:0{number}"
        self.ip = f"{NET}.20{number}"
        self.socket = Path()  # of its lldpd
        for words in (
            f"link add br0 address {self.mac} type bridge", f"address add {self.ip}/24 dev br0",
            "link set br0 up",
        ):
            self.space.run("ip", *words.split())

    @property
    def name(self) -> str:
        """What the platform calls it."""
        return f"switch-{self.mac.replace(':', '')[-6:]}"

    def plugged(self, port: str) -> None:
        """Make a port of an interface that is there."""
        self.space.run("ip", "link", "set", port, "master", "br0", "up")

    def start(self) -> None:
        """Start snmpd and lldpd."""
        base = short_dir(self.case)
        snmpd, lldpd, run = base / "snmpd", base / "lldpd", base / "run"
        for path in (snmpd / "kept", base / "agentx"):
            path.mkdir(parents=True)
            shutil.chown(path, USER, USER)
        for path in (lldpd, run):
            path.mkdir()
        program = base / "bridge_mib.py"
        shutil.copy(bridge_mib.__file__, program)
        (snmpd / "snmpd.conf").write_text(
            f"agentaddress udp:{self.ip}:161\nrocommunity {COMMUNITY}\nmaster agentx\n"
            f"agentXSocket unix:{base}/agentx/socket\nagentXPerms 0600 0700\n"
            f"pass_persist .1.3.6.1.2.1.17 /usr/bin/python3 {program} br0\n"
        )
        (lldpd / "lldpd.conf").write_text(
            f"configure system hostname sw{self.number}\nconfigure lldp tx-interval 1\n"
            "configure lldp tx-hold 3\n"
        )
        self.socket = run / SOCKET
        told = LldpdConfig(IPv4Address(self.ip), "p*,board", base / "agentx" / "socket")
        for spec in (snmpd_spec(snmpd), lldpd_spec(told, lldpd, run)):
            child = ChildService(self.case.reactor, self.space.launcher, spec)
            child.startService()
            self.case.addCleanup(child.stopService)


class LiveMapTests(TestCase):
    skip = why_not()
    timeout = patient(500)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.consoles: list[str] = []

    async def platform_at(self, first: BridgeSwitch) -> LivePlatform:
        """Return a platform whose raw device is cabled to a switch."""
        platform = LivePlatform(self.reactor, own_namespace=False)
        text = platform.config.read_text()
        address = f"    ip: {NET}.1/24\n"
        self.assertIn(address, text)
        platform.config.write_text(text.replace(address, f"    raw-device: eth1\n{address}"))
        await platform.runner.run(["ip", "netns", "add", platform.namespace])
        self.addCleanup(
            platform.runner.run, ["ip", "netns", "del", platform.namespace], check=False
        )
        first.space.run(
            "ip", "link", "add", "p1", "type", "veth", "peer", "name", "eth1", "netns",
            platform.namespace,
        )
        first.plugged("p1")
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        return platform

    def power_on(self, platform: LivePlatform, switch: BridgeSwitch, mac: str) -> None:
        """Start a machine at a port of a switch, `board`."""
        switch.space.run("ip", "tuntap", "add", "dev", "board", "mode", "tap")
        switch.plugged("board")
        loader = platform.base / "board.ipxe"
        loader.write_text(script("pc-x86-64"))
        board = ChildService(self.reactor, Launcher(), ChildSpec("board", tuple(
            switch.space.command(
                "qemu-system-x86_64", "-nodefaults", "-machine", "pc,graphics=off,accel=tcg",
                "-cpu", PC.emulated_cpu, "-m", "384", "-smbios", "type=1,manufacturer=QEMU",
                "-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio",
                "-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", str(loader),
                "-netdev", "tap,id=n,ifname=board,script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=n,mac={mac},romfile=",
            )
        )), on_line=self.consoles.append)
        board.startService()
        self.addCleanup(board.stopService)

    async def test_cables(self) -> None:
        """The tree is right after one rescan; a cable that is moved is seen and told."""
        first, second, third = switches = [BridgeSwitch(self, n) for n in (1, 2, 3)]
        platform = await self.platform_at(first)
        for one, port, other in ((first, "p2", second), (second, "p2", third)):
            join(one.space, port, other.space, "p1")
            one.plugged(port)
            other.plugged("p1")
        self.power_on(platform, second, NODES[0])
        self.power_on(platform, third, NODES[1])
        for one in switches:
            one.start()
            await platform.event("commit", "", "", one.ip, one.mac, "", "0", "unknown")
            await platform.ok(
                "device", "config", f"unknown-{one.name[-6:]}", "type=switch", "snmp.version=2",
                f"snmp.community={COMMUNITY}", "lldp.explore=true",
            )

        async def booted() -> bool:
            rows = json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]
            return [one["booted"] for one in rows] == [True, True]

        await platform.until(booted, "both nodes booted", 200)
        await self.heard(platform, {first: {"p1", "p2"}, second: {"p1", "p2"}, third: {"p1"}})
        told = await platform.ok("device", "rescan")
        self.assertEqual(
            sorted(line.split()[-1] for line in told.splitlines()), ["OK"] * 4, told
        )
        self.assertEqual((await self.drawn(platform))[:6], [
            f"-- {first.name} --",
            "├─p1: walt-server  [LLDP at both ends; its port eth1]",
            f"└─p2: -- {second.name} --  [LLDP at both ends; its port p1]",
            f"     ├─p2: -- {third.name} --  [LLDP at both ends; its port p1]",
            f"     │    └─board: {NAMES[1]}  [bridge table]",
            f"     └─board: {NAMES[0]}  [bridge table]",
        ])
        # From the second to the first switch.
        second.space.run("ip", "link", "set", "p2", "netns", first.space.name, "name", "p3")
        first.plugged("p3")
        await platform.ok("node", "run", NAMES[1], "--", f"ping -c 3 {NET}.1")
        await self.heard(
            platform, {first: {"p1", "p2", "p3"}, second: {"p1"}, third: {"p1"}}
        )
        told = await platform.ok("device", "rescan")
        self.assertEqual([line for line in told.splitlines() if line.startswith("Moved")], [
            f"Moved: {third.name} port p1 is at {first.name} port p3 now,"
            f" it was at {second.name} port p2",
        ])
        self.assertEqual((await self.drawn(platform))[:6], [
            f"-- {first.name} --",
            "├─p1: walt-server  [LLDP at both ends; its port eth1]",
            f"├─p2: -- {second.name} --  [LLDP at both ends; its port p1]",
            f"│    └─board: {NAMES[0]}  [bridge table]",
            f"└─p3: -- {third.name} --  [LLDP at both ends; its port p1]",
            f"     └─board: {NAMES[1]}  [bridge table]",
        ])
        self.assertIn(
            f"Switch {third.name} port p1 is now connected on {first.name} port p3",
            await platform.ok("log", "show", "--platform", "--history", "full"),
        )

    async def drawn(self, platform: LivePlatform) -> list[str]:
        """Return the lines of the tree."""
        return (await platform.ok("device", "tree")).splitlines()

    async def heard(
        self, platform: LivePlatform, wanted: Mapping[BridgeSwitch, set[str]]
    ) -> None:
        """Wait until LLDP has told at which ports the switches hear something, and the server."""

        async def ports(where: Namespace | None, socket: Path) -> set[str]:
            argv = ["lldpcli", "-f", "json0", "-u", str(socket), "show", "neighbors"]
            shown = await platform.runner.run(
                argv if where is None else where.command(*argv), check=False
            )
            try:
                found = json.loads(shown.stdout)["lldp"][0].get("interface", [])
            except ValueError:
                return set()
            return {one["name"] for one in found if "chassis" in one}

        async def done() -> bool:
            own = await ports(None, platform.runtime / "lldpd" / SOCKET)
            return own == {"eth1"} and all([
                await ports(one.space, one.socket) == names for one, names in wanted.items()
            ])

        await platform.until(done, "LLDP has told everything", 90)
