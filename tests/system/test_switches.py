"""Switches through the walt command: SNMP agents beside a whole server."""

from __future__ import annotations

import json
from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest, TestCase

from tests import skips
from tests.contracts.test_switches import ROWS
from tests.patience import patient
from tests.server.domain.switches.test_recordings import RECORDINGS
from tests.system.live import LivePlatform, why_not
from tests.system.snmp_agents import NAMELESS, Agents
from tests.system.switch_lab import (
    IGNORE,
    LATE,
    OBEY,
    REFUSE,
    SILENT,
    Switch,
    explored,
    octets,
    plug,
)
from walt.server.domain.switches.poe import ADMIN, STANDARD, TRUE

PC = "walt.node.pc-x86-64"
ROOT, FAR = "02:00:00:00:0a:01", "02:00:00:00:0a:02"
NODES = [f"02:00:00:00:00:0{number}" for number in range(1, 5)]
RECORDED = ["00:16:c8:bd:4d:80", "00:16:c8:94:aa:80", "f4:ea:67:eb:dc:00"]
SENSOR = "02:00:00:00:0c:02"
STRANGER = "02:00:00:00:0c:01"


async def lab(
    case: TestCase, platform: LivePlatform, *settings: str
) -> tuple[Switch, Switch]:
    """Two switches with a cable, nodes 1 to 3 at ports 2 to 4 of the second, the server
    at port 1 of the first."""
    devices = json.loads(await platform.ok("device", "show", "--json"))
    server = next(one["mac"] for one in devices["known"] if one["type"] == "server")
    root, far = Switch("the root", ROOT), Switch("the far one", FAR, ports=6)
    for number, mac in enumerate(NODES[:3], 1):
        await platform.event(
            "commit", "", PC, f"192.168.181.3{number}", mac, "", "0", "unknown"
        )
        far.sees(mac, number + 1)
        root.sees(mac, 2)
    root.sees(server, 1)
    far.sees(server, 1)
    root.sees(FAR, 2)
    far.sees(ROOT, 1)
    root.hears(2, FAR, "g1", "the far one")
    far.hears(1, ROOT, "g2", "the root")
    for number, one in enumerate((root, far), 1):
        await plug(case, platform, one, f"192.168.181.20{number}")
        await explored(platform, one.mac, *settings)
    return root, far


class SwitchTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def start(self, **sections: str) -> LivePlatform:
        """Return a platform with the small image."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        if sections:
            platform.write_config("".join(f"{one}\n" for one in sections.values()))
        await platform.import_image()
        await platform.start()
        return platform

    async def test_rescan_tree_and_ports(self) -> None:
        """What is told of switches that answer, and of those that do not."""
        platform = await self.start()
        nothing = await platform.walt("device", "tree")
        self.assertEqual((nothing.status, nothing.stdout), (1, b""))
        self.assertIn(b"walt device rescan", nothing.stderr)
        root, far = await lab(self, platform)
        told = await platform.ok("device", "rescan")
        # The lines of switches come as they are read, that of the server is the last.
        *lines, last = told.splitlines()
        self.assertEqual(sorted(lines), [
            "Querying switch-000a01             OK", "Querying switch-000a02             OK",
        ])
        self.assertEqual(last, "Querying walt server               OK (BRIDGE-only data)")
        tree = await platform.ok("device", "tree")
        self.assertEqual(tree.splitlines()[:6], [
            "-- switch-000a01 --",
            "├─g1: walt-server  [bridge table]",
            "└─g2: -- switch-000a02 --  [LLDP at both ends; its port g1]",
            "     ├─g2: node-000001  [bridge table]",
            "     ├─g3: node-000002  [bridge table]",
            "     └─g4: node-000003  [bridge table]",
        ])
        found = json.loads(await platform.ok("device", "tree", "--json"))
        self.assertEqual(found["root"], "switch-000a01")
        self.assertEqual(
            [(one["name"], one["port"], one["depth"]) for one in found["branches"][2:3]],
            [("node-000001", "g2", 1)],
        )
        rows = json.loads(await platform.ok("device", "show", "--json"))["known"]
        places = {one["name"]: (one["switch"], one["port"]) for one in rows}
        self.assertEqual(places["node-000002"], ("switch-000a02", "g3"))
        self.assertRegex(
            await platform.ok("device", "show"), r"node-000002 .* switch-000a02 +g3"
        )
        await self._ports(platform)
        await self._failures(platform, root, far)
        await self._hostile(platform, root)
        await self._moved(platform, far)

    async def _ports(self, platform: LivePlatform) -> None:
        """Names of ports, all their numbers."""
        name = ("device", "port-config", "switch-000a02")
        self.assertIn(
            '3: name="3" poe=unavailable peer=node-000002  # g3; ifIndex 3, LLDP 3, bridge 3,'
            " PoE 1.3; bridge table; link up\n",
            await platform.ok(*name),
        )
        self.assertEqual(await platform.ok(*name, "3", "name=desk-3"), "Done.\n")
        (row,) = json.loads(await platform.ok(*name, "desk-3", "--json"))
        self.assertEqual((row["port"], row["name"], row["interface"]), (3, "desk-3", "g3"))
        self.assertIn("desk-3: node-000002", await platform.ok("device", "tree"))
        for words, text in (
            (("3", "name=4"), "is no number but its own"), (("3", "name=a b"), "letters, digits"),
            (("4", "name=desk-3"), "has this name already"), (("3", "poe=off"), "only be read"),
            (("9", "name=x"), "has no port '9'"), (("3", "colour=red"), "no setting of a port"),
        ):
            refused = await platform.walt(*name, *words)
            self.assertEqual((refused.status, refused.stdout), (1, b""), words)
            self.assertIn(text, refused.stderr.decode())
        await platform.ok(*name, "3", "name=3")
        self.assertNotIn("desk-3", await platform.ok(*name))
        wrong = await platform.walt("device", "port-config", "node-000001")
        self.assertIn(b"is not a switch", wrong.stderr)

    async def _failures(self, platform: LivePlatform, root: Switch, far: Switch) -> None:
        """One line for each, with the reason; those that answer are not delayed."""
        far.is_silent = True
        await platform.event(
            "commit", "", "", "192.168.181.60", "02:00:00:00:0a:03", "", "0", "unknown"
        )
        await platform.ok("device", "config", "unknown-000a03", "type=switch")
        done = await platform.walt("device", "rescan", "all-switches,node-000001")
        self.assertEqual(done.status, 1)
        self.assertEqual(
            done.stdout.decode().splitlines(), ["Querying switch-000a01             OK"]
        )
        self.assertRegex(done.stderr.decode(), (
            r"\AQuerying node-000001               INVALID \(neither a switch nor .+\)\n"
            r"Querying switch-000a03             FORBIDDEN \(.+lldp.explore=true\)\n"
            r"Querying switch-000a02             FAILED \(no answer: .+\)\n\Z"
        ))
        told = await platform.walt(
            "device", "rescan", "switch-000a01,switch-000a02", "--json"
        )
        rows = json.loads(told.stdout)
        self.assertEqual([one["result"] for one in rows], ["OK", "FAILED"])
        self.assertEqual((told.status, told.stderr), (1, b""))
        self.assertIn("node-000001", await platform.ok("device", "tree"))  # still known
        far.is_silent = False
        far.answers_left = 12
        gone = await platform.walt("device", "rescan", "switch-000a02")
        self.assertIn(b"FAILED (it stopped answering)", gone.stderr)
        self.assertIn("g2: node-000001  [bridge table]", await platform.ok("device", "tree"))
        far.answers_left = None
        forget = root.sees_many(10_000, 2)
        await platform.ok("device", "rescan", "switch-000a01")
        forget()
        self.assertIn("g2: node-000001  [bridge table]", await platform.ok("device", "tree"))

    async def _hostile(self, platform: LivePlatform, root: Switch) -> None:
        """Odd texts change no name and no place."""
        evil = "\x1b[2J\n'; DROP TABLE devices; --\u202e"
        root.hears(3, STRANGER, "eth\x00\x1b]0;x\x07", evil, ip="192.168.181.1")
        root.hears(4, NODES[0], "eth0", "walt-server", ip="192.168.181.31", place=2)
        root.hears(4, ROOT, "g4", "switch-000a02", place=3)
        await platform.ok("device", "rescan")
        rows = json.loads(await platform.ok("device", "show", "--json"))
        (stranger,) = [one for one in rows["unknown"] if one["mac"] == STRANGER]
        self.assertRegex(stranger["name"], r"\A[a-z0-9-]+\Z")
        self.assertIsNone(stranger["ip"])
        places = {one["name"]: (one["switch"], one["port"]) for one in rows["known"]}
        self.assertEqual(places["node-000001"], ("switch-000a02", "g2"))
        self.assertEqual(
            {one["name"] for one in rows["known"]},
            {"walt-server", "node-000001", "node-000002", "node-000003", "switch-000a01",
             "switch-000a02", "switch-000a03"},
        )
        root.hears(3, SENSOR, "eth0", "Sensor.lab.example", ip="192.168.181.77", place=4)
        await platform.ok("device", "rescan")
        rows = json.loads(await platform.ok("device", "show", "--json"))
        (sensor,) = [one for one in rows["unknown"] if one["mac"] == SENSOR]
        self.assertEqual((sensor["name"], sensor["ip"]), ("sensor", "192.168.181.77"))
        tree = await platform.ok("device", "tree", "--all")
        self.assertIn(f"<? {stranger['name']} ?>", tree)
        self.assertNotIn("\x1b", tree)

    async def _moved(self, platform: LivePlatform, far: Switch) -> None:
        """A node at another port, one that is gone; after a restart the same is known."""
        for mac in NODES[1:3]:
            far.forgets(mac)
        far.sees(NODES[1], 6)
        await platform.ok("device", "rescan")
        tree = await platform.ok("device", "tree")
        self.assertIn("g6: node-000002  [bridge table]", tree)
        self.assertRegex(tree, r"g4: \(node-000003\)  \[bridge table; last seen .+\]")
        await platform.ok("device", "forget", "node-000003", "--force")
        self.assertNotIn("node-000003", await platform.ok("device", "tree"))
        await platform.stop()
        await platform.start()
        self.assertIn("g6: node-000002  [bridge table]", await platform.ok("device", "tree"))

    async def test_recorded_switches(self) -> None:
        """Records of three real switches, of whose cables four and two are parallel."""
        why = skips.without_data("snmp/expected")
        if why:
            raise SkipTest(why)
        platform = await self.start()
        devices = json.loads(await platform.ok("device", "show", "--json"))
        server = next(one["mac"] for one in devices["known"] if one["type"] == "server")
        decimal = ".".join(str(one) for one in octets(server))
        records: dict[str, str | Path] = {}
        addresses = []
        for number, mac in enumerate(RECORDED, 1):
            text = (RECORDINGS / f"topo-a-switch{number}.snmprec").read_text(encoding="latin-1")
            if number == 1:
                text += f"1.3.6.1.2.1.17.4.3.1.2.{decimal}|2|2\n"
                text += f"1.3.6.1.2.1.17.4.3.1.3.{decimal}|2|3\n"
            records[f"switch{number}"] = text
            addresses.append(f"192.168.181.20{number}")
            await platform.runner.run([
                "ip", "-n", platform.namespace, "address", "add", f"{addresses[-1]}/32",
                "dev", "lo",
            ])
            await platform.event("commit", "", "", addresses[-1], mac, "", "0", "unknown")
        Agents(
            self, records, space=Path("/run/netns") / platform.namespace, addresses=addresses,
            port=161,
        )
        for number, mac in enumerate(RECORDED, 1):
            name = f"unknown-{mac.replace(':', '')[-6:]}"
            await platform.ok(
                "device", "config", name, "type=switch", "snmp.version=2",
                f"snmp.community=switch{number}", "lldp.explore=true",
            )
        told = await platform.ok("device", "rescan", timeout=patient(280))
        self.assertEqual([line.split()[2] for line in told.splitlines()[:3]], ["OK"] * 3)
        tree = await platform.ok("device", "tree", "--all")
        self.assertIn(
            "Gi0/9: -- switch-94aa80 --  [LLDP at both ends; its port Gi0/1; 4 cables:"
            " Gi0/9 - Gi0/1, Gi0/10 - Gi0/2, Gi0/11 - Gi0/3, Gi0/12 - Gi0/4", tree,
        )
        self.assertIn("Gi0/19: -- switch-ebdc00 --  [LLDP at both ends; its port Fa0/19; 2 ", tree)
        ports = json.loads(await platform.ok("device", "port-config", "switch-bd4d80", "--json"))
        (one,) = [row for row in ports if row["interface"] == "Gi0/9"]
        self.assertEqual(one["numbers"], "ifIndex 10109, LLDP 9, PoE 1.9")
        self.assertEqual(one["peer"], "switch-94aa80")

    async def test_version_3(self) -> None:
        """A user in place of a community; its passwords are shown nowhere."""
        platform = await self.start()
        mac, ip = "02:00:00:00:0a:07", "192.168.181.207"
        await platform.runner.run(
            ["ip", "-n", platform.namespace, "address", "add", f"{ip}/32", "dev", "lo"]
        )
        await platform.event("commit", "", "", ip, mac, "", "0", "unknown")
        Agents(
            self, {NAMELESS: "\n".join(ROWS)},
            [
                "--v3-engine-id=auto", "--v3-user=walt", "--v3-auth-key=first secret",
                "--v3-auth-proto=SHA256", "--v3-priv-key=second secret", "--v3-priv-proto=AES",
            ],
            space=Path("/run/netns") / platform.namespace, addresses=[ip], port=161,
        )
        user = ("snmp.version=3", "snmp.user=walt", "snmp.auth.protocol=sha256")
        await platform.ok(
            "device", "config", "unknown-000a07", "type=switch", *user, "snmp.auth=first secret",
            "snmp.priv=wrong secret", "lldp.explore=true",
        )
        failed = await platform.walt("device", "rescan", "switch-000a07")
        self.assertIn(b"FAILED", failed.stderr)
        await platform.ok("device", "config", "switch-000a07", "snmp.priv=second secret")
        done = await platform.walt("device", "rescan", "switch-000a07")
        self.assertIn(b"neither LLDP neighbours nor a bridge table", done.stderr)
        shown = await platform.ok("device", "config", "switch-000a07")
        self.assertIn("\nsnmp.auth=<set>\n", shown)
        for words in (
            ("device", "config", "switch-000a07"), ("device", "config", "all-devices", "--json"),
            ("device", "show", "--json"), ("log", "show", "--platform", "--history", "full"),
            ("log", "show", "--server", "--history", "full"),
        ):
            self.assertNotIn("secret", await platform.ok(*words), words)
        self.assertNotIn("secret", platform.told())

    async def test_power(self) -> None:
        """Hard reboots by the power of ports, refused wherever something is not certain."""
        platform = await self.start()
        _, far = await lab(self, platform)
        names = [f"node-00000{number}" for number in (1, 2, 3)]

        async def refused(node: str, text: str) -> None:
            done = await platform.walt("node", "reboot", "--hard", node)
            self.assertEqual((done.status, done.stdout), (1, b""), text)
            self.assertIn(text, done.stderr.decode())

        await refused(names[0], "poe-reboot (unknown LLDP network position)")
        await platform.ok("device", "rescan")
        await refused(names[0], "poe-reboot (forbidden on switch switch-000a02)")
        await platform.ok("device", "config", "switch-000a02", "poe.reboots=true")
        self.assertIn(
            "g2: node-000001  [bridge table; PoE on]", await platform.ok("device", "tree")
        )
        cycle = [(far.control(2), 2), (far.control(2), 1)]
        self.assertEqual(
            await platform.ok("node", "reboot", "--hard", names[0]),
            "Node node-000001: rebooted ok.\n",
        )
        self.assertEqual((far.sets, far.is_on(2)), (cycle, True))
        far.behave = LATE
        await platform.ok("node", "reboot", "--hard", names[0])
        self.assertEqual((far.sets, far.is_on(2)), (cycle * 2, True))
        far.behave = OBEY
        # Two people at once: one cut.
        far.sets.clear()
        await gatherResults([
            Deferred.fromCoroutine(platform.ok("node", "reboot", "--hard", names[0]))
            for _ in range(2)
        ])
        self.assertEqual(far.sets[0], cycle[0])
        self.assertTrue(far.is_on(2))
        far.behave = REFUSE
        await refused(names[0], "does its community allow to write?")
        far.behave = IGNORE
        await refused(names[0], "accepted it, but the port is still on")
        far.behave = OBEY
        self.assertTrue(far.is_on(2))
        await self._never(far, refused, names)
        self.assertTrue(all(far.is_on(port) for port in range(1, 7)))

    async def _never(self, far: Switch, refused: Any, names: list[str]) -> None:
        """Ports that feed, or may feed, something else."""
        far.sets.clear()
        far.feeds(2, False)
        await refused(names[0], "delivers no power")
        far.feeds(2, True)
        far.sees(STRANGER, 3)
        await refused(names[1], f"an unknown device ({STRANGER})")
        far.forgets(STRANGER)
        far.sees(NODES[2], 3)
        await refused(names[1], "leads to node-000003, too")
        far.sees(NODES[2], 4)
        far.hears(4, STRANGER, "eth0")
        await refused(names[2], f"an unknown device ({STRANGER})")
        far.sees(NODES[0], 5)
        await refused(names[0], "it is at port g5 now")
        far.sees(NODES[0], 2)
        far.is_silent = True
        await refused(names[0], "no answer")
        far.is_silent = False
        # Two groups of ports: nothing proves any more which one is which.
        far.put({(*STANDARD, ADMIN, 2, 1): TRUE})
        await refused(names[0], "does not tell which interface this port of its power supply is")
        self.assertEqual(far.sets, [])

    async def test_killed_in_between(self) -> None:
        """A port that was off when the server was killed is powered at its next start."""
        platform = await self.start()
        _, far = await lab(self, platform)
        await platform.ok("device", "config", "switch-000a02", "poe.reboots=true")
        await platform.ok("device", "rescan")
        rebooting = Deferred.fromCoroutine(
            platform.walt("node", "reboot", "--hard", "node-000001")
        )

        async def off() -> bool:
            return not far.is_on(2)

        await platform.until(off, "the port is off", every=0.01)
        await platform.stop(SIGKILL)
        await rebooting
        self.assertFalse(far.is_on(2))
        await platform.start()
        await plug(self, platform, far, "192.168.181.202", register=False)

        async def on() -> bool:
            return far.is_on(2)

        await platform.until(on, "the port is on again", 120)

    async def test_silent_set(self) -> None:
        """A SET without an answer is not repeated; the port is powered again."""
        platform = await self.start()
        _, far = await lab(self, platform, "poe.reboots=true")
        await platform.ok("device", "rescan")
        far.behave = SILENT
        done = await platform.walt("node", "reboot", "--hard", "node-000001")
        self.assertIn(b"did not answer", done.stderr)
        self.assertEqual([value for _, value in far.sets].count(2), 1)
        self.assertTrue(far.is_on(2))

    async def test_power_saving(self) -> None:
        """Free nodes that nobody uses lose power, and have it again when somebody wants them."""
        platform = await self.start(switches="switches: {save-power-after: 5}")
        _, far = await lab(self, platform, "poe.reboots=true")
        await platform.ok("device", "rescan")

        async def asleep() -> bool:
            rows = json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]
            return all(one["powersave"] for one in rows) and not any(map(far.is_on, (2, 3, 4)))

        await platform.until(asleep, "the nodes sleep", 90)
        self.assertTrue(far.is_on(1))
        self.assertIn("no (powersave)", await platform.ok("node", "show", "--all"))
        self.assertIn("poe=off peer=node-000001  # powersave; ", await platform.ok(
            "device", "port-config", "switch-000a02"
        ))
        waiting = Deferred.fromCoroutine(platform.walt("node", "wait", "node-000001"))

        async def awake() -> bool:
            return far.is_on(2)

        await platform.until(awake, "somebody waits for a node", 30)
        waiting.cancel()
        waiting.addErrback(lambda failure: None)
        await platform.ok("device", "forget", "--force", "node-000003")
        self.assertTrue(far.is_on(4))
        woken = await platform.walt("device", "rescan")
        self.assertIn(b"switch-000a02: ports that were powered off to save power", woken.stderr)
        self.assertTrue(all(far.is_on(port) for port in (2, 3, 4)))
