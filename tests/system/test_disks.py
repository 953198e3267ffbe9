"""Disks of virtual nodes, set by `walt node config`, seen by the node."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import LivePlatform, why_not


class DiskTests(TestCase):
    skip = why_not()
    timeout = patient(360)

    async def test_templates_and_hybrid_boot(self) -> None:
        """Disks appear with their partitions at the next boot, and keep their content."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.add_image("alice/other", {"/etc/other": "other\n"})
        await platform.start()
        await platform.ok("node", "create", "vnode1")
        await platform.ok("node", "config", "vnode1", "boot.delay=0")
        told = await platform.ok(
            "node", "config", "vnode1",
            "disks=2G[template=hybrid-boot-p],1G[template=fat32],3G,4G[template=ext4]",
        )
        self.assertIn("Reboot the node(s)", told)
        await self._reboot(platform)
        seen = await platform.ok(
            "node", "run", "vnode1", "--",
            # The kernel looks at disks in parallel: their letters may come in any order.
            ". /bin/walt-env; echo $walt_boot_mode; cat /sys/block/sd?/size | sort -n;"
            " disk=$(grep -lx 1953125 /sys/block/sd?/size | cut -d/ -f4);"
            " cat /sys/block/$disk/device/model; cat /sys/block/$disk/${disk}1/start;"
            " dd if=/dev/${disk}1 bs=1 skip=82 count=5 2>/dev/null; echo;"
            " disk=$(grep -lx 7812500 /sys/block/sd?/size | cut -d/ -f4);"
            " dd if=/dev/${disk}1 bs=1 skip=1080 count=2 2>/dev/null | od -An -tx1 | tr -d ' ';"
            " disk=$(grep -lx 5859375 /sys/block/sd?/size | cut -d/ -f4);"
            " ls /sys/block/$disk | grep -c $disk; echo x > /root/changed; sync",
        )
        self.assertEqual(seen.split(), [
            "hybrid-persistent", "1953125", "3906250", "5859375", "7812500", "QEMU-DISK", "2048",
            "FAT32", "53ef", "0",
        ])
        for wrong in ("2", "2M", "2G[template=xfs]", "2G,", "0G"):
            refused = await platform.walt("node", "config", "vnode1", f"disks={wrong}")
            self.assertEqual((refused.status, refused.stdout), (1, b""), wrong)
        await platform.ok("node", "config", "vnode1", "disks=2G[template=hybrid-boot-p]")
        # The worker that made the disks is killed: another one makes the next.
        before = await self._pids(platform, "^qemu-system.* -name vnode1 ")
        await platform.ok("node", "reboot", "--hard", "vnode1")

        async def started() -> bool:
            return bool(await self._pids(platform, "^qemu-system.* -name vnode1 ") - before)

        await platform.until(started, "the machine runs again", 30, every=0.05)
        workers = await self._pids(platform, "walt.server.workers.main")
        self.assertNotEqual(workers, set())
        for worker in workers:
            os.kill(worker, signal.SIGKILL)

        async def ended() -> bool:
            return not workers & await self._pids(platform, "walt.server.workers.main")

        await platform.until(ended, "the workers ended", 10)
        await self._reboot(platform)
        after = await platform.ok(
            "node", "run", "vnode1", "--", "cat /root/changed; ls /sys/block | grep sd"
        )
        self.assertEqual(after.split(), ["x", "sda"])
        await self._check_space(platform)
        await self._check_poor_busybox(platform)
        # Another template of the same size is another disk.
        await platform.ok("node", "config", "vnode1", "disks=2G[template=hybrid-boot-v]")
        await self._reboot(platform)
        seen = await platform.ok(
            "node", "run", "vnode1", "--", ". /bin/walt-env; echo $walt_boot_mode;"
            " ls /root/changed 2>/dev/null; ls /run/walt/rootfs/mnt/hm_part/walt_hybrid | wc -l",
        )
        self.assertEqual(seen.split(), ["hybrid-volatile", "1"])
        await platform.ok("node", "remove", "--force", "vnode1")

        async def forgotten() -> bool:
            return not list((platform.state / "nodes").glob("52:54:*"))

        await platform.until(forgotten, "the directory of the node is gone", 10)

    async def _pids(self, platform: LivePlatform, command: str) -> set[int]:
        """Return the children of the server with such a command line."""
        found = await platform.runner.run(
            ["pgrep", "-P", str(platform.pid), "-f", command], check=False
        )
        return {int(pid) for pid in found.stdout.split()}

    async def _check_space(self, platform: LivePlatform) -> None:
        """An image that finds no room on the disk takes that of the oldest copy, no more."""
        copies = "/run/walt/rootfs/mnt/hm_part/walt_hybrid"
        await platform.ok(
            "node", "run", "vnode1", "--",
            f"cd {copies} && mkdir oldest newer && free=$(df -k . | tail -n 1 |"
            " awk '{print $(NF-2)}') && fallocate -l $((free - 20000))k oldest/big && sync &&"
            " touch -d '2020-01-01 00:00' oldest && touch -d '2021-01-01 00:00' newer",
        )
        await platform.ok("node", "boot", "vnode1", "other")
        await platform.ok("node", "wait", *within(150), "vnode1")
        seen = await platform.ok(
            "node", "run", "vnode1", "--",
            f". /bin/walt-env; echo $walt_boot_mode; cat /etc/other; ls {copies} | cut -c1-6 |"
            f" grep -E 'oldest|newer'; ls -d {copies}/*/image | wc -l",
        )
        self.assertEqual(seen.split(), ["hybrid-persistent", "other", "newer", "2"])

    async def _check_poor_busybox(self, platform: LivePlatform) -> None:
        """A busybox without an applet that a hybrid boot needs: the network boot it is."""
        found = shutil.which("busybox")
        assert found is not None
        poor = platform.base / "busybox"
        poor.write_bytes(Path(found).read_bytes().replace(b"\0tail\0", b"\0tais\0"))
        await platform.add_image("alice/poor", {"/bin/busybox": poor})
        await platform.ok("node", "boot", "vnode1", "poor")
        await platform.ok("node", "wait", *within(150), "vnode1")
        seen = await platform.ok(
            "node", "run", "vnode1", "--", ". /bin/walt-env; echo $walt_boot_mode"
        )
        self.assertEqual(seen, "network\n")
        told = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "vnode1", "--streams",
            "virtualconsole",
        )
        self.assertIn("hybrid boot is not possible: busybox of this image lacks tail", told)
        await platform.ok("node", "boot", "vnode1", "default")

    async def _reboot(self, platform: LivePlatform) -> None:
        await platform.ok("node", "reboot", "--hard", "vnode1")
        await platform.ok("node", "wait", *within(150), "vnode1")
