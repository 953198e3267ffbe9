"""An image from one user to another, through a registry, with a node that boots it."""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system import registry
from tests.system.dialogue import Dialogue
from tests.system.live import why_not
from tests.system.registry import TestRegistry
from tests.system.test_registries import HomePlatform
from walt.server.adapters.ssh.sessions import set_size

IMAGE = "pc-x86-64-small"


class ImageJourneyTests(TestCase):
    skip = why_not() or registry.why_not()
    timeout = patient(400)

    async def converse(self, platform: HomePlatform, dialogue: Dialogue, *words: str) -> str:
        """Run the walt command on a terminal; return all that was shown."""
        env = {**os.environ, **platform.environment(), "TERM": "dumb"}
        argv = [sys.executable, "-m", "walt.client.main", *words]
        transport = platform.reactor.spawnProcess(dialogue, argv[0], argv, env, usePTY=True)
        set_size(transport.fd, 50, 132)
        status = await dialogue.ended.addTimeout(120, platform.reactor)
        self.assertEqual(status, 0, dialogue.seen.decode(errors="replace"))
        return dialogue.seen.decode(errors="replace").replace("\r\n", "\n")

    async def content(self, platform: HomePlatform, user: str) -> str:
        """Return a file of the node, once it has booted."""
        await platform.ok("node", "wait", *within(150), "vn1", user=user)
        return await platform.ok("node", "run", "vn1", "cat /root/change", user=user)

    async def test_from_one_user_to_another(self) -> None:
        """Changed, published, removed, cloned by another, booted: the change is there."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = TestRegistry(reactor, platform.base)
        self.addCleanup(lab.stop)
        await lab.start()
        await platform.import_image()
        platform.write_config("registries:\n" + lab.settings("lab"))
        await platform.start()
        await platform.ok("node", "create", "vn1")
        await platform.ok("node", "config", "vn1", "boot.delay=0")
        await platform.ok("node", "wait", *within(150), "vn1")

        shown = await self.converse(platform, Dialogue(
            (b"# ", b"tty && stty size && echo first > /root/change && exit\n"),
            (b"New image name: ", b"default\n"), (b"New image name: ", b"\n"),
            (b"(y/n): ", b"n\n"), (b"New image name: ", b"\n"), (b"(y/n): ", b"y\n"),
        ), "image", "shell", IMAGE)
        self.assertIn("/dev/pts/", shown)
        self.assertIn("50 132", shown)
        self.assertIn(f"Image {IMAGE} was updated.", shown)
        self.assertIn("Node vn1 will reboot.", shown)
        self.assertEqual(await self.content(platform, "alice"), "first\n")

        change = platform.base / "change"
        change.write_text("second\n")
        told = await platform.ok(
            "image", "cp", str(change), f"{IMAGE}:/root/", stdin=b"y\n"
        )
        self.assertIn("Node vn1: rebooted ok.", told)
        self.assertEqual(await self.content(platform, "alice"), "second\n")

        published = await self.converse(platform, Dialogue(), "image", "publish", IMAGE)
        self.assertIn(f"lab:alice/{IMAGE}", published)
        self.assertRegex(published, rf"Uploading alice/{IMAGE}:latest: [0-9.]+ MB")
        used = await platform.walt("image", "remove", IMAGE)
        self.assertEqual(used.status, 1)
        self.assertIn(b"in use by nodes", used.stderr)
        await platform.ok("node", "release", "vn1")
        await platform.ok("image", "remove", IMAGE)

        await platform.ok("image", "clone", f"lab:alice/{IMAGE}", "from-alice", user="bob")
        await platform.ok("node", "boot", "vn1", "from-alice", user="bob")
        self.assertEqual(await self.content(platform, "bob"), "second\n")
        left = {one for one in await platform.references() if "<" in one}
        self.assertEqual(left, set())
