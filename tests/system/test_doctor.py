"""`walt doctor` on a live platform: it finds nothing wrong, and each fault by its name."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.netns import sh
from walt.server.adapters.network.namespace import inside

MAC = "02:00:00:00:00:0b"
FILTER = """table ip foreign {{
	chain input {{
		type filter hook input priority 10; policy accept;
		iifname "walt-net" {protocol} dport {port} drop
	}}
}}
"""


class DoctorTests(TestCase):
    skip = why_not()
    timeout = patient(550)

    async def start(self) -> LivePlatform:
        """Return a server with a node that has an image."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        done = await platform.event(
            "commit", "", "walt.node.pc-x86-64", f"{platform.net}.11", MAC, "board", "0", "unknown"
        )
        self.assertEqual(done.status, 0, done.stderr)

        async def provisioned() -> bool:
            return (platform.state / "nodes" / MAC / "fs").exists()

        await platform.until(provisioned, "the node has its image", 30)
        return platform

    async def examine(
        self, platform: LivePlatform, machine: str = "true"
    ) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run the doctor; return its status and its findings by step.

        `machine` are words for a shell, which change what is mounted for the doctor alone.
        """
        done = await platform.runner.run(
            ["unshare", "--mount", "--", "sh", "-ec", f'{machine}; exec "$@"', "sh",
             sys.executable, "-m", "walt.client.main", "doctor", "--json", "--config",
             str(platform.config)],
            check=False, timeout=patient(120), env=platform.environment(),
        )
        self.assertEqual(done.stderr, b"")
        rows = json.loads(done.stdout)
        return done.status, {row["step"]: row for row in rows}

    async def finds(
        self, platform: LivePlatform, *expected: tuple[str, str], only: bool = True,
        machine: str = "true",
    ) -> None:
        """The doctor finds these steps wrong, with these words, and no other one."""
        status, rows = await self.examine(platform, machine)
        self.assertEqual(status, 1)
        wrong = {step: row for step, row in rows.items() if row["state"] == "wrong"}
        for step, words in expected:
            self.assertIn(step, wrong, wrong)
            self.assertIn(words, wrong[step]["text"])
            self.assertTrue(wrong[step]["remedy"], wrong[step])
        if only:
            self.assertEqual(set(wrong), {step for step, _ in expected}, wrong)

    async def test_nothing_wrong(self) -> None:
        """One line a step, status 0; nothing is left, and no device was registered."""
        platform = await self.start()
        before = json.loads(await platform.ok("device", "show", "--json"))
        done = await platform.walt(
            "doctor", "--config", str(platform.config), timeout=patient(120)
        )
        told = done.stdout.decode()
        self.assertEqual(done.status, 0, told + done.stderr.decode())
        for words in (
            "ok      server: it answers", "ok      DHCP BIOS: 192.168.181.",
            "pxe/walt-x86-64-snponly.efi", "ok      DNS: named answers nodes at port 53",
            "ok      NFS: the NFS server answers nodes", "ok      images of nodes: those of 1",
        ):
            self.assertIn(words, told)
        self.assertNotIn("WRONG", told)
        self.assertNotIn("walt-doctor", sh("ip", "netns", "list"))
        self.assertEqual(json.loads(await platform.ok("device", "show", "--json")), before)

    async def test_daemons_that_hang(self) -> None:
        """Each one that is stopped is found by its protocol, and no other one."""
        platform = await self.start()
        for name, expected in (
            ("named", [("DNS", "no answer within")]),
            ("tftpd", [("TFTP pxe/walt-x86-64-snponly.efi", "in.tftpd at")]),
            ("nbdkit", [("swap", "nbdkit at")]),
            ("ganesha", [("NFS", "no answer within")]),
            ("dhcpd", [("DHCP plain", "offers no address")]),
            ("postgres", [("database", "no answer within")]),
        ):
            with stopped((await platform.services())[name]["pid"]):
                await self.finds(platform, *expected)
        status, rows = await self.examine(platform)
        self.assertEqual(status, 0, rows)

    async def test_files_and_rules(self) -> None:
        """What was removed, filtered or changed below a running server."""
        platform = await self.start()
        pxe, node = platform.state / "pxe", platform.state / "nodes" / MAC
        for undo, expected in (
            (moved(pxe / "walt.ipxe"), [("TFTP pxe/walt.ipxe", "does not send")]),
            (moved(pxe / "walt-x86-undionly.kpxe"),
             [("TFTP pxe/walt-x86-undionly.kpxe", "does not send")]),
            (moved(node / "fs"), [("images of nodes", "not mounted: board")]),
            (moved(platform.state / "nodes" / f"{platform.net}.11"),
             [("boot links", f"{platform.net}.11")]),
            (moved(platform.state / "containers/storage/overlay-images/images.json"),
             [("podman", "the storage lacks waltplatform/pc-x86-64-default")]),
            (self.filtered(platform, "udp", 53), [("DNS", "port 53 (udp) is filtered")]),
            (self.filtered(platform, "tcp", 80), [("HTTP", "port 80 (tcp) is filtered")]),
            (self.filtered(platform, "tcp", 2049), [("NFS", "port 2049 (tcp) is filtered")]),
            (self.filtered(platform, "tcp", 12347),
             [("streams", "port 12347 (tcp) is filtered")]),
            (self.filtered(platform, "tcp", 12345), [("calls", "port 12345 (tcp) is filtered")]),
        ):
            with ExitStack() as stack:
                stack.enter_context(undo)
                await self.finds(platform, *expected)
        status, rows = await self.examine(platform)
        self.assertEqual(status, 0, rows)

    async def test_network(self) -> None:
        """An interface that is down, an address and a table that are gone, a foreign server."""
        platform = await self.start()
        here = ["ip", "netns", "exec", platform.namespace]
        with self.rogue(platform):
            await self.finds(
                platform, ("other DHCP servers", f"{platform.net}.200"),
            )
        sh(*here, "nft", "delete", "table", "ip", "walt")
        await self.finds(platform, ("packet filter", "the table walt is not there"))
        sh(*here, "ip", "link", "set", "walt-net-dummy", "nomaster")
        await self.finds(
            platform, ("walt-net", "walt-net-dummy is not a port of walt-net"),
            ("packet filter", ""),
        )
        sh(*here, "ip", "address", "del", f"{platform.net}.1/24", "dev", "walt-net")
        await self.finds(
            platform, ("walt-net", "does not have the address"), only=False
        )
        sh(*here, "ip", "link", "set", "walt-net", "down")
        await self.finds(platform, ("walt-net", "walt-net is down"), only=False)

    async def test_dhcp_classes(self) -> None:
        """Each kind of machine that is told to load something else is found by its name."""
        platform = await self.start()
        good = (platform.state / "services/dhcpd/dhcpd.conf").read_text()
        for change, wrong in (
            (lambda text: text.replace('filename "pxe/', 'filename "other/'),
             ("BIOS", "UEFI", "iPXE")),
            (lambda text: 'filename "other/file";\n' + good, ("plain", "node", "Raspberry Pi")),
            (lambda text: good, ()),
        ):
            await self.changed_dhcpd(platform, change)
            if wrong:
                await self.finds(platform, *(
                    (f"DHCP {name}", "it is told to load 'other/") for name in wrong
                ))
        status, rows = await self.examine(platform)
        self.assertEqual(status, 0, rows)

    async def test_the_machine(self) -> None:
        """A program that is missing, a disk that is full, or that cannot be written to."""
        platform = await self.start()
        state, runtime = platform.state, platform.runtime
        for done, expected in (
            ('mount --bind /dev/null "$(command -v mkfs.xfs)"', [("programs", "xfsprogs")]),
            (f"mount -t tmpfs -o size=64m none {runtime}", [
                (f"space {runtime}", "only 64 MiB are free"), ("server", "it does not run"),
            ]),
            (f"mount -t tmpfs -o size=900m,nr_inodes=100 none {state}", [
                (f"space {state}", "more files can be made"),
            ]),
            (f"mount --bind {state} {state} && mount -o remount,bind,ro {state}", [
                (f"space {state}", "is read-only"),
            ]),
        ):
            await self.finds(platform, *expected, only=len(expected) == 1 and "bind /dev" in done,
                             machine=done)
        status, rows = await self.examine(platform)
        self.assertEqual(status, 0, rows)

    async def test_the_server(self) -> None:
        """It hangs, is not there, its directory is read-only, its configuration wrong."""
        platform = await self.start()
        with stopped(platform.pid):
            await self.finds(
                platform, ("server", "does not answer within"), ("HTTP", "no answer within"),
                ("calls", "no answer within"), ("streams", "no answer within"),
            )
        await platform.stop(signal.SIGKILL)
        await self.finds(
            platform, ("server", "no WalT server answers"), ("database", ""),
            ("DHCP plain", ""), ("NFS", ""), only=False,
        )
        await platform.start()
        await platform.stop()
        await self.finds(platform, ("server", "it does not run"), only=False)
        good = platform.config.read_text()
        platform.config.write_text(good + "boot: {reconnect-grace: soon}\n")
        await self.finds(platform, ("server.conf", "reconnect-grace: expected"))
        platform.config.write_text(good.replace("walt-net:", "walt-nett:"))
        await self.finds(platform, ("server.conf", "walt-net: missing"))
        platform.config.unlink()
        await self.finds(platform, ("server.conf", "does not exist"))

    # -- faults ----------------------------------------------------------------

    @contextmanager
    def filtered(self, platform: LivePlatform, protocol: str, port: int) -> Any:
        """Have a firewall of the machine keep nodes from a port."""
        here = ["ip", "netns", "exec", platform.namespace]
        sh(*here, "nft", "-f", "-", stdin=FILTER.format(protocol=protocol, port=port))
        try:
            yield
        finally:
            sh(*here, "nft", "delete", "table", "ip", "foreign")

    async def changed_dhcpd(
        self, platform: LivePlatform, change: Callable[[str], str]
    ) -> None:
        """Change the configuration of dhcpd below the server, and have dhcpd read it."""
        file = platform.state / "services/dhcpd/dhcpd.conf"
        file.write_text(change(file.read_text()))
        former = (await platform.services())["dhcpd"]["pid"]
        os.kill(former, signal.SIGKILL)

        async def another() -> bool:
            row = (await platform.services())["dhcpd"]
            return row["pid"] not in (None, former) and row["state"] == "running"

        await platform.until(another, "another dhcpd", 60)

    @contextmanager
    def rogue(self, platform: LivePlatform) -> Any:
        """Connect another DHCP server to walt-net."""
        name, place = f"rogue{os.getpid()}", platform.base / "rogue"
        place.mkdir()
        place.chmod(0o777)
        sh("ip", "netns", "add", name)
        try:
            with inside(f"/run/netns/{platform.namespace}"):
                sh("ip", "link", "add", "rogue0", "type", "veth", "peer", "name", "eth0",
                   "netns", name)
                sh("ip", "link", "set", "rogue0", "master", "walt-net", "up")
            for words in (["link", "set", "eth0", "up"],
                          ["address", "add", f"{platform.net}.200/24", "dev", "eth0"]):
                sh("ip", "-n", name, *words)
            (place / "conf").write_text(
                f"ping-check false;\nsubnet {platform.net}.0 netmask 255.255.255.0"
                f" {{ range {platform.net}.201 {platform.net}.210; }}\n"
            )
            (place / "leases").touch()
            sh("ip", "netns", "exec", name, "dhcpd", "-4", "-q", "-cf", str(place / "conf"),
               "-lf", str(place / "leases"), "-pf", str(place / "pid"), "eth0")
            try:
                yield
            finally:
                os.kill(int((place / "pid").read_text()), signal.SIGKILL)
        finally:
            sh("ip", "netns", "delete", name)


@contextmanager
def stopped(pid: int) -> Any:
    """Have a process hang."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def moved(path: Path) -> Any:
    """Have a file or a link be away."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)
