"""The life of images through the walt command, on one platform."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.system.live import LivePlatform, why_not
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage

PC = "walt.node.pc-x86-64"


class ImagesTests(TestCase):
    skip = why_not()
    timeout = 240

    async def import_tiny(self, platform: LivePlatform, name: str, *labels: str) -> None:
        """Put an image with a busybox into the store, before the server starts."""
        tree = platform.base / "tiny.tar"
        tree.write_bytes(archive(with_busybox()))
        podman = Storage.private(platform.state, platform.runtime).podman
        changes = [
            word for label in labels or ("walt.node.models=pc-x86-64",)
            for word in ("--change", f"LABEL {label}")
        ]
        await platform.runner.run(podman("import", "-q", *changes, str(tree), f"docker.io/{name}"))

    async def references(self, platform: LivePlatform) -> set[str]:
        """Return every name in the store, dangling images included."""
        podman = Storage.private(platform.state, platform.runtime).podman
        listed = await platform.runner.run(
            podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        )
        return set(listed.stdout.decode().split())

    async def containers(self, platform: LivePlatform) -> str:
        """Return the containers in the store, those of builds included."""
        podman = Storage.private(platform.state, platform.runtime).podman
        listed = await platform.runner.run(podman("ps", "--all", "--external", "--quiet"))
        return listed.stdout.decode()

    async def refused(self, platform: LivePlatform, status: int, text: str, *words: str,
                      **options: Any) -> None:
        """Run a command that must fail with a text on standard error."""
        done = await platform.walt(*words, **options)
        self.assertEqual(
            (done.status, text in done.stderr.decode()), (status, True),
            f"{words}: {done.status} {done.stdout.decode()} {done.stderr.decode()}",
        )

    async def test_life(self) -> None:
        """Names, shells, copies, builds, squash, as two users would."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await self.import_tiny(platform, "alice/tiny:latest")
        await self.import_tiny(platform, "bob/his:latest")
        await platform.start()
        await self.names(platform)
        await self.shells(platform)
        await self.copies(platform)
        await self.builds(platform)
        await self.squashed(platform)
        self.assertEqual(
            {one for one in await self.references(platform) if "/walt/" in one or "<" in one},
            set(),
        )
        self.assertEqual(await self.containers(platform), "")
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])

    async def own(self, platform: LivePlatform) -> list[str]:
        return (await platform.ok("image", "show", "--names-only")).split()

    async def names(self, platform: LivePlatform) -> None:
        """duplicate, rename, remove."""
        await platform.ok("image", "duplicate", "tiny", "copy:v1")
        await platform.ok("image", "rename", "copy:v1", "copy")
        self.assertEqual(await self.own(platform), ["copy", "tiny"])
        await self.refused(platform, 1, "exists already", "image", "duplicate", "tiny", "copy")
        await self.refused(platform, 1, "exists already", "image", "rename", "tiny", "copy")
        for bad in ("default", "Upper", "a/b", "-x", "a:b:c", "x" * 300):
            await self.refused(
                platform, 1, "", "image", "duplicate", "--", "tiny", bad
            )
        await self.refused(platform, 1, "not in your working set", "image", "remove", "his")
        await platform.ok("image", "remove", "copy")
        self.assertEqual(await self.own(platform), ["tiny"])

    async def shells(self, platform: LivePlatform) -> None:
        """A shell fed through a pipe, saved under a new name, under its name, discarded."""
        typed = b"hostname; echo new > /root/file; exit 3\n"
        done = await platform.walt("image", "shell", "tiny", stdin=typed)
        self.assertEqual(done.status, 0, done.stderr)
        self.assertIn(b"image-shell\n", done.stdout)
        self.assertIn(b"discarded", done.stdout)
        self.assertEqual(await self.own(platform), ["tiny"])

    async def copies(self, platform: LivePlatform) -> None:
        """Files and directories to and from an image."""
        here = platform.base / "files"
        (here / "sub").mkdir(parents=True)
        (here / "one").write_text("content")
        await platform.ok("image", "cp", str(here), "tiny:")
        await platform.ok("image", "cp", str(here / "one"), "tiny:/etc/two")
        await platform.ok("image", "cp", "tiny:/root/files/one", str(here / "back"))
        self.assertEqual((here / "back").read_text(), "content")
        await platform.ok("image", "cp", "tiny:files", str(platform.base / "again"))
        self.assertEqual(sorted(os.listdir(platform.base / "again")), ["one", "sub"])
        await self.refused(
            platform, 1, "there is no", "image", "cp", "tiny:/nothing", str(here)
        )
        await self.refused(platform, 1, "Usage:", "image", "cp", "a", "b")
        await self.refused(
            platform, 1, "is a file", "image", "cp", str(here), "tiny:/etc/two"
        )

    async def builds(self, platform: LivePlatform) -> None:
        """From a directory and from a repository."""
        context = platform.base / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(
            "FROM tiny AS base\nRUN echo built > /root/built\nCOPY hello /root/\n"
        )
        (context / "hello").write_text("hello\n")
        told = await platform.ok("image", "build", "--from-dir", str(context), "made")
        self.assertIn("STEP 2/3: RUN echo built", told)
        self.assertIn("Image made was built.", told)
        await platform.ok("image", "cp", "made:built", str(platform.base / "built"))
        self.assertEqual((platform.base / "built").read_text(), "built\n")
        (context / "Dockerfile").write_text("FROM tiny\nRUN exit 7\n")
        declined = await platform.walt(
            "image", "build", "--from-dir", str(context), "made", stdin=b"n\n"
        )
        self.assertEqual(declined.status, 1)
        await self.refused(
            platform, 1, "not built", "image", "build", "--from-dir", str(context), "made",
            stdin=b"y\n",
        )
        (context / "Dockerfile").write_text('FROM scratch\nCOPY hello /\n')
        await self.refused(
            platform, 1, "no label", "image", "build", "--from-dir", str(context), "unlabelled",
        )
        (context / "Dockerfile").unlink()
        await self.refused(
            platform, 1, "no Dockerfile", "image", "build", "--from-dir", str(context), "other",
        )
        await self.refused(
            platform, 1, "no such directory", "image", "build", "--from-dir", "/nowhere", "other",
        )
        self.assertEqual(await self.own(platform), ["made", "tiny"])

    async def squashed(self, platform: LivePlatform) -> None:
        """One layer is left, and the content is the same."""
        before = json.loads(await platform.ok("image", "show", "--json"))["own"]
        self.assertIn("made", [row["name"] for row in before])
        await platform.ok("image", "squash", "made")
        await platform.ok("image", "cp", "made:built", str(platform.base / "squashed"))
        self.assertEqual(Path(platform.base / "squashed").read_text(), "built\n")
        podman = Storage.private(platform.state, platform.runtime).podman
        shown = await platform.runner.run(podman("image", "inspect", "alice/made"))
        self.assertEqual(len(json.loads(shown.stdout)[0]["RootFS"]["Layers"]), 1)
