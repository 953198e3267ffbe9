"""A node that the server did not start: it announces itself by DHCP, as a board does.

The server runs in a namespace that the test made (it is the whole "machine"), so
that the node outlives it.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, Program, why_not
from walt.common.qemu import PC
from walt.server.adapters.qemu.command import script
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher, ProcessResult

MAC = "52:54:00:ab:cd:01"
NAME = "node-abcd01"
LENT_MAC = "52:54:00:ab:cd:02"
LENT = "node-abcd02"  # emulated by a machine of walt-net that is not the server


# What the kexec tool of images does before it touches a kernel (spec node-protocols §5.2).
KEXEC_TOOL = b"""#!/bin/sh
. /bin/walt-env
for file in /sys/class/net/*/address; do
    case "$file" in */lo/*) ;; *) read -r mac < "$file" ;; esac
done
told=$({
    printf 'REQ_API_SESSION\\nVSAPI\\n'
    printf "('API_CALL', 'get_device_info', ('%s',), {})\\n" "$mac"
    sleep 6
} | busybox nc "$walt_server_ip" "$walt_server_rpc_port")
case "$told" in
    *"'kexec.allow': False"*) echo not allowed >> /persist/hook; sync; exit 1 ;;
    *"'netmask': "*) kexec -l /boot/kernel && kexec -e ;;
    *) echo "odd: $told" >> /persist/hook; sync; exit 1 ;;
esac
"""
# A reboot from the local disk by the image's own means; here it fails, so a plain one follows.
HYBRID_HOOK = b"#!/bin/sh\necho hook > /root/hooked; sync; exit 1\n"


class ForeignNodeTests(TestCase):
    skip = why_not()
    timeout = patient(500)

    async def _platform(self, extra: str = "") -> LivePlatform:
        from twisted.internet import reactor

        platform = LivePlatform(reactor, own_namespace=False)
        platform.write_config(extra)
        await platform.runner.run(["ip", "netns", "add", platform.namespace])
        self.addCleanup(
            platform.runner.run, ["ip", "netns", "del", platform.namespace], check=False
        )
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        return platform

    async def _power_on(self, platform: LivePlatform, *options: str) -> ChildService:
        ip = ["ip", "-n", platform.namespace]
        await platform.runner.run([*ip, "tuntap", "add", "dev", "board", "mode", "tap"])
        await platform.runner.run([*ip, "link", "set", "board", "master", "walt-net", "up"])
        script_file = platform.base / "board.ipxe"
        script_file.write_text(script("pc-x86-64"))
        board = ChildService(platform.reactor, Launcher(), ChildSpec("board", (
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--", "qemu-system-x86_64",
            "-nodefaults", "-machine", "pc,graphics=off,accel=tcg", "-cpu", PC.emulated_cpu,
            "-m", "512", *(options or ("-smbios", "type=1,manufacturer=QEMU")),
            "-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio",
            "-kernel", "/usr/lib/ipxe/ipxe.lkrn",
            "-initrd", str(script_file),
            "-netdev", "tap,id=n,ifname=board,script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=",
        )), on_line=self.console.append)
        board.startService()
        self.addCleanup(board.stopService)
        return board

    def setUp(self) -> None:
        self.console: list[str] = []

    async def _booted(self, platform: LivePlatform) -> Any:
        tables = json.loads(await platform.ok("node", "show", "--all", "--json"))
        return [row for row in tables["free"] if row["booted"]]

    async def test_it_is_registered_boots_and_outlives_the_server(self) -> None:
        """DHCP registers it, it boots; a restarted or killed server leaves it running."""
        platform = await self._platform()
        board = await self._power_on(platform)
        (row,) = await platform.until(lambda: self._booted(platform), "the node booted", 120)
        self.assertEqual((row["name"], row["type"]), (NAME, "physical"))
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn(
            f"new node name={NAME} model=pc-x86-64 mac={MAC} ip={row['ip']}", events
        )
        await platform.ok("node", "run", NAME, "--", "echo mark > /root/mark; echo k > /persist/k")

        for number in (signal.SIGUSR2, signal.SIGKILL):
            await platform.stop(number)
            await platform.start()
            (row,) = await self._booted(platform)  # it stayed booted

            async def answers() -> bool:
                ran = await platform.walt("node", "run", NAME, "--", "cat /root/mark /persist/k")
                return ran.stdout == b"mark\nk\n"

            await platform.until(answers, f"the same node after signal {number}", 90)
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertNotIn("is down", events)

        await platform.ok("node", "reboot", NAME)
        await platform.until(lambda: self._booted(platform), "booted again", 120)
        after = await platform.ok("node", "run", NAME, "--", "ls /root/mark; cat /persist/k; true")
        self.assertEqual(after, "k\n")
        await board.stopService()
        await self._check_lent_machine(platform)
        self.assertEqual(await platform.stop(), 0)
        names = await platform.runner.run(["ip", "-n", platform.namespace, "-br", "link"])
        self.assertNotIn(b"walt-net", names.stdout)

    async def _lend_machine(self, platform: LivePlatform) -> tuple[Program, Any, Path]:
        """Start walt-virtual-node in a namespace that is cabled to walt-net, nothing more."""
        home, other = platform.base / "lent", f"{platform.namespace}v"
        home.mkdir()
        await platform.runner.run(["ip", "netns", "add", other])
        self.addCleanup(platform.runner.run, ["ip", "netns", "del", other], check=False)
        await platform.runner.run(["ip", "-n", platform.namespace, "-batch", "-"], stdin=(
            f"link add cable type veth peer name uplink netns {other}\n"
            "link set cable master walt-net up\n"
        ).encode())
        await platform.runner.run(["ip", "-n", other, "-batch", "-"], stdin=(
            b"link add walt-net type bridge\nlink set walt-net up\n"
            b"link set uplink master walt-net up\n"
        ))
        lent = Program()
        argv = [
            "nsenter", f"--net=/run/netns/{other}", "--",
            sys.executable, "-c", "from walt.virtual.main import main; main()",
            "--mac", LENT_MAC, "--model", "pc-x86-64", "--net-conf-udhcpc", "--boot-delay", "0",
            "--networks", "walt-net,home", "--pid-path", f"{home}/pid",
            "--disks-path", f"{home}/disks", "--networks-path", f"{home}/networks",
            "--log-file", f"{home}/log", "--log-prefix", "lent",
            "--on-vm-reboot", f"sh -c 'echo again >> {home}/ends'",
        ]
        transport = platform.reactor.spawnProcess(
            lent, argv[0], argv,
            {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(home)}, str(home),
        )
        self.addCleanup(lambda: transport.pid and transport.signalProcess("KILL"))
        return lent, transport, home

    async def _lent_boots(self, platform: LivePlatform, log: Path) -> None:
        async def booted() -> bool:
            return any(row["name"] == LENT for row in await self._booted(platform))

        try:
            await platform.until(booted, "the lent node booted", 90)
        except AssertionError as error:
            raise AssertionError(f"{log.read_text()}\n{error}") from None

    async def _check_lent_machine(self, platform: LivePlatform) -> None:
        """A machine that is not the server emulates a node: it boots, reboots, leaves nothing."""
        lent, transport, home = await self._lend_machine(platform)
        ends = home / "ends"
        await self._lent_boots(platform, home / "log")
        self.assertEqual((home / "pid").read_text(), f"{transport.pid}\n")
        seen = await platform.ok(
            "node", "run", LENT, "--", "echo 1 > /root/mark; cat /proc/cmdline; ls /sys/class/net"
        )
        self.assertIn(f"walt.node.mac={LENT_MAC}", seen)
        self.assertIn("eth1", seen)
        await platform.ok("node", "reboot", LENT)
        await self._lent_boots(platform, home / "log")
        self.assertEqual(ends.read_text(), "again\n")
        again = await platform.ok("node", "run", LENT, "--", "ls /root/mark; echo ran")
        self.assertEqual(again, "ran\n")

        transport.signalProcess("HUP")
        await platform.until(lambda: self._is(ends, "again\nagain\n"), "SIGHUP ends it", 20)
        transport.signalProcess("TERM")
        self.assertEqual(await lent.ended, 0, lent.err)
        self.assertEqual(
            sorted(path.name for path in home.iterdir()), ["ends", "log", "networks"],
        )
        links = await platform.runner.run(
            ["ip", "-n", f"{platform.namespace}v", "-json", "link", "show"]
        )
        names = {link["ifname"] for link in json.loads(links.stdout)}
        self.assertEqual(names & {"walt-net", "uplink"}, {"walt-net", "uplink"})
        self.assertEqual([name for name in names if name.startswith(("w", "home"))], ["walt-net"])
        self.assertEqual([one for one in platform.left_overs() if str(home) in one], [])

        await self._check_fetch_without_http(platform)

    async def _check_fetch_without_http(self, platform: LivePlatform) -> None:
        """The same file comes by stream request 12, which stands for TFTP, to its node alone."""
        code = (
            "import asyncio, sys; from pathlib import Path; from walt.virtual.fetch import *;"
            "files = ServerFiles(Server(sys.argv[1]), sys.argv[2], '', Path());"
            "print(asyncio.run(files.text(Location('tftp', '/start.ipxe'), 65536)), end='')"
        )
        other = f"{platform.namespace}v"

        async def fetch(mac: str) -> ProcessResult:
            return await platform.runner.run([
                "nsenter", f"--net=/run/netns/{other}", "--",
                sys.executable, "-c", code, f"{platform.net}.1", mac,
            ], env={"PYTHONPATH": str(ROOT)}, check=False)

        rows = json.loads(await platform.ok("device", "show", "--json"))
        (ip,) = [row["ip"] for table in rows.values() for row in table if row["name"] == LENT]
        await platform.runner.run(
            ["ip", "-n", other, "addr", "add", f"{ip}/24", "dev", "walt-net"]
        )
        (linked,) = platform.state.glob(f"nodes/{LENT_MAC}/tftp/start.ipxe")
        self.assertEqual((await fetch(LENT_MAC)).stdout, linked.read_bytes())
        self.assertEqual((await fetch(MAC)).stdout, b"")

    async def _is(self, path: Path, text: str) -> bool:
        return path.exists() and path.read_text() == text

    async def test_a_board_without_http_and_with_a_wrong_clock(self) -> None:
        """Everything falls back to TFTP; a physical node takes the server's time."""
        platform = await self._platform("")
        platform.config.write_text(
            platform.config.read_text().replace("host-port: 0", "host-port: 0\n    port: 8081")
        )
        await platform.stop()
        await platform.start()
        await self._power_on(
            platform, "-smbios", "type=1,manufacturer=Board", "-rtc", "base=2020-01-01"
        )
        await platform.until(lambda: self._booted(platform), "the node booted by TFTP", 180)
        told = await platform.ok("node", "run", NAME, "--", "date +%s")
        self.assertLess(abs(int(told) - time.time()), 60)
        await self._check_reboot_hook(platform)

    async def _check_reboot_hook(self, platform: LivePlatform) -> None:
        """A physical node reboots by the hook of its image, which must be executable."""
        hook = "/bin/walt-network-reboot"
        await platform.ok(
            "node", "run", NAME, "--",
            f"cat > {hook}", stdin=KEXEC_TOOL,
        )
        refused = await platform.walt("node", "reboot", NAME)
        self.assertEqual(refused.status, 1)
        self.assertIn(
            f"failed soft-reboot ({hook} is not executable on image) and".encode(),
            refused.stderr,
        )
        await platform.ok("node", "config", NAME, "kexec.allow=false")
        await platform.ok("node", "run", NAME, "--", f"chmod +x {hook}")
        await platform.ok("node", "reboot", NAME)
        await platform.until(lambda: self._booted(platform), "booted again", 180)
        after = await platform.ok("node", "run", NAME, "--", f"cat /persist/hook; ls {hook}; true")
        self.assertEqual(after, "not allowed\n")  # and a plain reboot
        await platform.ok("node", "config", NAME, "kexec.allow=true")
        await platform.ok(
            "node", "run", NAME, "--",
            f"cat > {hook}; chmod +x {hook}; printf '#!/bin/sh\\necho kexec $1 >> /persist/hook;"
            " sync\\n' > /sbin/kexec; chmod +x /sbin/kexec", stdin=KEXEC_TOOL,
        )
        await platform.ok("node", "reboot", NAME)

        async def done() -> bool:
            (told,) = platform.state.glob(f"nodes/{MAC}/persist_dir*/**/hook")
            return told.read_text() == "not allowed\nkexec -l\nkexec -e\n"

        await platform.until(done, "the kernel is loaded and run by kexec", 60)

    async def _hybrid_disk(self, platform: LivePlatform, persistent: bool) -> str:
        """Make a disk whose ext4 partition asks for a hybrid boot; return its path."""
        content = platform.base / "content"
        (content / "walt_hybrid").mkdir(parents=True)
        if persistent:
            (content / "walt_hybrid" / ".persistent").touch()
        disk = platform.base / "disk.dd"
        entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, (1 << 21) - 2048)
        with open(disk, "wb") as stream:
            stream.truncate(1 << 30)
            stream.seek(446)
            stream.write(entry + bytes(48) + b"\x55\xaa")
        await platform.runner.run([
            "mke2fs", "-q", "-F", "-t", "ext4", "-E", "offset=1048576", "-d", str(content),
            str(disk), str((1 << 20) - 1024) + "k",
        ])
        return str(disk)

    async def _hybrid_node(self, persistent: bool) -> tuple[LivePlatform, str]:
        platform = await self._platform()
        disk = await self._hybrid_disk(platform, persistent)
        await self._power_on(
            platform, "-smbios", f"type=1,manufacturer={'Board' if persistent else 'QEMU'}",
            "-drive", f"file={disk},format=raw,if=virtio",
        )
        await platform.until(lambda: self._booted(platform), "the node booted", 150)
        if persistent:
            # An old copy of the server's scripts; a hook for reboots from the local disk.
            await platform.ok(
                "node", "run", NAME, "--",
                "echo old > /bin/_walt_internal_/walt-tar-send; cat > /bin/walt-hybrid-reboot;"
                " chmod +x /bin/walt-hybrid-reboot", stdin=HYBRID_HOOK,
            )
        mode = await platform.ok(
            "node", "run", NAME, "--",
            ". /bin/walt-env; echo $walt_boot_mode; echo 1 > /root/changed; echo 2 > /local/kept",
        )
        await platform.ok("node", "run", NAME, "--", "sync")
        await platform.ok("node", "save", NAME, "saved")
        for path, content in (("/root/changed", b"1\n"), ("/local/kept", b"2\n")):
            here = platform.base / "saved"
            await platform.ok("image", "cp", f"saved:{path}", str(here))
            self.assertEqual(here.read_bytes(), content)
        await platform.ok("node", "reboot", NAME)
        await platform.until(lambda: self._booted(platform), "booted again", 150)
        after = await platform.ok(
            "node", "run", NAME, "--", "cat /root/changed /local/kept 2>/dev/null; true"
        )
        return platform, mode + after

    async def test_hybrid_volatile(self) -> None:
        """The image is copied to the local disk; each boot starts from the copy."""
        _, seen = await self._hybrid_node(False)
        self.assertEqual(seen, "hybrid-volatile\n")

    async def test_hybrid_persistent(self) -> None:
        """With .persistent, changes stay on the local disk."""
        platform, seen = await self._hybrid_node(True)
        self.assertEqual(seen, "hybrid-persistent\n1\n2\n")
        hooked, same = (await platform.ok(
            "node", "run", NAME, "--", "cat /root/hooked; cd /bin/_walt_internal_;"
            " cmp walt-tar-send /run/walt/rootfs/mnt/nfsroot/bin/_walt_internal_/walt-tar-send"
            " && echo same",
        )).split()
        self.assertEqual((hooked, same), ("hook", "same"))
        lines = await platform.ok(
            "log", "show", "--history", "full", "--issuers", NAME, "--streams", "walt-init"
        )
        self.assertEqual(lines.count("Hybrid-mode: copying image files locally"), 1)

    async def test_without_grace_nodes_reboot_when_the_server_goes(self) -> None:
        """boot.reconnect-grace: 0 is the original's behaviour: no server, no run."""
        platform = await self._platform("boot:\n  reconnect-grace: 0\n")
        await self._power_on(platform)
        await platform.until(lambda: self._booted(platform), "the node booted", 120)
        await platform.ok("node", "run", NAME, "--", "echo mark > /root/mark")
        await platform.stop(signal.SIGKILL)
        await platform.start()
        await platform.until(
            lambda: self._down(platform), "the server noticed the loss of the node", 60
        )
        await platform.until(lambda: self._booted(platform), "booted again", 150)
        after = await platform.ok("node", "run", NAME, "--", "ls /root/mark; true")
        self.assertEqual(after, "")

    async def _down(self, platform: LivePlatform) -> bool:
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        return f"node {NAME} is down (cause: unknown, note: server-detected" in events
