"""A platform with a board is saved in one file, and lives again on another machine."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from tests.lab.box import Box
from tests.lab.installed import CHANGES, SETUP, installed, why_not
from tests.lab.test_install import STATE, booted
from tests.patience import patient, within

ARCHIVE = "/root/walt.tar"
LINE = "before the backup"
DEFAULT = "walt:waltplatform/pc-x86-64-default"
# What makes a machine of its own of a copy of another one: it never had a platform.
ANOTHER = f"""
systemctl stop walt-server && {SETUP} --remove
rm -rf {STATE} /etc/walt /var/cache/walt /var/log/walt
echo other > /etc/hostname && hostname other && rm /etc/machine-id && systemd-machine-id-setup
"""
# But for the certificate of the server, which has the name of its machine.
KEYS = (
    f"cd {STATE} && find keys tls -type f ! -path 'tls/server.*' -exec sha256sum {{}} +"
    " | sort --key=2"
)


class BackupTests(TestCase):
    skip = why_not()
    maxDiff = None
    timeout = patient(1500)

    async def test_another_machine(self) -> None:
        """Devices, settings, images, keys, /persist, logs; the board boots its image there."""
        from twisted.internet import reactor

        first = await installed(reactor)
        self.addCleanup(first.close)
        await first.start()
        await first.until_active()
        node = await self.work(first)
        before = await self.seen(first)
        told = await first.run(f"/usr/local/bin/walt advanced backup {ARCHIVE}",
                               timeout=patient(200))
        self.assertIn("is complete", told)
        await first.ok("node", "run", node, "--", "echo later > /persist/later")
        archive = first.place.parent / f"{first.place.name}.tar"
        self.addCleanup(archive.unlink, missing_ok=True)
        await first.fetch(ARCHIVE, archive)
        await first.close()

        second = await installed(reactor)
        self.addCleanup(second.close)
        await second.start(archive)
        await second.until_active()
        await second.run(ANOTHER, timeout=patient(200))
        await second.run(f"{SETUP} --mode image-install {CHANGES}", timeout=patient(300))
        await second.run(f"cp /dev/vdb {ARCHIVE}", timeout=patient(100))
        told = await second.run(f"/usr/local/bin/walt advanced restore {ARCHIVE}",
                                timeout=patient(300))
        self.assertIn("is complete", told)
        self.assertNotIn("warning", told)
        await second.run(SETUP, timeout=patient(300))
        await second.until_active()
        self.assertEqual(await self.seen(second), before)
        await self.lives(second, node)

    async def work(self, box: Box) -> str:
        """Have a board with an image of its owner, data, a setting, and lines."""
        board = box.board()
        board.boot()
        node = await booted(box, board.mac)
        await box.ok("image", "clone", DEFAULT, "own", timeout=patient(100))
        await box.run("echo of alice > /root/mark")
        await box.ok("image", "cp", "/root/mark", "own:/etc/mark")
        await box.ok("node", "boot", node, "own")
        await box.ok("node", "wait", *within(300), node, timeout=patient(320))
        await box.ok("node", "config", node, "boot.retries=7")
        await self.read(box, node)
        await box.ok("node", "run", node, "--", "echo kept > /persist/kept")
        await box.ok("node", "run", node, "--", "walt-log-echo", "exp", LINE)
        await box.until(lambda: self.logged(box), "the line is there", patient(30))
        return node

    async def read(self, box: Box, node: str) -> None:
        """The board has booted the image of its owner."""
        mark = await box.ok("node", "run", node, "--", "cat", "/etc/mark")
        self.assertEqual(mark, "of alice\n")

    async def logged(self, box: Box) -> bool:
        """Tell whether `walt log show` has the line."""
        told = await box.ok("log", "show", "--history", "full", "--streams", "exp")
        return LINE in told

    async def seen(self, box: Box) -> dict[str, Any]:
        """Return what has to be the same on both machines."""
        devices = json.loads(await box.ok("device", "show", "--json"))
        tables = json.loads(await box.ok("image", "show", "--all", "--json"))
        return {
            "devices": sorted((row["mac"], row["ip"], row["name"]) for row in devices["known"]
                              if row["type"] == "node"),
            "images": sorted(
                (row["fullname"], row["id"]) for table in tables.values()
                if isinstance(table, list) for row in table
            ),
            "keys": await box.run(KEYS),
        }

    async def lives(self, box: Box, node: str) -> None:
        """The board boots there, with its image, its settings, and its data of the time."""
        self.assertTrue(await self.logged(box))
        shown = json.loads(await box.ok("node", "config", node, "--json"))
        self.assertEqual(shown[0]["settings"]["boot.retries"], 7)
        board = box.board()
        board.boot()

        async def answers() -> bool:
            done = await box.walt("node", "run", node, "--", "cat", "/etc/mark")
            return done.stdout == b"of alice\n"

        # It was booted when it was saved, and counts as such until it is missed.
        await box.until(answers, "the board has the image of its owner", patient(180))
        self.assertEqual(await booted(box, board.mac), node)
        there = await box.ok("node", "run", node, "--", "cd /persist && cat *")
        self.assertEqual(there, "kept\n")
