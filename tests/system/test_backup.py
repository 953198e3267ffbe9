"""A live platform is saved while it runs, and lives again in other directories."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

MAC = "02:00:00:00:00:0b"


class BackupTests(TestCase):
    skip = why_not()
    timeout = patient(400)

    def platform(self, suffix: str = "") -> LivePlatform:
        """Return a platform of its own, not started."""
        from twisted.internet import reactor

        found = LivePlatform(reactor)
        found.namespace += suffix
        found.write_config()
        self.addCleanup(found.close)
        return found

    async def node(self, platform: LivePlatform) -> None:
        """Have a board, with its image and its persistent data."""
        done = await platform.event(
            "commit", "", "walt.node.pc-x86-64", f"{platform.net}.11", MAC, "board", "0", "unknown"
        )
        self.assertEqual(done.status, 0, done.stderr)
        await platform.begins_to_boot(f"{platform.net}.11")
        await self.provisioned(platform)

    async def provisioned(self, platform: LivePlatform) -> None:
        """Wait until its files are there."""
        node = platform.state / "nodes" / MAC

        async def ready() -> bool:
            return (node / "fs").exists() and os.path.ismount(os.path.realpath(node / "persist"))

        await platform.until(ready, "the node has its files", 40)

    async def test_saved_and_restored(self) -> None:
        """Devices, settings, logs, images, keys and persistent data are those that were."""
        first = self.platform()
        await first.import_image()
        await first.start()
        await self.node(first)
        await first.ok("node", "config", "board-00000b", "boot.retries=7")
        await first.add_image("bob/own", {"/etc/mark": "of bob"})
        await first.ok("image", "show", "--refresh")
        (first.state / "nodes" / MAC / "persist" / "data").write_text("of the owner")
        await first.ok("log", "add-checkpoint", "before")
        key = (await self.files(first, "keys")) | (await self.files(first, "tls"))
        archive = first.base / "platform.tar"
        told = await first.ok("advanced", "backup", str(archive), "--config", str(first.config),
                              timeout=patient(200))
        self.assertIn("is complete", told)
        self.assertEqual(archive.stat().st_mode & 0o777, 0o600)
        # Nothing waits for the backup any more.
        (first.state / "nodes" / MAC / "persist" / "later").write_text("after it")
        devices, images = await self.seen(first)
        again = await first.walt("advanced", "backup", str(archive), "--config",
                                 str(first.config))
        self.assertEqual(again.status, 1)
        self.assertIn(b"exists", again.stderr)
        refused = await first.walt("advanced", "restore", str(archive), "--config",
                                   str(first.config), timeout=patient(100))
        self.assertEqual(refused.status, 1)
        self.assertIn(b"holds a platform already", refused.stderr)
        await first.stop()

        second = self.platform("b")
        told = (await second.walt(
            "advanced", "restore", str(archive), "--config", str(second.config),
            timeout=patient(200),
        ))
        self.assertEqual((told.status, told.stderr), (0, b""), told.stdout)
        self.assertNotIn(b"warning", told.stdout)
        await second.start()
        await self.provisioned(second)
        self.assertEqual(await self.seen(second), (devices, images))
        persist = second.state / "nodes" / MAC / "persist"
        self.assertEqual((persist / "data").read_text(), "of the owner")
        self.assertFalse((persist / "later").exists())
        self.assertEqual(
            (await self.files(second, "keys")) | (await self.files(second, "tls")), key
        )
        self.assertIn("before", await second.ok("log", "list-checkpoints"))
        self.assertIn("board", await second.ok("log", "show", "--platform", "--history", "full"))
        shown = json.loads(await second.ok("node", "config", "board-00000b", "--json"))
        self.assertEqual(shown[0]["settings"]["boot.retries"], 7)
        self.assertFalse((second.state / "restore" / "walt.dump").exists())

    async def seen(self, platform: LivePlatform) -> tuple[Any, Any]:
        """Return the devices, and the images with their ids."""
        devices = json.loads(await platform.ok("device", "show", "--json"))
        tables = json.loads(await platform.ok("image", "show", "--all", "--json"))
        return devices, sorted(
            (row["fullname"], row["id"]) for table in tables.values() for row in table
        )

    async def files(self, platform: LivePlatform, name: str) -> dict[str, bytes]:
        """Return what is in a directory of the state."""
        place = platform.state / name
        return {
            str(one.relative_to(place)): one.read_bytes()
            for one in place.rglob("*") if one.is_file()
        }
