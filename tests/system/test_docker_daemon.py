"""Images of a docker daemon: found, cloned, migrated; through the walt command."""

from __future__ import annotations

import json
from signal import SIGUSR2

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import docker
from tests.system.docker import TestDocker
from tests.system.live import why_not
from tests.system.storage import archive, with_busybox
from tests.system.test_registries import LABEL, HomePlatform


class DockerDaemonTests(TestCase):
    skip = why_not() or docker.why_not()
    timeout = patient(180)

    async def refused(self, platform: HomePlatform, text: str, *words: str) -> None:
        """Run a command that must fail with a text on standard error."""
        done = await platform.walt(*words)
        self.assertEqual((done.status, text in done.stderr.decode()), (1, True), done.stderr)

    async def test_daemon(self) -> None:
        """Searched, cloned from; an image that an older WalT left there comes by itself."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        daemon = TestDocker(reactor, platform.base)
        self.addCleanup(daemon.stop)
        await daemon.start()
        tree = daemon.base / "tree.tar"
        tree.write_bytes(archive(with_busybox()))
        for name, *changes in (
            ("ann/tiny", LABEL), ("alice/old:v2", LABEL), ("ann/plain",), ("deep/er/name", LABEL),
            ("ann/future", LABEL, "walt.server.minversion=99"),
        ):
            words = [word for label in changes for word in ("--change", f"LABEL {label}")]
            await daemon.docker("import", *words, str(tree), name)
        for name in ("alice/old:v2", "alice/lost:latest", "alice/kept:latest"):
            await platform.import_tiny(name)
        platform.write_config(f"registries: []\nimages:\n  docker-socket: {daemon.socket}\n")
        await platform.start()
        await self.search_and_clone(platform)
        await self.migrated(platform)
        await daemon.stop()
        searched = await platform.walt("image", "search")
        self.assertIn(b"docker was skipped: no answer at", searched.stderr)
        await self.refused(
            platform, "registry docker: no answer at", "image", "clone", "docker:ann/tiny", "x"
        )
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])

    async def search_and_clone(self, platform: HomePlatform) -> None:
        """What it has for nodes, under the names that links can say."""
        rows = json.loads(await platform.ok("image", "search", "--json"))
        self.assertEqual(
            [(row["location"], row["clonable_link"]) for row in rows],
            [
                ("docker daemon", "docker:alice/old:v2"),
                ("docker daemon", "[need server upgrade, version>=99]"),
                ("docker daemon", "docker:ann/tiny"),
            ],
        )
        done = await platform.walt("image", "clone", "docker:ann/tiny")
        self.assertEqual(done.status, 0, done.stderr)
        self.assertIn(b"Copying ann/tiny:latest from the docker daemon: layer 1", done.stderr)
        await platform.ok("image", "cp", "tiny:/etc/hostname", str(platform.base))
        for text, link in (
            ("no such image", "docker:ann/none"), ("no label", "docker:ann/plain"),
            ("version 99", "docker:ann/future"),
        ):
            await self.refused(platform, text, "image", "clone", link)
        # It is a place to clone from only.
        for words in ((), ("--registry", "docker")):
            await self.refused(
                platform, "no registry to publish to", "image", "publish", *words, "tiny"
            )

    async def migrated(self, platform: HomePlatform) -> None:
        """A known name that podman lacks comes from the daemon, or is forgotten."""
        await platform.stop(SIGUSR2)
        await platform.runner.run(platform.podman(
            "rmi", "--force", "docker.io/alice/old:v2", "docker.io/alice/lost"
        ))
        await platform.start()

        async def there() -> bool:
            log = platform.log.read_text(errors="replace")
            return log.count("image alice/old:v2 is here now") == 1

        await platform.until(there, "the image was migrated", 20)
        self.assertIn("old:v2", await platform.own())
        await platform.ok("image", "cp", "old:v2:/etc/hostname", str(platform.base))

        async def forgotten() -> bool:
            log = platform.log.read_text(errors="replace")
            return "image alice/lost:latest is missing in the store: forgotten" in log

        await platform.until(forgotten, "what is nowhere is forgotten", 10)
        self.assertEqual(await platform.own(), ["kept", "old:v2", "tiny"])
        left = {one for one in await platform.references() if "/walt/" in one or "<" in one}
        self.assertEqual(left, set())
