"""The disk of the server fills while it runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import LivePlatform, Program, why_not

FLOOD = 24_000  # lines of 1,000 characters: few, for an emulated node makes them


class DiskFullTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_full_and_freed(self) -> None:
        """What needs space fails with a reason and changes nothing; all works again with space."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.state.mkdir(mode=0o711, exist_ok=True)
        disk = platform.base / "disk"
        for words in (
            f"truncate -s 1200M {disk}", f"mkfs.ext4 -q -F -m 0 -O ^has_journal {disk}",
            f"mount -o loop {disk} {platform.state}", f"chmod 711 {platform.state}",
        ):
            await platform.runner.run(words.split())
        await platform.import_image()
        await platform.start()
        await platform.ok("node", "create", "vnode1")
        await platform.ok("node", "wait", *within(150), "vnode1")
        await platform.ok("node", "run", "vnode1", "--", "echo kept > /persist/kept")
        data = platform.base / "data"
        data.write_bytes(os.urandom(2 << 20))
        fillers = [await self.fill(platform, one) for one in ("images", ".")]

        copied = await platform.walt("node", "cp", str(data), "vnode1:/persist/data")
        self.assertEqual(copied.status, 1)
        self.assertIn(b"No space left", copied.stderr)
        listed = await platform.ok("node", "run", "vnode1", "--", "ls /persist")
        self.assertEqual(listed, "kept\n")
        await platform.ok(
            "node", "run", "vnode1", "--", "head -c 2000000 /dev/urandom > /root/random"
        )
        saved = await platform.walt("node", "save", "vnode1", "half")
        self.assertEqual(saved.status, 1)
        self.assertIn(b"No space left", saved.stderr)
        self.assertIn(b"The image was not saved", saved.stderr)
        images = (await platform.ok("image", "show", "--names-only")).split()
        self.assertEqual(images, ["pc-x86-64-small"])
        (row,) = json.loads(await platform.ok("node", "show", "--json"))["own"]
        self.assertIs(row["booted"], True)

        for filler in fillers:
            filler.unlink()
        await platform.ok("node", "cp", str(data), "vnode1:/persist/data")
        await platform.ok("node", "save", "vnode1", "whole")
        self.assertEqual(
            sorted((await platform.ok("image", "show", "--names-only")).split()),
            ["pc-x86-64-small", "whole"],
        )
        await platform.ok("node", "run", "vnode1", "--", "echo logged | walt-log-cat after")

        async def logged() -> bool:
            return "after -> logged" in await platform.ok(
                "log", "show", "--history", "full", "--issuers", "vnode1"
            )

        await platform.until(logged, "the line is stored", 20)
        await self.check_logs_wait(platform)
        self.assertEqual(await platform.stop(), 0)

    async def fill(self, platform: LivePlatform, place: str) -> Path:
        """Leave half a megabyte of a file system below the state directory; return the filler."""
        filler = platform.state / place / "filler"
        space = os.statvfs(filler.parent)
        size = space.f_bavail * space.f_frsize - (512 << 10)
        await platform.runner.run(["fallocate", "-l", str(size), str(filler)])
        return filler

    async def check_logs_wait(self, platform: LivePlatform) -> None:
        """Lines that find no space wait for some, on the node at last; each comes once."""
        filler = await self.fill(platform, ".")
        flood: Any = Program()
        platform.reactor.spawnProcess(
            flood, sys.executable,
            [sys.executable, "-m", "walt.client.main", "node", "run", "vnode1", "--",
             f"seq {FLOOD} | sed 's/$/ {'x' * 1000}/' | walt-log-cat flood"],
            {**os.environ, **platform.environment()},
        )

        async def waits() -> bool:
            return b"log lines wait for the database" in platform.log.read_bytes()

        await platform.until(waits, "the disk is too full for the lines", 60)
        filler.unlink()
        self.assertEqual(await flood.ended, 0, platform.told()[-6000:])
        shown = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "vnode1", "--streams", "^flood$",
            "--format", "{line}",
        )
        numbers = [int(line.split()[0]) for line in shown.splitlines()]
        self.assertEqual(len(numbers), FLOOD)
        self.assertEqual(sorted(numbers), list(range(1, FLOOD + 1)))
