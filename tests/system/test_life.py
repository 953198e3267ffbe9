"""The life of a virtual node, driven by the walt command alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import LivePlatform, why_not
from walt.server.adapters.ssh.sessions import set_size


class Typist(ProcessProtocol):
    """Types a text when the prompt of a shell was seen, and keeps what is shown."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.seen = bytearray()
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.seen += data
        if self._text and b"# " in self.seen:
            text, self._text = self._text, b""
            self.transport.write(text)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


class NodeLifeTests(TestCase):
    skip = why_not()
    timeout = patient(400)

    async def _platform(self) -> LivePlatform:
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        return platform

    async def test_a_node_from_creation_to_removal(self) -> None:
        """It boots, runs commands, logs, forgets its changes at reboot, keeps /persist."""
        platform = await self._platform()
        created = await platform.ok("node", "create", "vnode1")
        self.assertIn("is now booting your image", created)
        await platform.ok("node", "config", "vnode1", "boot.delay=0")
        refused = await platform.walt("node", "create", "vnode1")
        self.assertEqual(refused.status, 1)
        self.assertIn(b"already named", refused.stderr)
        await platform.ok("node", "wait", *within(120), "vnode1")
        self._check_tables(await platform.ok("node", "show", "--json", "--all"))

        ran = await platform.walt(
            "node", "run", "vnode1", "--",
            "cat; hostname; touch /root/changed; echo kept > /persist/kept;"
            " mkdir -p /persist/logs/walt-init;"
            " echo from-the-node | walt-log-cat exp1; exit 7", stdin=b"typed\n",
        )
        self.assertEqual(ran.status, 7, ran.stderr)
        self.assertEqual(ran.stdout, b"typed\nvnode1\n")
        await platform.until(
            lambda: self._logged(platform, "vnode1.exp1 -> from-the-node", "vnode1"),
            "the line of the node",
        )

        await self._shell(platform)
        await platform.ok("node", "create", "vnode2")
        await platform.ok("node", "wait", *within(120), "my-nodes")
        both = await platform.walt(
            "node", "run", "my-nodes", "--", "hostname; test $(hostname) = vnode1"
        )
        self.assertEqual((both.status, both.stdout), (1, b"vnode1\nvnode2\n"))
        await platform.ok("node", "remove", "--force", "vnode2")

        self.assertIn("rebooted ok", await platform.ok("node", "reboot", "vnode1"))
        await platform.ok("node", "wait", *within(120), "vnode1")
        after = await platform.ok(
            "node", "run", "vnode1", "--", "cat /persist/kept; ls /root/changed || echo absent;"
            # The next boot was traced, as this directory asks for.
            " grep -l '^+' /persist/logs/walt-init/*.err | wc -l; rm -r /persist/logs"
        )
        self.assertRegex(after, r"\Akept\nabsent\n[1-9][0-9]*\n\Z")

        console = await self._console_while(
            platform, platform.ok("node", "reboot", "--hard", "vnode1")
        )
        self.assertIn(b"iPXE", console)
        await platform.ok("node", "wait", *within(120), "vnode1")
        await platform.ok("node", "boot", "vnode1", "default")
        await platform.ok("node", "wait", *within(120), "vnode1")
        free = json.loads(await platform.ok("node", "show", "--json", "--all"))
        self.assertEqual([row["name"] for row in free["free"]], ["vnode1"])
        persisted = await platform.ok("node", "run", "vnode1", "--", "ls /persist")
        self.assertEqual(persisted, "")  # /persist belongs to a node and an owner

        events = await platform.ok("log", "show", "--platform", "--history", "full")
        for line in (
            "platform.devices -> new node name=vnode1 model=pc-x86-64 mac=52:54:00:",
            "platform.nodes -> node vnode1 is booted",
            "node vnode1 is down (cause: reboot requested, method: soft-reboot)",
            "node vnode1 is down (cause: reboot requested, method: vnode hard-reboot)",
            "node vnode1 is down (cause: image change, method: soft-reboot)",
        ):
            self.assertIn(line, events)
        console = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "vnode1", "--streams",
            "virtualconsole", "iPXE",
        )
        self.assertIn("vnode1.virtualconsole -> b'", console)

        mac = os.readlink(platform.state / "nodes" / "vnode1")
        refused = await platform.walt("node", "remove", "vnode1")
        self.assertEqual((refused.status, refused.stdout), (1, b""))
        self.assertIn(b" of vnode1 would be lost", refused.stderr)
        self.assertIn(b"\nTo keep them, use: walt node remove --keep-logs vnode1\n", refused.stderr)
        await platform.ok("node", "remove", "--keep-logs", "vnode1")
        self.assertIn("no node yet", await platform.ok("node", "show", "--all"))
        kept = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "vnode1", "--streams", "console",
            "iPXE",
        )
        self.assertEqual(kept, console)

        async def gone() -> bool:
            return not (platform.state / "nodes" / mac).exists()

        await platform.until(gone, "the directory of the node is gone", 20)
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])

    async def _shell(self, platform: LivePlatform) -> None:
        """Open a shell through a real pseudo-terminal, type, and see the size of the window."""
        shell = Typist(b"stty size; echo sum=$((40 + 2)); exit\r")
        platform.reactor.spawnProcess(
            shell, sys.executable,
            [sys.executable, "-m", "walt.client.main", "node", "shell", "vnode1"],
            {**os.environ, **platform.environment(), "TERM": "xterm"}, usePTY=True,
        )
        set_size(shell.transport.fd, 33, 99)
        try:
            await shell.ended.addTimeout(60, platform.reactor)
        except TimeoutError:
            self.fail(f"the shell did not end: {bytes(shell.seen)!r}")
        self.assertIn(b"33 99", shell.seen)
        self.assertIn(b"sum=42", shell.seen)

    async def _console_while(self, platform: LivePlatform, work: Any) -> bytes:
        """Attach to the console by pipes while something happens; return what it showed."""
        console = Typist(b"")
        platform.reactor.spawnProcess(
            console, sys.executable,
            [sys.executable, "-m", "walt.client.main", "node", "console", "vnode1"],
            {**os.environ, **platform.environment()},
        )

        async def attached() -> bool:
            await platform.ok("node", "run", "vnode1", "--", "echo attached > /dev/console")
            return b"attached" in console.seen

        await platform.until(attached, "the console is attached", 20)
        console.seen.clear()
        await work
        await platform.ok("node", "wait", *within(120), "vnode1")
        console.transport.closeStdin()  # the end of input disconnects
        await console.ended.addTimeout(30, platform.reactor)
        return bytes(console.seen)

    def _check_tables(self, text: str) -> None:
        (row,) = json.loads(text)["own"]
        self.assertEqual(row["type"], "virtual")
        self.assertIs(row["booted"], True)
        self.assertEqual(row["ip"], "192.168.181.2")

    async def _logged(self, platform: LivePlatform, text: str, issuers: str) -> bool:
        return text in await platform.ok(
            "log", "show", "--history", "full", "--issuers", issuers
        )

    async def test_faults_with_a_booted_node(self) -> None:
        """Killed daemons come back, and a killed server finds its platform again."""
        platform = await self._platform()
        await platform.ok("node", "create", "vnode1")
        await platform.ok("node", "config", "vnode1", "boot.delay=0")
        await platform.ok("node", "wait", *within(120), "vnode1")
        for name in ("dhcpd", "named", "tftpd", "postgres", "ganesha"):
            before = (await platform.services())[name]
            await platform.runner.run(["kill", "-9", str(before["pid"])])

            async def restarted(name: str = name, before: dict = before) -> bool:
                row = (await platform.services())[name]
                return bool(row["running"]) and row["pid"] != before["pid"]

            await platform.until(restarted, f"{name} restarted")

        async def reads_its_root() -> bool:
            # The new NFS server first waits for its clients: its grace period.
            ran = await platform.walt("node", "run", "vnode1", "--", "cat /bin/walt-init")
            return ran.status == 0 and len(ran.stdout) > 1000

        await platform.until(reads_its_root, "the node reads its root again")
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertIs(row["booted"], True)

        for pid in await platform.machines():
            os.kill(pid, signal.SIGKILL)
        await platform.until(
            lambda: self._logged(platform, "the virtual machine ended", "server"), "node down"
        )
        await platform.ok("node", "wait", *within(120), "vnode1")

        self.assertEqual(await platform.stop(signal.SIGKILL), -1)
        await platform.start()
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertEqual(row["name"], "vnode1")
        await platform.ok("node", "wait", *within(120), "vnode1")
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn("new node name=vnode1", events)
        await platform.ok("node", "run", "vnode1", "--", "true")
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])
