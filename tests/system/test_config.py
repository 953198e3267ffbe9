"""Settings, names, ownership and removal of devices, through the walt command."""

from __future__ import annotations

import json
import os
import sys
import time
from signal import SIGUSR2
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.dialogue import Dialogue
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load, Refused
from tests.system.test_images import tool
from walt.server.adapters.ssh.sessions import set_size
from walt.server.runtime.process import ProcessResult

PC = "walt.node.pc-x86-64"

# The password of root is `secret` (crypt(5)).
SHADOW = (
    "root:$6$walt$jIhBYLjd8iZI8LQWCa3s.tJUv8Uoxh7cPjhwPtoNpF"
    "U35FsaglJQd35HmxpMR95Z8SWjIiZ3ixnIFBSElXVTa0:19000:0:99999:7:::\n"
)


class ConfigTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_settings_names_and_ownership(self) -> None:
        """Boards known by DHCP alone are configured, renamed, acquired, forgotten."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        for number in (1, 2):
            mac = f"02:00:00:00:00:0{number}"
            ip = f"192.168.181.3{number}"
            await platform.event("commit", "", PC, ip, mac, "", "0", "unknown")
        await platform.event(
            "commit", "", "", "192.168.181.40", "02:00:00:00:00:09", "", "0", "unknown"
        )
        names = (await platform.ok("node", "show", "--all", "--names-only")).split()
        self.assertEqual(names, ["node-000001", "node-000002"])

        shown = await platform.ok("node", "config", "all-nodes")
        self.assertTrue(shown.startswith(
            "Nodes node-000001 and node-000002 have the following config applied:\n\n"
            "boot.retries=9\nboot.timeout=180\nexpose=none\nkexec.allow=true\n"
        ), shown)
        refused = await platform.walt(
            "node", "config", "all-nodes", "boot.retries=3", "ram=1G"
        )
        self.assertEqual(refused.status, 1)
        self.assertIn(b"not a virtual node", refused.stderr)
        self.assertEqual(await self._forwarding(platform, "echo 0 >"), "")
        told = await platform.ok(
            "device", "config", "node-000001", "netsetup=NAT", "boot.retries=3"
        )
        self.assertIn("Done. Reboot the node(s)", told)
        (one, two) = json.loads(await platform.ok("node", "config", "all-nodes", "--json"))
        self.assertEqual(one["settings"]["boot.retries"], 3)
        self.assertEqual(one["settings"]["netsetup"], "NAT")
        self.assertEqual(two["settings"]["boot.retries"], 9)

        async def may_leave() -> bool:
            return "192.168.181.31" in await self._rules(platform)

        await platform.until(may_leave, "the firewall lets the NAT node out", 10)
        self.assertEqual(await self._forwarding(platform, "cat"), "1\n")

        await self._check_completion(platform)
        await self._check_devices(platform)
        await self._check_pages(platform)
        for words, needed in (
            (("lldp.explore=true",), "needs snmp.version and snmp.community"),
            (("lldp.explore=true", "snmp.version=1"), "needs snmp.version and snmp.community"),
            (("snmp.version=4",), "expected a whole number"),
            (
                ("snmp.version=3", "snmp.community=x", "lldp.explore=true"),
                "needs snmp.version, snmp.user, snmp.auth and snmp.priv",
            ),
            (("snmp.auth=secret",), "snmp.auth=<set>: expected a printable text of 8"),
            (("poe.reboots=true", "snmp.version=2", "snmp.community=x"), "needs lldp.explore=true"),
        ):
            refused = await platform.walt(
                "device", "config", "unknown-000009", "type=switch", *words
            )
            self.assertEqual((refused.status, refused.stdout), (1, b""), words)
            self.assertIn(needed, refused.stderr.decode())
        converted = await platform.ok(
            "device", "config", "unknown-000009", "type=switch", "snmp.version=2",
            "snmp.community=public", "lldp.explore=true",
        )
        self.assertIn("Done.", converted)
        self.assertIn("switch-000009", await platform.ok("device", "show"))
        await platform.ok("device", "config", "switch-000009", "poe.reboots=true")
        shown = await platform.ok("device", "config", "switch-000009")
        self.assertTrue(shown.endswith(
            "\n\nexpose=none\nlldp.explore=true\nnetsetup=LAN\npoe.reboots=true\n"
            "snmp.auth=<unspecified>\nsnmp.auth.protocol=sha\nsnmp.community=public\n"
            "snmp.priv=<unspecified>\nsnmp.priv.protocol=aes\nsnmp.user=<unspecified>\n"
            "snmp.version=2\n"
        ), shown)
        for names, words, text in (
            ("switch-000009", "nothing=1", "no setting named 'nothing'"),
            ("switch-000009", "nothing", "write name=value"),
            ("switch-000009", "boot.retries=1", "it is not a node"),
            ("node-000001", "snmp.version=2", "it is not a switch"),
            ("node-000001", "type=switch", "is known already: node"),
            ("node-000001,node-000002", "cpu.cores=2", "node-000001 and node-000002: it is not a"),
            ("walt-server", "netsetup=NAT", "it is the server"),
            ("switch-000009", "type=node", "no other type can be given by hand"),
        ):
            refused = await platform.walt("device", "config", names, words)
            self.assertEqual((refused.status, refused.stdout), (1, b""), words)
            self.assertIn(text, refused.stderr.decode())
        await self._check_sets(platform)
        await self._check_rename(platform)

        acquired = await platform.walt("node", "acquire", "board2")
        self.assertIn(b"Node board2 will now boot pc-x86-64-small.", acquired.stdout)
        self.assertEqual(acquired.status, 1)  # it cannot be rebooted: no such board answers
        self.assertIn(b"failed soft-reboot (", acquired.stderr)
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertEqual((row["name"], row["image_name"]), ("board2", "pc-x86-64-small"))
        (row,) = json.loads(await platform.ok("node", "show", "--all", "--json", user="bob"))[
            "others"]
        self.assertEqual(
            (row["owner"], row["clonable_image_link"]),
            ("alice", "walt:alice/pc-x86-64-small"),
        )
        # One line for each reason, whatever the number of nodes.
        both = await platform.walt("node", "reboot", "all-nodes")
        self.assertEqual((both.status, both.stdout), (1, b""))
        self.assertRegex(both.stderr.decode(), (
            r"\ANodes board2 and node-000001: failed soft-reboot \(.+\) and poe-reboot"
            r" \(.+\)\n\Z"
        ))
        again = await platform.walt("node", "acquire", "board2")
        self.assertIn(b"already yours", again.stderr)
        other = await platform.walt("node", "reboot", "board2", user="bob", stdin=b"n\n")
        self.assertIn(b"belongs to alice.", other.stderr)
        self.assertIn(b"(y/n): ", other.stdout)
        self.assertEqual(other.status, 1)
        await platform.walt("node", "release", "board2")
        self.assertEqual(json.loads(await platform.ok("node", "show", "--json"))["own"], [])
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        for deed in (
            "node node-000001: netsetup=NAT boot.retries=3 set by alice",
            "device switch-000009: type=switch snmp.version=2 snmp.community=…"
            " lldp.explore=true set by alice",
            "node board2: acquire by alice",
            "node board2: image waltplatform/pc-x86-64-default instead of"
            " alice/pc-x86-64-small chosen by alice",
            "node board2: release by alice",
        ):
            self.assertIn(f" -> {deed}\n", events)

        self.assertEqual((await platform.walt("device", "forget", "ghost")).status, 1)
        nodes = platform.state / "nodes"
        (nodes / "board2" / "disks").mkdir()
        (nodes / "board2" / "disks" / "one").write_text("data")
        exports = platform.state / "services/ganesha/exports"

        def exported(text: str) -> bool:
            return any(text in one.read_text() for one in exports.glob("*.conf"))

        await platform.begins_to_boot("192.168.181.32")
        self.assertTrue(exported("02:00:00:00:00:02/persist_dirs"))
        self.assertEqual(await platform.ok("device", "forget", "board2"), "done.\n")
        async def gone() -> bool:
            return not (nodes / "02:00:00:00:00:02").exists() and not exported("02:00:00:00:00:02")

        await platform.until(gone, "directory and exports of the node are gone", 20)
        for name in ("board2", "192.168.181.32", "02-00-00-00-00-02"):
            self.assertNotEqual(
                os.path.realpath(nodes / name), str(nodes / "02:00:00:00:00:02"), name
            )
        self.assertEqual((await platform.walt("device", "ping", "ghost")).status, 1)
        no_node = await platform.walt("node", "ping", "walt-server")
        self.assertEqual((no_node.status, b"is not a node" in no_node.stderr), (1, True))
        server = await platform.walt("device", "forget", "walt-server")
        self.assertEqual(server.status, 1)

    async def _check_devices(self, platform: LivePlatform) -> None:
        """By type, then by name; empty columns are left out; unknown ones apart."""
        shown = (await platform.ok("device", "show")).split("\n\n")
        self.assertEqual(shown[0], "\nThe network has the following devices:")
        rows = [line.split("  ") for line in shown[1].splitlines()]
        cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        self.assertEqual([cells[0], *cells[2:4]], [
            ["name", "ip", "mac", "type", "netsetup"],
            ["node-000001", "192.168.181.31", "02:00:00:00:00:01", "node (physical)", "NAT"],
            ["node-000002", "192.168.181.32", "02:00:00:00:00:02", "node (physical)", "LAN"],
        ])
        self.assertEqual((cells[4][:2], cells[4][3:]), (["walt-server", "192.168.181.1"],
                                                        ["server"]))
        self.assertIn("walt device forget <name>\n\nDevices of unknown type:", "\n\n".join(shown))
        self.assertIn("unknown-000009  192.168.181.40  02:00:00:00:00:09  unknown  LAN", shown[4])
        self.assertIn("walt device config <name> type=switch\n", shown[5])

    async def _forwarding(self, platform: LivePlatform, command: str) -> str:
        """Read or change whether the kernel of the server routes packets."""
        return (await platform.runner.run([
            "nsenter", f"--net=/run/netns/{platform.namespace}", "sh", "-c",
            f"{command} /proc/sys/net/ipv4/ip_forward",
        ])).stdout.decode()

    async def _check_sets(self, platform: LivePlatform) -> None:
        """The keywords of sets, lists without doubles, what is wrong in them."""
        nodes = ["node-000001", "node-000002"]
        for text, expected in (
            ("all-nodes", nodes), ("free-nodes", nodes), ("all-switches", ["switch-000009"]),
            ("explorable-switches", ["switch-000009"]), ("server", ["walt-server"]),
            ("all-devices", [*nodes, "switch-000009", "walt-server"]),
            ("node-000002,free-nodes,node-000002", nodes),
        ):
            groups = json.loads(await platform.ok("device", "config", text, "--json"))
            names = sorted(name for group in groups for name in group["names"])
            self.assertEqual(names, expected, text)
        shown = await platform.ok("device", "config", "switch-000009,node-000002,server")
        self.assertEqual([one.split("\n")[0] for one in shown.split("\n\n\n")], [
            "Node node-000002 has the following config applied:",
            "Switch switch-000009 has the following config applied:",
            "Server walt-server has no configuration option.",
        ])
        for words, told in (
            (("device", "config", "my-nodes"), "my-nodes"), (("node", "config", "x,y"), '"x"'),
            (("node", "config", "all-nodes,switch-000009"), "switch-000009 is not a node"),
        ):
            refused = await platform.walt(*words)
            self.assertEqual((refused.status, refused.stdout), (1, b""), words)
            self.assertIn(told, refused.stderr.decode())

    async def _check_rename(self, platform: LivePlatform) -> None:
        """DHCP, DNS and boot links follow a new name; bad and taken ones are refused."""
        self.assertEqual(await platform.ok("node", "rename", "node-000002", "board2"), "")
        for name in ("node-000001", "x", "1x", "-x", "a_b", "a.b", "all-nodes", "x" * 64):
            refused = await platform.walt("device", "rename", "--", "board2", name)
            self.assertEqual((refused.status, refused.stdout), (1, b""), name)
        nodes = platform.state / "nodes"
        self.assertEqual(os.readlink(nodes / "board2"), "02:00:00:00:00:02")
        self.assertNotEqual(os.path.realpath(nodes / "node-000002"), str(nodes / "board2"))
        services = platform.state / "services"

        async def followed() -> bool:
            zone = (services / "named" / "walt.forward.zone").read_text()
            dhcp = (services / "dhcpd" / "dhcpd.conf").read_text()
            return "board2" in zone and 'host-name "board2"' in dhcp and (
                "node-000002" not in zone + dhcp
            )

        await platform.until(followed, "DHCP and DNS have the new name", 15)

    async def _web(
        self, platform: LivePlatform, path: str, *options: str
    ) -> tuple[int, str, bytes]:
        """Ask the web server from its own machine; return status, headers and body."""
        answer = (await platform.runner.run([
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--", "curl", "-s", "-i",
            "--path-as-is", *options, f"http://192.168.181.1{path}",
        ])).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body

    async def _check_pages(self, platform: LivePlatform) -> None:
        """Boot files, errors, and what programs read of nodes, images and logs."""
        served = platform.state / "nodes" / "node-000001" / "tftp" / "start.ipxe"
        await platform.until(lambda: succeed(served.exists()), "the image is mounted", 20)
        node = "node_ip=192.168.181.31"
        status, head, body = await self._web(platform, f"/boot/start.ipxe?{node}")
        self.assertEqual((status, body), (200, served.read_bytes()))
        self.assertIn(f"content-length: {len(body)}\r\n", f"{head.lower()}\r\n")
        for path in ("/boot/none", f"/boot/../../../etc/passwd?{node}", "/boot/start.ipxe"):
            for prefer, expected in (
                ("errors=text-only", b"No such file.\n"),
                ("errors=json", b'{"error": "No such file.", "status_code": 404}'),
            ):
                status, _, body = await self._web(platform, path, "-H", f"Prefer: {prefer}")
                self.assertEqual((status, body), (404, expected), path)
        status, head, body = await self._web(platform, "/boot/none")
        self.assertEqual((status, b"<html>" in body), (404, True))
        self.assertEqual((await self._web(platform, "/boot/x?node_ip=y"))[0], 400)
        status, head, _ = await self._web(platform, "/favicon.ico")
        self.assertEqual((status // 100, "/doc/_static/logo-walt.png" in head), (3, True))

        async def found(path: str, kind: str, number: int) -> list[dict[str, Any]]:
            status, _, body = await self._web(platform, f"/api/v1/{path}")
            self.assertEqual(status, 200, body)
            answer = json.loads(body)
            rows: list[dict[str, Any]] = answer[kind]
            self.assertEqual((answer[f"num_{kind}"], len(rows)), (number, number), path)
            return rows

        (one,) = await found("nodes?name=node-000001&booted=false&model=", "nodes", 1)
        self.assertEqual(
            (one["image"], one["virtual"], one["ip"], one["config"]["netsetup"],
             one["config"]["boot.retries"], one["config"]["kexec.allow"]),
            ("waltplatform/pc-x86-64-default:latest", False, "192.168.181.31", "NAT", 3, True),
        )
        self.assertEqual(set(one), {
            "name", "mac", "ip", "type", "virtual", "model", "image", "image_name", "owner",
            "clonable_image_link", "netsetup", "booted", "powersave", "state", "boot_stage",
            "failure", "trouble", "config", "reserved_by", "reserved_until",
        })
        shown = json.loads(await platform.ok("node", "show", "--all", "--json"))
        self.assertIn(one, [row for rows in shown.values() for row in rows])
        await found("nodes?virtual=true", "nodes", 0)
        await found("nodes", "nodes", 2)
        (image,) = await found(
            "images?refresh=true&in_use=true&user=waltplatform"
            "&fullname=waltplatform/pc-x86-64-default:latest", "images", 1,
        )
        self.assertEqual(set(image), {
            "name", "fullname", "user", "id", "digest", "in_use", "created", "size",
            "compatibility", "clonable_link",
        })
        self.assertEqual(image["compatibility"], ["pc-x86-64"])
        await found(f"images?id={image['id']}", "images", 1)
        await found("images?in_use=0", "images", 0)
        now = time.time()
        bounds = f"from={now - 600}&to={now + 1}"
        new = await found(
            f"logs?{bounds}&issuer=walt-server&stream=platform.devices", "logs", 3
        )
        self.assertEqual([one["line"].split()[:2] for one in new], [
            ["new", "node"], ["new", "node"], ["new", "device"],
        ])
        bounds = f"from={new[0]['timestamp'] * 1000}&to={new[2]['timestamp'] * 1000}&ts_unit=ms"
        (middle,) = await found(f"logs?{bounds}&stream=platform.devices", "logs", 1)
        self.assertEqual(middle["line"], new[1]["line"])
        self.assertAlmostEqual(middle["timestamp"] / 1000, new[1]["timestamp"], 3)
        await found(f"logs?from={now - 600}&to={now + 1}&issuer=nobody", "logs", 0)
        for wrong in (
            "nodes?size=3", "nodes?booted=maybe", "images?name=x", "logs", f"logs?from={now}",
            f"logs?from=x&to={now}", f"logs?from=1000&to={now}", f"logs?from={now}&to={now + 60}",
            f"logs?from={now - 9}&to={now}&ts_unit=h",
        ):
            status, _, body = await self._web(
                platform, f"/api/v1/{wrong}", "-H", "Prefer: errors=json"
            )
            self.assertEqual((status, json.loads(body)["status_code"]), (400, 400), wrong)

    async def _check_completion(self, platform: LivePlatform) -> None:
        """AMP clients get the candidates of the shell completion."""
        client = await Load(platform).connect()
        await client.call("hello", program="test", version="1", protocol="1", username="alice")
        for kind, words, partial, expected in (
            ("NODE", [], "node-", ["node-000001", "node-000002"]),
            ("SET_OF_NODES", [], "node-000001,fr",
             ["node-000001,free-nodes", "node-000001,free-nodes,"]),
            ("DEVICE", [], "unk", ["unknown-000009"]),
            ("NODE_CONFIG_PARAM", ["walt", "node", "config", "all-nodes"], "kex",
             ["kexec.allow=a", "kexec.allow=b"]),
            ("NO_SUCH_TYPE", [], "x", []),
        ):
            answer = await client.call(
                "cs.server.complete", kind=kind, words=json.dumps(words), partial=partial
            )
            self.assertEqual(json.loads(answer[b"candidates"]), expected)
        with self.assertRaises(Refused):
            await client.call("cs.server.complete", kind="NODE", words="1", partial="")
        Load.close(client)

    async def test_expose(self) -> None:
        """A port of the server leads to a port of a device, until the setting changes."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        # The device is the server's own address in walt-net: its HTTP service answers.
        await platform.event(
            "commit", "", "", "192.168.181.50", "02:00:00:00:00:0a", "web", "0", "unknown"
        )
        name = "web-00000a"
        inside = ["nsenter", f"--net=/run/netns/{platform.namespace}", "--"]
        await platform.runner.run(
            [*inside, "ip", "address", "add", "192.168.181.50/24", "dev", "walt-net"]
        )
        port = 20000 + platform.pid % 10000
        await platform.ok("device", "config", name, f"expose=80:{port}")
        page = await platform.runner.run(["curl", "-s", f"http://127.0.0.1:{port}/"])
        self.assertIn(b"WalT server HTTP service", page.stdout)
        taken = await platform.walt("device", "config", "walt-server", f"expose=80:{port}")
        self.assertEqual(taken.status, 1)
        await platform.ok("device", "config", name, "expose=none")
        closed = await platform.runner.run(
            ["curl", "-s", f"http://127.0.0.1:{port}/"], check=False
        )
        self.assertEqual(closed.status, 7)
        await platform.ok("device", "ping", name)
        await self._device_shell(platform, name)
        await self._refused_forwards(platform, name, port)
        await self._restored_forwards(platform, name, port)
        await self._forget(platform, name)
        self.assertEqual((await self.page(platform, port)).status, 7)

    async def page(self, platform: LivePlatform, port: int) -> ProcessResult:
        """Ask the web service behind a port of the server; status 7: nobody listens."""
        return await platform.runner.run(
            ["curl", "-s", "--max-time", "20", f"http://127.0.0.1:{port}/"], check=False
        )

    async def _refused_forwards(self, platform: LivePlatform, name: str, port: int) -> None:
        """Values that are none, ports that somebody has; a device that is gone."""
        await platform.event(
            "commit", "", "", "192.168.181.60", "02:00:00:00:00:0b", "gone", "0", "unknown"
        )
        other = "gone-00000b"
        taken = platform.reactor.listenTCP(0, Factory())
        self.addCleanup(taken.stopListening)
        busy = taken.getHost().port
        for value, text in (
            ("80", "not <device-port>:<server-port>"), ("80:99999", "between 1 and 65535"),
            (f"80:{port},80:{port + 1}", "device port 80 is given twice"),
            (f"80:{port},81:{port}", f"server port {port} is given twice"),
            (f"80:{busy}", f"port {busy} of the server is in use"),
        ):
            refused = await platform.walt("device", "config", name, f"expose={value}")
            self.assertEqual((refused.status, text in refused.stderr.decode()), (1, True), refused)
        both = await platform.walt("device", "config", f"{name},{other}", f"expose=80:{port}")
        self.assertEqual((both.status, b"one device at a time" in both.stderr), (1, True))
        await platform.ok("device", "config", name, f"expose=80:{port}")
        mine = await platform.walt("device", "config", other, f"expose=80:{port}")
        self.assertEqual((mine.status, b"is in use" in mine.stderr), (1, True))
        # A second port; the first one is not interrupted, and closed when it is given up.
        reader, writer = await self._open(platform, port)
        await platform.ok("device", "config", name, f"expose=80:{port},22:{port + 1}")
        writer.write(b"GET / HTTP/1.1\r\nHost: walt-server\r\n\r\n")
        await platform.until(lambda: succeed(b"200 OK" in reader), "the connection still works", 10)
        await platform.ok("device", "config", name, f"expose=22:{port + 1}")
        await platform.until(lambda: succeed(not writer.connected), "it was closed", 10)
        self.assertEqual((await self.page(platform, port)).status, 7)
        # Nobody is at this address: the connection ends, instead of hanging.
        await platform.ok("device", "config", other, f"expose=80:{port}")
        self.assertIn((await self.page(platform, port)).status, (52, 56))
        await platform.ok("device", "config", other, "expose=none")

    async def _open(self, platform: LivePlatform, port: int) -> tuple[bytearray, Any]:
        """Connect to a port of the server; return what will be received, and the transport."""
        received = bytearray()

        class Kept(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received.extend(data)

        endpoint = TCP4ClientEndpoint(platform.reactor, "127.0.0.1", port)
        return received, (await endpoint.connect(Factory.forProtocol(Kept))).transport

    async def _restored_forwards(self, platform: LivePlatform, name: str, port: int) -> None:
        """A restarted server forwards again, but for a port that somebody took meanwhile."""
        await platform.ok("device", "config", name, f"expose=80:{port},22:{port + 1}")
        await platform.ok("device", "config", "gone-00000b", "netsetup=NAT")
        await platform.stop(SIGUSR2)
        thief = platform.reactor.listenTCP(port + 1, Factory())
        self.addCleanup(thief.stopListening)
        await platform.start()
        # The address of the device went with the namespace of the server.
        await platform.runner.run([
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--",
            "ip", "address", "add", "192.168.181.50/24", "dev", "walt-net",
        ])

        async def back() -> bool:
            return b"WalT server HTTP service" in (await self.page(platform, port)).stdout

        await platform.until(back, "the forward is restored", 20)
        self.assertIn("192.168.181.60", await self._rules(platform))
        events = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "server", "--streams",
            "platform.expose", "--format", "{line}",
        )
        self.assertIn(f"could not restore the forwards of {name}", events)
        self.assertIn(f"port {port + 1} of the server is in use", events)

    async def _forget(self, platform: LivePlatform, name: str) -> None:
        """A device with log lines is forgotten with --force only; consoles do not count."""
        for stream, lines in (("myconsole", "one\n"), ("exp", "one\ntwo\n")):
            await platform.runner.run([
                "nsenter", f"--net=/run/netns/{platform.namespace}", "--", "socat", "-t", "10",
                "-", "TCP:192.168.181.1:12347,bind=192.168.181.50",
            ], stdin=f"REQ_NEW_INCOMING_LOGS\n{stream}\nNO_TIMESTAMPS\n{lines}CLOSE\n".encode())
        refused = await platform.walt("device", "forget", name)
        self.assertEqual((refused.status, refused.stdout), (1, b""))
        self.assertIn(f"2 log lines of {name} would be lost", refused.stderr.decode())
        self.assertIn(f"walt device forget --force {name}", refused.stderr.decode())
        person = Dialogue((b"(y/n): ", b"n\n"))
        platform.reactor.spawnProcess(
            person, sys.executable,
            [sys.executable, "-m", "walt.client.main", "device", "forget", name],
            {**os.environ, **platform.environment(), "TERM": "xterm"}, usePTY=True,
        )
        self.assertEqual(await person.ended, 1)
        self.assertIn(f"2 log lines of {name} would be lost".encode(), person.seen)
        self.assertIn(name, await platform.ok("device", "show"))
        self.assertEqual(await platform.ok("device", "forget", "--keep-logs", name), "done.\n")
        self.assertNotIn(name, await platform.ok("device", "show"))
        await self._kept_logs(platform, name)
        self.assertEqual(await platform.ok("device", "forget", "gone-00000b"), "done.\n")

        async def withdrawn() -> bool:
            return "192.168.181.60" not in await self._rules(platform)

        await platform.until(withdrawn, "the firewall forgot it too", 10)

    async def _kept_logs(self, platform: LivePlatform, name: str) -> None:
        """Lines of a device that is gone are read by its name, over a restart, until forgotten."""
        lines = ("log", "show", "--history", "full", "--issuers", name, "--format")
        # A server whose network card was replaced is another device: its own log is kept.
        load = Load(platform)
        await load.database.execute(
            "INSERT INTO devices (mac, name, type)"
            " VALUES ('02:00:00:00:00:99', 'before', 'server');"
            "INSERT INTO logstreams (issuer_mac, name) VALUES ('02:00:00:00:00:99', 'exp');"
            "INSERT INTO logs (stream_id, timestamp, place, arrival, line)"
            " SELECT id, now(), now(), 0, 'kept' FROM logstreams"
            " WHERE issuer_mac = '02:00:00:00:00:99'"
        )
        load.database.close()
        for _ in range(2):
            self.assertEqual(
                await platform.ok(*lines, "{issuer}.{stream} {line}"),
                f"{name}.exp one\n{name}.exp two\n",
            )
            await platform.stop(SIGUSR2)
            await platform.start()
        self.assertNotIn("before", await platform.ok("device", "show"))
        old = ("log", "show", "--history", "full", "--issuers", "before", "--format", "{line}")
        self.assertEqual(await platform.ok(*old), "kept\n")
        file = platform.base / "kept"
        await platform.ok("log", "export", "--issuers", name, "--streams", "exp", str(file))
        self.assertEqual(len(file.read_text().splitlines()), 2)
        refused = await platform.walt("device", "forget", name)
        self.assertIn(f"2 log lines of {name} would be lost", refused.stderr.decode())
        self.assertEqual(await platform.ok("device", "forget", "--force", name), "done.\n")
        unknown = await platform.walt(*lines, "{line}")
        self.assertEqual(unknown.status, 1)
        self.assertIn(f'no device named "{name}"', unknown.stderr.decode())

    async def _rules(self, platform: LivePlatform) -> str:
        """Return the rules of the firewall."""
        return (await platform.runner.run([
            "nsenter", f"--net=/run/netns/{platform.namespace}", "nft", "list", "table", "ip",
            "walt",
        ])).stdout.decode()

    async def _device_shell(self, platform: LivePlatform, name: str) -> None:
        """A shell on a device that runs a real ssh server, through a real pseudo-terminal."""
        shadow = platform.base / "shadow"
        shadow.write_text(SHADOW)
        host_key = platform.base / "host.key"
        await platform.runner.run(["dropbearkey", "-t", "ed25519", "-f", str(host_key)])
        server = ProcessProtocol()
        argv = [
            "nsenter", f"--net=/run/netns/{platform.namespace}", "unshare", "--mount", "sh", "-c",
            'mount -o bind "$1" /etc/shadow && exec dropbear -F -E -p 192.168.181.50:22 -r "$2"'
            ' -P "$3"',
            "sh", str(shadow), str(host_key), str(platform.base / "dropbear.pid"),
        ]
        transport = platform.reactor.spawnProcess(server, argv[0], argv, dict(os.environ))
        self.addCleanup(_end, platform, transport)

        async def listening() -> bool:
            return (platform.base / "dropbear.pid").exists()

        await platform.until(listening, "the ssh server of the device", 10)
        typed = b"stty size; echo sum=$((40 + 2)); exit 3\r"
        shell = Dialogue((b"assword:", b"secret\r"), (b"#", typed))
        platform.reactor.spawnProcess(
            shell, sys.executable,
            [sys.executable, "-m", "walt.client.main", "device", "shell", "--user", "root", name],
            {**os.environ, **platform.environment(), "TERM": "xterm"}, usePTY=True,
        )
        set_size(shell.transport.fd, 33, 99)
        self.assertEqual(await shell.ended.addTimeout(30, platform.reactor), 3, shell.seen)
        self.assertIn(b"33 99", shell.seen)
        self.assertIn(b"sum=42", shell.seen)
        # The same by hand, beside the server.
        by_hand = [*tool("walt-device-ssh"), "--config", str(platform.config), "--"]
        environment = {"PYTHONPATH": str(ROOT), "HOME": "/root"}
        shell = Dialogue((b"assword:", b"secret\r"), (b"#", typed))
        argv = [*by_hand, "root@192.168.181.50"]
        platform.reactor.spawnProcess(
            shell, argv[0], argv, {**os.environ, **environment, "TERM": "xterm"}, usePTY=True,
        )
        self.assertEqual(await shell.ended.addTimeout(30, platform.reactor), 3, shell.seen)
        for target in ("-oProxyCommand=x", "a b"):
            refused = await platform.runner.run([*by_hand, target], check=False, env=environment)
            self.assertEqual(refused.status, 2, refused)


async def _end(platform: LivePlatform, transport: Any) -> None:
    transport.signalProcess("TERM")
    while transport.pid:
        await platform.sleep(0.05)
