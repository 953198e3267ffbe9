"""The image that `make run` builds: a whole Debian, with what people expect on a node."""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from walt.common.qemu import PC
from walt.server.adapters.qemu.command import script
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

MAC = "52:54:00:ab:cd:0e"
BOARD = "node-abcd0e"
DHCP = b"\x63\x82\x53\x63"  # what its messages begin their options with (RFC 2131)
# Twice the memory that it may have, in pages that are not alike; then what swap has of it.
PRESSURE = """
pages = [bytes([number % 251, number // 251 % 251] * 2048) for number in range(32768)]
print(open("/proc/swaps").read())
print("stored", open("/sys/kernel/debug/zswap/stored_pages").read())
"""


class FullImageTests(TestCase):
    skip = why_not()
    timeout = patient(900)

    async def test_a_node(self) -> None:
        """It boots by systemd to the end, without a unit that failed, and has its tools."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image("full")
        await platform.start()
        await platform.ok("node", "create", "v1")
        await platform.ok("node", "wait", "--timeout", str(int(patient(300))), "v1")

        async def settled() -> str:
            done = await platform.walt("node", "run", "v1", "--", "systemctl", "is-system-running")
            told = done.stdout.decode().strip()
            return told if told in ("running", "degraded") else ""

        state = await platform.until(settled, "the system of the node is up", 120, 1)
        failed = await platform.ok("node", "run", "v1", "--", "systemctl", "--failed", "--plain")
        self.assertEqual(state, "running", failed)
        for program in ("python3", "ssh", "tcpdump", "walt-log-echo", "ip"):
            await platform.ok("node", "run", "v1", "--", f"command -v {program}")
        await self._check_swap(platform)
        # What it writes is its own, and gone at the next boot: the image is shared.
        await platform.ok("node", "run", "v1", "--", "touch", "/root/mine")
        self.assertEqual(await platform.stop(), 0)

    async def _check_swap(self, platform: LivePlatform) -> None:
        """Its kernel has zswap in front of the swap space on the server; both are in use."""
        told = await platform.ok(
            "node", "run", "v1", "--", "cat /sys/module/zswap/parameters/enabled; cat /proc/swaps;"
            " mount -t debugfs none /sys/kernel/debug 2> /dev/null; echo",
        )
        self.assertEqual(told.splitlines()[0], "Y")
        self.assertIn("/dev/nbd0", told)
        told = await platform.ok(
            "node", "run", "v1", "--", "cat > /root/pressure.py; systemd-run --quiet --wait --pipe"
            " -p MemoryMax=64M python3 /root/pressure.py", stdin=PRESSURE.encode(),
        )
        (swap,) = [line.split() for line in told.splitlines() if line.startswith("/dev/nbd0")]
        self.assertGreater(int(swap[3]), 0, told)  # KiB
        (stored,) = [line.split()[1] for line in told.splitlines() if line.startswith("stored")]
        self.assertGreater(int(stored), 0, told)

    async def test_kexec(self) -> None:
        """A board reboots by kexec, without firmware and DHCP; where it may not, as others do."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image("full")
        await platform.start()
        console: list[str] = []
        board = await self._power_on(platform, console)

        async def booted() -> bool:
            tables = json.loads(await platform.ok("node", "show", "--all", "--json"))
            return any(row["booted"] for row in tables["free"])

        async def boot_id() -> str:
            done = await platform.walt(
                "node", "run", BOARD, "--", "cat /proc/sys/kernel/random/boot_id /proc/cmdline"
            )
            return done.stdout.decode() if done.status == 0 else ""

        async def state() -> tuple[int | None, int, int]:
            firmware = sum("iPXE" in line for line in console)
            asked = (platform.base / "board.pcap").read_bytes().count(DHCP)
            return board.health.pid, firmware, asked

        await platform.until(booted, "the board booted", 240)
        former, before = await platform.until(boot_id, "it answers", 60), await state()
        self.assertGreater(before[1], 0)
        self.assertGreater(before[2], 0)

        async def again() -> str:
            told = await boot_id()
            return told if told.split()[:1] != former.split()[:1] else ""

        await platform.ok("node", "reboot", BOARD)
        now = await platform.until(again, "another kernel runs", 240, 2)
        self.assertEqual(await state(), before)  # QEMU ends at a reset (-no-reboot)
        self.assertEqual(now.splitlines()[1], former.splitlines()[1])
        await platform.until(booted, "the server knows", 60)

        await platform.ok("node", "config", BOARD, "kexec.allow=false")
        await platform.ok("node", "reboot", BOARD)

        async def from_firmware() -> bool:
            pid, firmware, asked = await state()  # the file is that of the new QEMU
            return pid != before[0] and firmware > before[1] and asked > 0

        await platform.until(from_firmware, "it starts with its firmware", 120, 1)

    async def _power_on(self, platform: LivePlatform, console: list[str]) -> ChildService:
        """Start a board: a machine of QEMU whose firmware says that it is none."""
        ip = ["ip", "-n", platform.namespace]
        await platform.runner.run([*ip, "tuntap", "add", "dev", "board", "mode", "tap"])
        await platform.runner.run([*ip, "link", "set", "board", "master", "walt-net", "up"])
        file = platform.base / "board.ipxe"
        file.write_text(script("pc-x86-64"))
        board = ChildService(platform.reactor, Launcher(), ChildSpec("board", (
            "nsenter", f"--net=/run/netns/{platform.namespace}", "--", PC.program,
            "-nodefaults", "-machine", f"{PC.machine},accel=tcg", "-cpu", PC.emulated_cpu,
            "-m", "1024", "-smbios", "type=1,manufacturer=Board,product=Rack", "-no-reboot",
            "-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio",
            "-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", str(file),
            "-netdev", "tap,id=n,ifname=board,script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=",
            "-object", f"filter-dump,id=d,netdev=n,maxlen=400,file={platform.base}/board.pcap",
        )), on_line=console.append)
        board.startService()
        self.addCleanup(board.stopService)
        return board
