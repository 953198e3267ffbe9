"""Registrations on a live server: rules, texts, hostile clients, concurrency."""

from __future__ import annotations

import json
import os
import re
import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.load import Load, Refused

UNKNOWN_MODEL = "walt.node.rpi-4-b"
PC = "walt.node.pc-x86-64"


class RegistrationTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def start(self, *, image: bool = True) -> Load:
        """Return a live server."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        load = Load(platform)
        self.addCleanup(platform.close)
        self.addCleanup(load.database.close)
        if image:
            await platform.import_image()
        await platform.start()
        return load

    async def devices(self, load: Load) -> dict[str, tuple[str, str, str | None]]:
        """Return name, type and address by MAC."""
        rows = await load.database.query(
            "SELECT mac, name, type, ip FROM devices WHERE type <> 'server'"
        )
        return {mac: (name, kind, ip) for mac, name, kind, ip in rows}

    async def lines(self, load: Load) -> list[str]:
        """Return what `walt log show --platform` shows of devices."""
        text = await load.platform.ok("log", "show", "--platform", "--history", "full")
        return [
            line.split(" -> ", 1)[1] for line in text.splitlines() if "platform.devices -> " in line
        ]

    async def test_rules_and_texts(self) -> None:
        """Each kind of device gets its type, name, row and the exact platform line."""
        load = await self.start()
        event = load.platform.event

        async def commit(*words: str) -> None:
            result = await event("commit", *words)
            self.assertEqual((result.status, result.stderr), (0, b""))

        await commit("", PC, "192.168.181.10", "52:54:0:0:0:1", "", "0", "unknown")
        await commit(PC, "", "192.168.181.11", "52:54:00:00:00:02", "Board.lan", "0", "unknown")
        await commit("", "", "192.168.181.12", "6c:b0:ce:00:00:03", "", "0", "unknown")
        await commit("", "", "192.168.181.13", "02:00:00:00:00:04", "", "0", "unknown")
        await commit("udhcp", "iPXE", "192.168.181.14", "02:00:00:00:00:05", "my_pc", "0",
                     "unknown")
        await commit("--force-name", "", PC, "192.168.181.15", "52:54:00:00:00:06", "exact", "0",
                     "unknown")
        self.assertEqual(await self.devices(load), {
            "52:54:00:00:00:01": ("node-000001", "node", "192.168.181.10"),
            "52:54:00:00:00:02": ("board", "node", "192.168.181.11"),
            "6c:b0:ce:00:00:03": ("switch-000003", "switch", "192.168.181.12"),
            "02:00:00:00:00:04": ("unknown-000004", "unknown", "192.168.181.13"),
            "02:00:00:00:00:05": ("my-pc-000005", "unknown", "192.168.181.14"),
            "52:54:00:00:00:06": ("exact", "node", "192.168.181.15"),
        })
        # An unknown device tells what it is: its automatic name follows, a chosen one stays.
        await commit("", PC, "192.168.181.13", "02:00:00:00:00:04", "", "1", "unknown")
        await commit("", PC, "192.168.181.14", "02:00:00:00:00:05", "", "1", "unknown")
        self.assertEqual(await self.lines(load), [
            "new node name=node-000001 model=pc-x86-64 mac=52:54:00:00:00:01 ip=192.168.181.10",
            "new node name=board model=pc-x86-64 mac=52:54:00:00:00:02 ip=192.168.181.11",
            "new switch name=switch-000003 mac=6c:b0:ce:00:00:03 ip=192.168.181.12",
            "new device name=unknown-000004 type=unknown mac=02:00:00:00:00:04 ip=192.168.181.13",
            "new device name=my-pc-000005 type=unknown mac=02:00:00:00:00:05 ip=192.168.181.14",
            "new node name=exact model=pc-x86-64 mac=52:54:00:00:00:06 ip=192.168.181.15",
            "renamed unknown-000004 to node-000004 for clarity",
            "new node (device type previously unknown) name=node-000004 model=pc-x86-64"
            " mac=02:00:00:00:00:04 ip=192.168.181.13",
            "new node (device type previously unknown) name=my-pc-000005 model=pc-x86-64"
            " mac=02:00:00:00:00:05 ip=192.168.181.14",
        ])
        # A node never changes its type again, whatever a lease says.
        client = await load.connect()
        await client.call("ss.devices.register", vci="", uci="walt.node.rpi-4-b",
                          mac="52:54:00:00:00:01", ip="192.168.181.10")
        load.close(client)
        self.assertEqual((await self.devices(load))["52:54:00:00:00:01"][1], "node")
        self.assertEqual(await self.models(load), {"pc-x86-64"})
        await self.check_services(load)
        await self.check_sentences(load)

    async def models(self, load: Load) -> set[str]:
        """Return the models of nodes."""
        tables = json.loads(await load.platform.ok("node", "show", "--all", "--json"))
        return {row["model"] for rows in tables.values() for row in rows}

    async def check_sentences(self, load: Load) -> None:
        """Up to five names are told, then their number; verbs agree."""
        code = (
            "import sys; from walt.client.session import Session;"
            "Session().call('cs.nodes.set_image', nodes=sys.argv[1], image='default')"
        )

        async def told(nodes: str) -> bytes:
            return (await load.platform.runner.run(
                [sys.executable, "-c", code, nodes], env=load.platform.environment()
            )).stdout

        self.assertEqual(await told("exact"), b"Node exact already uses this image.\n")
        self.assertEqual(
            await told("all-nodes"),
            b"Nodes board, exact, my-pc-000005, node-000001 and node-000004 already use this"
            b" image.\n",
        )
        await load.platform.event(
            "commit", "", PC, "192.168.181.17", "52:54:00:00:00:07", "", "0", "unknown"
        )
        self.assertEqual(await told("all-nodes"), b"6 nodes already use this image.\n")

    async def check_addresses(self, load: Load) -> None:
        """None: set. Outside of the network: replaced by one inside. Else: kept."""
        client = await load.connect()
        devices = await self.devices(load)
        without = min(mac for mac, (_, _, ip) in devices.items() if ip is None)
        outside = "52:54:00:00:05:01"
        for mac, ip, expected in (
            (without, "192.168.181.50", "192.168.181.50"),
            (without, "192.168.181.51", "192.168.181.50"),
            (outside, "10.9.9.9", "10.9.9.9"), (outside, "10.9.9.10", "10.9.9.9"),
            (outside, "192.168.181.40", "10.9.9.9"),  # that of another device
            (outside, "192.168.181.52", "192.168.181.52"),
            (outside, "10.9.9.9", "192.168.181.52"),
        ):
            await client.call("ss.devices.register", vci="", uci=PC, mac=mac, ip=ip)
            self.assertEqual((await self.devices(load))[mac][2], expected, (mac, ip))
        load.close(client)

    async def refused_expressions(self, load: Load) -> None:
        """Have the server refuse expressions meanwhile."""
        for _ in range(3):
            shown = await load.platform.walt(
                "log", "show", "--platform", "--history", "full", "x{300}"
            )
            self.assertEqual(shown.status, 2)
            self.assertIn(b"repeats more than 255 times", shown.stderr)

    async def check_services(self, load: Load) -> None:
        """dhcpd.conf and the DNS zone hold every device, and both daemons run with them."""
        platform, wanted = load.platform, await self.devices(load)

        async def declared() -> bool:
            # Changes are merged: the files follow a little later.
            dhcp = (platform.state / "services/dhcpd/dhcpd.conf").read_text()
            zone = "".join(
                path.read_text(errors="replace")
                for path in (platform.state / "services/named").rglob("*") if path.is_file()
            )
            return load.hosts() == set(wanted) and all(
                f'fixed-address {ip}; option host-name "{name}"' in dhcp
                and re.search(rf"(?m)^{re.escape(name)}\s.*\sA\s+{re.escape(str(ip))}$", zone)
                for name, _, ip in wanted.values()
            )

        await platform.until(declared, "dhcpd.conf and the zone hold every device", 15)
        for name in ("dhcpd", "named"):
            self.assertTrue((await platform.services())[name]["running"])

    async def test_hostile_clients(self) -> None:
        """What a client says of itself ends as a harmless name, or is refused."""
        load = await self.start()
        client = await load.connect()
        names = [
            '"; } evil {', "a\nhost x { }", "$(reboot)", "--flag", "../../etc", "x" * 1000,
            "server", "walt-server", "é" * 20, "\x1b[2J", "'; DROP TABLE devices; --", "-", "",
            "1234", "a b c", "localhost.",
        ]
        for number, name in enumerate(names):
            await client.call(
                "ss.devices.register", vci="", uci=PC, mac=f"52:54:00:00:01:{number:02x}",
                ip=f"192.168.181.{20 + number}", name=name,
            )
        for number, uci in enumerate((
            "walt.node.", "walt.node.../../etc", "walt.node.pc x86", "walt.node.PC", "\x01" * 300,
            "walt.node." + "a" * 300, 'walt.node."', "walt.node.-x",
        )):
            await client.call(
                "ss.devices.register", vci="", uci=uci, mac=f"52:54:00:00:02:{number:02x}",
                ip=f"192.168.181.{60 + number}",
            )
        devices = await self.devices(load)
        self.assertEqual(len(devices), len(names) + 8)
        for name, _, _ in devices.values():
            self.assertRegex(name, r"\A[a-zA-Z][a-zA-Z0-9-]{1,62}\Z")
            self.assertNotIn(name, ("server", "walt-server"))
        kinds = {mac: kind for mac, (_, kind, _) in devices.items()}
        self.assertTrue(all(
            kind == ("node" if mac.startswith("52:54:00:00:01") else "unknown")
            for mac, kind in kinds.items()
        ), kinds)
        for bad in (
            {"mac": "52:54:00:00:03", "ip": "192.168.181.90"},
            {"mac": "52:54:00:00:03:01", "ip": "192.168.181.900"},
            {"mac": "52:54:00:00:03:01", "ip": "fe80::1"},
            {"mac": "ff:ff:ff:ff:ff:ff\n", "ip": "192.168.181.90"},
            {"mac": "52:54:00:00:03:01", "ip": "192.168.181.90", "vci": "x" * 5000},
            {"mac": "52:54:00:00:03:01", "ip": "192.168.181.90", "name": "a\0b"},
        ):
            await self.assertFailure(
                client.call("ss.devices.register", **{"vci": "", "uci": "", **bad}), Refused
            )
        load.close(client)
        self.assertEqual(await self.devices(load), devices)
        await self.check_services(load)

    async def test_missing_image(self) -> None:
        """Without default image a board stays unknown, the reasons are logged, later ones try."""
        load = await self.start(image=False)
        reasons = "New rpi-4-b nodes will remain of type unknown until this is solved."
        for turn in (1, 2):
            result = await load.platform.event(
                "commit", UNKNOWN_MODEL, "", "192.168.181.30", "b8:27:eb:00:00:01", "", "0",
                "unknown",
            )
            self.assertEqual(result.status, 0, result.stderr)

            async def told(turn: int = turn) -> bool:
                return (await self.lines(load)).count(reasons) == turn

            await load.platform.until(told, f"the reasons, at announcement {turn}")
        lines = await self.lines(load)
        self.assertEqual(
            lines[:3],
            ["new device name=unknown-000001 type=unknown mac=b8:27:eb:00:00:01 ip=192.168.181.30",
             "Device unknown-000001 is a walt node of type 'rpi-4-b'.",
             "Trying to download a default image for 'rpi-4-b' nodes:"
             " waltplatform/rpi-4-b-default:latest..."],
        )
        trying = [line for line in lines if line.startswith("Trying to download")]
        self.assertEqual(len(trying), 2, lines)
        self.assertEqual((await self.devices(load))["b8:27:eb:00:00:01"][1], "unknown")
        # Its firmware finds the static files by every name that it may use.
        nodes = load.platform.state / "nodes"
        for name in ("b8:27:eb:00:00:01", "b8-27-eb-00-00-01", "192.168.181.30", "unknown-000001"):
            self.assertEqual(os.readlink(nodes / name), "probing")

    async def test_concurrency(self) -> None:
        """One MAC many times is one device; a claimed address stays with its first owner."""
        load = await self.start()
        clients = [await load.connect() for _ in range(5)]
        restarts = (await load.platform.services())["dhcpd"]["restarts"]
        refused = Deferred.fromCoroutine(self.refused_expressions(load))
        await gatherResults([
            client.call("ss.devices.register", vci="", uci=PC, mac="52:54:00:00:00:07",
                        ip="192.168.181.40")
            for client in clients for _ in range(20)
        ])
        await gatherResults([
            client.call("ss.devices.register", vci="", uci=PC, mac=f"52:54:00:00:04:{n:02x}",
                        ip="192.168.181.41")
            for n, client in enumerate(clients)
        ])
        await refused
        for client in clients:
            load.close(client)
        devices = await self.devices(load)
        self.assertEqual(len(devices), 6)
        self.assertEqual(
            [ip for _, _, ip in devices.values() if ip == "192.168.181.41"], ["192.168.181.41"]
        )
        lines = await self.lines(load)
        self.assertEqual(len([line for line in lines if "mac=52:54:00:00:00:07" in line]), 1)
        claims = [line for line in lines if "claims 192.168.181.41, the address of" in line]
        self.assertEqual(len(claims), 4)
        await self.check_addresses(load)
        # Each of these changes is one for dhcpd: they were merged.
        after = (await load.platform.services())["dhcpd"]["restarts"]
        self.assertLess(after - restarts, len(devices))
        await self.assertNotFatal(load)

    async def assertNotFatal(self, load: Load) -> None:
        """The server still answers, and nothing in its log is a bug."""
        await load.platform.ok("device", "show")
        self.assertNotIn("Traceback", load.platform.log.read_text())
