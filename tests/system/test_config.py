"""Settings, names, ownership and removal of devices, through the walt command."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from tests.system.live import LivePlatform, why_not
from tests.system.load import Load, Refused
from tests.system.test_life import Typist
from walt.server.adapters.ssh.sessions import set_size

PC = "walt.node.pc-x86-64"


class ConfigTests(TestCase):
    skip = why_not()
    timeout = 180

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
        told = await platform.ok(
            "device", "config", "node-000001", "netsetup=NAT", "boot.retries=3"
        )
        self.assertIn("Done. Reboot the node(s)", told)
        (one, two) = json.loads(await platform.ok("node", "config", "all-nodes", "--json"))
        self.assertEqual(one["settings"]["boot.retries"], "3")
        self.assertEqual(one["settings"]["netsetup"], "NAT")
        self.assertEqual(two["settings"]["boot.retries"], "9")

        async def may_leave() -> bool:
            rules = await platform.runner.run([
                "nsenter", f"--net=/run/netns/{platform.namespace}",
                "nft", "list", "table", "ip", "walt",
            ])
            return b"192.168.181.31" in rules.stdout

        await platform.until(may_leave, "the firewall lets the NAT node out", 10)

        await self._check_completion(platform)
        converted = await platform.ok(
            "device", "config", "unknown-000009", "type=switch", "snmp.version=2",
            "snmp.community=public", "lldp.explore=true",
        )
        self.assertIn("Done.", converted)
        self.assertIn("switch-000009", await platform.ok("device", "show"))
        missing = await platform.walt("device", "config", "switch-000009", "nothing=1")
        self.assertIn(b"no setting named 'nothing'", missing.stderr)

        await platform.ok("node", "rename", "node-000002", "board2")
        taken = await platform.walt("device", "rename", "board2", "node-000001")
        self.assertEqual((taken.status, taken.stdout), (1, b""))
        self.assertTrue((platform.state / "nodes" / "board2").is_symlink())

        acquired = await platform.walt("node", "acquire", "board2")
        self.assertIn(b"Node board2 will now boot pc-x86-64-small.", acquired.stdout)
        self.assertEqual(acquired.status, 1)  # it cannot be rebooted: no such board answers
        self.assertIn(b"failed soft-reboot (", acquired.stderr)
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertEqual((row["name"], row["image"]), ("board2", "pc-x86-64-small"))
        again = await platform.walt("node", "acquire", "board2")
        self.assertIn(b"already yours", again.stderr)
        other = await platform.walt("node", "reboot", "board2", user="bob", stdin=b"n\n")
        self.assertIn(b"belongs to other users", other.stderr)
        self.assertIn(b"(y/n): ", other.stdout)
        self.assertEqual(other.status, 1)
        await platform.walt("node", "release", "board2")
        self.assertEqual(json.loads(await platform.ok("node", "show", "--json"))["own"], [])

        self.assertEqual((await platform.walt("device", "forget", "ghost")).status, 0)
        self.assertEqual(await platform.ok("device", "forget", "board2"), "done.\n")
        self.assertFalse((platform.state / "nodes" / "board2").is_symlink())
        self.assertEqual((await platform.walt("device", "ping", "ghost")).status, 1)
        server = await platform.walt("device", "forget", "walt-server")
        self.assertEqual(server.status, 1)

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
        await platform.ok("device", "config", name, f"expose=80:{port}")
        await platform.runner.run(["curl", "-s", f"http://127.0.0.1:{port}/"])
        await platform.ok("device", "forget", "--force", name)
        closed = await platform.runner.run(
            ["curl", "-s", f"http://127.0.0.1:{port}/"], check=False
        )
        self.assertEqual(closed.status, 7)

    async def _device_shell(self, platform: LivePlatform, name: str) -> None:
        """A shell on a device that runs a real ssh server, through a real pseudo-terminal."""
        keys = platform.base / "authorized"
        keys.mkdir(mode=0o700)
        shutil.copy("/root/.ssh/id_rsa.pub", keys / "authorized_keys")
        host_key = platform.base / "host.key"
        await platform.runner.run(["dropbearkey", "-t", "ed25519", "-f", str(host_key)])
        server = ProcessProtocol()
        argv = [
            "nsenter", f"--net=/run/netns/{platform.namespace}", "unshare", "--mount", "sh", "-c",
            'mount -o bind "$1" /root/.ssh && exec dropbear -F -E -s -p 192.168.181.50:22 -r "$2"'
            ' -P "$3"',
            "sh", str(keys), str(host_key), str(platform.base / "dropbear.pid"),
        ]
        transport = platform.reactor.spawnProcess(server, argv[0], argv, dict(os.environ))
        self.addCleanup(_end, platform, transport)

        async def listening() -> bool:
            return (platform.base / "dropbear.pid").exists()

        await platform.until(listening, "the ssh server of the device", 10)
        shell = Typist(b"stty size; echo sum=$((40 + 2)); exit 3\r")
        platform.reactor.spawnProcess(
            shell, sys.executable,
            [sys.executable, "-m", "walt.client.main", "device", "shell", "--user", "root", name],
            {**os.environ, **platform.environment(), "TERM": "xterm"}, usePTY=True,
        )
        set_size(shell.transport.fd, 33, 99)
        self.assertEqual(await shell.ended.addTimeout(30, platform.reactor), 3, shell.seen)
        self.assertIn(b"33 99", shell.seen)
        self.assertIn(b"sum=42", shell.seen)


async def _end(platform: LivePlatform, transport: Any) -> None:
    transport.signalProcess("TERM")
    while transport.pid:
        await platform.sleep(0.05)
