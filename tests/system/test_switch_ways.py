"""Ways of switches and of nodes on them, through the walt command: makers of PoE, loops, reports,
nodes that are used, moved or cannot be switched.
"""

from __future__ import annotations

import json
import sys

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.switch_lab import REFUSE, Switch, TplinkSwitch, explored, plug
from tests.system.test_switches import FAR, NODES, PC, ROOT, lab
from walt.server.domain.switches.poe import NETGEAR

THIRD, MAKERS = "02:00:00:00:0a:03", ("02:00:00:00:0a:04", "02:00:00:00:0a:05")
NAMES = [f"node-00000{number}" for number in range(1, 5)]
# What a node's image does, from the node's own address.
BOOTED = """
import socket, sys
peer = socket.create_connection(("192.168.181.1", 12347), source_address=(sys.argv[1], 0))
peer.sendall(b"REQ_NOTIFY_BOOTUP_STATUS\\n")
assert peer.recv(10) == b"OK\\n"
peer.sendall(b"\\n")
peer.recv(10)
"""
REPORT = """
import socket, sys
peer = socket.create_connection(("192.168.181.1", 12345), source_address=(sys.argv[1], 0))
lines = peer.makefile("rwb")
lines.write(b"REQ_API_SESSION\\nNSAPI\\n")
lines.flush()
lines.readline()
lines.write(f"('API_CALL', 'report_lldp_neighbor', ('{sys.argv[2]}', '{sys.argv[3]}'), {{}})\\n"
            .encode())
lines.flush()
assert b"RESULT" in lines.readline()
"""


class WaysTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def start(self, extra: str = "") -> LivePlatform:
        """Return a platform with the small image."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.write_config(extra)
        await platform.import_image()
        await platform.start()
        return platform

    async def as_node(self, platform: LivePlatform, ip: str, code: str, *words: str) -> None:
        """Run a program that speaks to the server from the address of a node."""
        await platform.runner.run(
            ["ip", "-n", platform.namespace, "address", "replace", f"{ip}/32", "dev", "lo"]
        )
        running = Deferred.fromCoroutine(platform.runner.run(
            ["nsenter", f"--net=/run/netns/{platform.namespace}", "--", sys.executable, "-c",
             code, ip, *words], timeout=patient(120),
        ))
        if code is REPORT:
            await running
            return
        running.addErrback(lambda failure: None)  # it holds its connection
        self.addCleanup(running.cancel)

    async def test_makers(self) -> None:
        """Tables of TP-Link and of Netgear, and their own values: ports go off and on again."""
        platform = await self.start()
        switches = (TplinkSwitch("tp", MAKERS[0]), Switch("ng", MAKERS[1], table=NETGEAR))
        for number, one in enumerate(switches, 1):
            mac = NODES[number - 1]
            await platform.event(
                "commit", "", PC, f"192.168.181.3{number}", mac, "", "0", "unknown"
            )
            one.sees(mac, 2)
            await plug(self, platform, one, f"192.168.181.21{number}")
            await explored(platform, one.mac, "poe.reboots=true")
        await platform.walt("device", "rescan")
        for number, one in enumerate(switches, 1):
            await platform.ok("node", "reboot", "--hard", NAMES[number - 1])
            self.assertEqual(one.sets, [(one.control(2), one.off), (one.control(2), one.on)])
            self.assertTrue(one.is_on(2))
            one.behave = REFUSE
            done = await platform.walt("node", "reboot", "--hard", NAMES[number - 1])
            self.assertIn(b"does its community allow to write?", done.stderr)
            one.behave = "obey"
            one.feeds(2, False)
            done = await platform.walt("node", "reboot", "--hard", NAMES[number - 1])
            self.assertIn(b"delivers no power", done.stderr)
            self.assertTrue(one.is_on(2))

    async def test_loop(self) -> None:
        """Three switches in a ring: each cable is there, the last one as a way back."""
        platform = await self.start()
        root, far = await lab(self, platform)
        third = Switch("the third", THIRD)
        third.hears(1, ROOT, "g3", "the root")
        root.hears(3, THIRD, "g1", "the third")
        third.hears(2, FAR, "g6", "the far one")
        far.hears(6, THIRD, "g2", "the third")
        await plug(self, platform, third, "192.168.181.203")
        await explored(platform, third.mac)
        await platform.ok("device", "rescan")
        tree = await platform.ok("device", "tree", "--all")
        self.assertEqual(tree.count("~> back to switch-"), 2, tree)
        for name in ("switch-000a02", "switch-000a03", *NAMES[:3]):
            self.assertIn(name, tree)
        self.assertIn("~> back to: a cable that closes a loop", tree)

    async def test_never_the_uplink(self) -> None:
        """A node that is seen behind another switch alone has no port that could be cut."""
        platform = await self.start()
        root, far = await lab(self, platform, "poe.reboots=true")
        await platform.event("commit", "", PC, "192.168.181.34", NODES[3], "", "0", "unknown")
        root.sees(NODES[3], 2)
        await platform.ok("device", "rescan")
        done = await platform.walt("node", "reboot", "--hard", NAMES[3])
        self.assertIn(b"poe-reboot (unknown LLDP network position)", done.stderr)
        # Of a node whose cable went to the other side of the far switch since.
        far.forgets(NODES[0])
        far.sees(NODES[0], 1)
        done = await platform.walt("node", "reboot", "--hard", NAMES[0])
        self.assertEqual((done.status, done.stdout), (1, b""))
        self.assertEqual((root.sets, far.sets), ([], []))

    async def test_report_of_a_node(self) -> None:
        """A label of a port that nobody has read yet has the switch read, and places the node."""
        platform = await self.start()
        root, far = await lab(self, platform)
        for one in (root, far):
            one.forgets(NODES[2])
        await self.as_node(platform, "192.168.181.33", REPORT, FAR, "g4")

        async def placed() -> bool:
            rows = json.loads(await platform.ok("device", "show", "--json"))["known"]
            (one,) = [row for row in rows if row["name"] == NAMES[2]]
            return (one["switch"], one["port"]) == ("switch-000a02", "g4")

        await platform.until(placed, "the node is placed")
        log = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn(f"Node {NAMES[2]} is now connected on switch-000a02 port g4", log)
        await self.as_node(platform, "192.168.181.33", REPORT, FAR, "no such label")
        self.assertTrue(await placed())

    async def test_power_saving_ways(self) -> None:
        """A use begins the time anew; a refusal is logged; a node that boots elsewhere is freed."""
        platform = await self.start("switches: {save-power-after: 20}\n")
        _, far = await lab(self, platform, "poe.reboots=true")
        far.behave = REFUSE
        await platform.ok("device", "rescan")

        async def refused() -> bool:
            log = await platform.ok("log", "show", "--platform", "--history", "full")
            return f"{NAMES[1]} could not be powered off: switch-000a02 port g3" in log

        await platform.until(refused, "the refusal is logged", 90, every=1)
        self.assertTrue(all(map(far.is_on, (2, 3, 4))))
        far.behave = "obey"

        async def others_sleep() -> bool:
            await platform.ok("node", "reboot", "--hard", NAMES[0])
            return not any(map(far.is_on, (3, 4)))

        await platform.until(others_sleep, "the others sleep", 120, every=1)
        rows = json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]
        self.assertEqual(
            {row["name"]: row["powersave"] for row in rows},
            {NAMES[0]: False, NAMES[1]: True, NAMES[2]: True},
        )
        self.assertTrue(far.is_on(2))
        # It was plugged into a port with power while its own is off.
        await self.as_node(platform, "192.168.181.33", BOOTED)

        async def freed() -> bool:
            return far.is_on(4)

        await platform.until(freed, "its former port has power", 60)
        rows = json.loads(await platform.ok("device", "show", "--json"))["known"]
        (row,) = [one for one in rows if one["name"] == NAMES[2]]
        self.assertIsNone(row["switch"])
