"""Nodes that cannot start: who asked for it, who looks and who waits is told why."""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

WITHOUT_KERNEL = """#!ipxe
isset ${next-server} || set next-server ${dhcp-server}
kernel http://${next-server}/boot/vmlinuz || goto failed
boot
:failed
sleep 2
reboot
"""


DISK = "cannot be made on this machine: File too large"


class HopelessTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_nodes_that_cannot_start_say_why(self) -> None:
        """Too much memory is refused; a machine that fails, and an image without kernel."""
        from twisted.internet import reactor

        platform = self.platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.add_image("alice/hollow", {"/boot/pc-x86-64/start.ipxe": WITHOUT_KERNEL})
        await platform.add_image("alice/bare", {}, without="/boot/pc-x86-64/start.ipxe")
        await platform.start()
        await platform.ok("node", "create", "vm")
        refused = await platform.walt("node", "config", "vm", "ram=4000G")
        self.assertEqual((refused.status, refused.stdout), (1, b""))
        self.assertIn(b"ram=4000G: the server has", refused.stderr)

        platform.expects("virtual node vm: ")
        platform.expects("vm cannot boot: ")
        await platform.ok("node", "config", "vm", "boot.delay=0", "disks=9000T")
        await platform.walt("node", "reboot", "vm")
        await self.told(DISK)
        again = await platform.walt("node", "reboot", "vm")
        self.assertEqual(again.status, 1)
        self.assertIn(DISK, again.stderr.decode())

        await platform.ok("node", "config", "vm", "disks=none")
        told = await platform.walt("node", "boot", "vm", "hollow")
        self.assertIn(b"vm: rebooted ok.", told.stdout)
        self.assertEqual(told.status, 0, told.stderr)
        for stage in ("started", "boot script fetched"):
            await self.seen(stage)
        await self.told("its image has no boot file 'vmlinuz'")

        told = await platform.walt("node", "boot", "vm", "bare")
        self.assertEqual(told.status, 1)
        self.assertIn(b"its image has nothing that a pc-x86-64 can start from", told.stderr)

    async def seen(self, stage: str) -> None:
        """Return when the node has come that far."""

        async def reached() -> bool:
            (row,) = json.loads(await self.platform.ok("node", "show", "--json"))["own"]
            return bool(row["boot_stage"] == stage)

        await self.platform.until(reached, stage, 60, every=0.05)

    async def told(self, reason: str) -> None:
        """Check who is told that the node cannot boot."""
        platform = self.platform
        waited = await platform.walt("node", "wait", "vm", timeout=patient(120))
        self.assertEqual((waited.status, waited.stdout), (1, b""))
        self.assertIn("vm cannot boot: ", waited.stderr.decode())
        self.assertIn(reason, waited.stderr.decode())
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertIn(reason, row["trouble"])
        self.assertIn(reason, await platform.ok("node", "show"))
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertRegex(events, f"vm cannot boot: .*{reason}")
