"""Images and faults: a killed server, a full disk, registries that misbehave."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.patience import patient
from tests.system import registry
from tests.system.dialogue import Dialogue
from tests.system.live import why_not
from tests.system.processes import commands, processes
from tests.system.registry import PlainSite, TestRegistry
from tests.system.test_registries import HomePlatform


class Misbehaving(Resource):
    """A registry that answers 500, nothing at all, or gives tokens it refuses."""

    isLeaf = True

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.tokens = 0

    def render_GET(self, request: Any) -> Any:
        """Answer as the mode says."""
        if self.mode == "slow":
            return NOT_DONE_YET
        if self.mode == "expired":
            if request.path == b"/token":
                self.tokens += 1
                return b'{"token": "expired"}'
            host = request.getHeader("host")
            request.setResponseCode(401)
            request.setHeader(
                "WWW-Authenticate",
                f'Bearer realm="http://{host}/token",service="test",scope="x",error="expired"',
            )
            return b"{}"
        request.setResponseCode(500)
        return b"{}"

    render_HEAD = render_GET


class ImageFaultTests(TestCase):
    skip = why_not() or registry.why_not()
    timeout = patient(400)

    async def clean(self, platform: HomePlatform) -> None:
        """No temporary name, dangling image, or container is left."""
        left = {
            one for one in await platform.references()
            if "<" in one or ("/walt/" in one and "/walt/mounts:" not in one)
        }
        self.assertEqual(left, set())
        listed = await platform.runner.run(
            platform.podman("ps", "--all", "--external", "--quiet")
        )
        self.assertEqual(listed.stdout, b"")

    async def digest(self, platform: HomePlatform, path: Path) -> str:
        """Return the digest of a file."""
        done = await platform.runner.run(["sha256sum", str(path)])
        return done.stdout.decode().split()[0]

    async def content(self, platform: HomePlatform, image: str) -> str:
        """Return the digest of the file /etc/content of an image, empty without it."""
        place = platform.base / "content"
        place.unlink(missing_ok=True)
        await platform.walt("image", "cp", f"{image}:/etc/content", str(place))
        return await self.digest(platform, place) if place.exists() else ""

    async def random(self, platform: HomePlatform, path: Path, size: int) -> None:
        """Make a file of random bytes; `size` is in MiB."""
        await platform.runner.run(
            ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={size}"]
        )

    async def killed_while(
        self, platform: HomePlatform, words: tuple[str, ...], sign: Callable[[str], bool]
    ) -> None:
        """Start a command, kill the server when a process shows the sign, start it again."""
        client = Dialogue()
        env = {**os.environ, **platform.environment()}
        argv = [sys.executable, "-m", "walt.client.main", *words]
        platform.reactor.spawnProcess(client, argv[0], argv, env)
        limit = platform.reactor.seconds() + 30
        base = str(platform.base)
        while not any(base in one and sign(one) for one in commands()):
            self.assertLess(platform.reactor.seconds(), limit, f"{words} {bytes(client.seen)!r}")
            await platform.sleep(0.01)
        await platform.stop(signal.SIGKILL)
        self.assertNotEqual(await client.ended, 0)
        await platform.start()
        await self.clean(platform)

    async def helper_killed(
        self, platform: HomePlatform, words: tuple[str, ...], program: str
    ) -> None:
        """Kill the program that copies or commits: the command fails and leaves nothing."""
        client = Dialogue()
        env = {**os.environ, **platform.environment()}
        argv = [sys.executable, "-m", "walt.client.main", *words]
        platform.reactor.spawnProcess(client, argv[0], argv, env)
        limit = platform.reactor.seconds() + 30
        found: list[int] = []
        while not found:
            self.assertLess(platform.reactor.seconds(), limit, f"{words} {bytes(client.seen)!r}")
            await platform.sleep(0.01)
            found = [
                pid for pid, one in processes().items() if str(platform.base) in one
                and one.startswith(program) and (" copy " in one or " commit " in one)
            ]
        os.kill(found[0], signal.SIGKILL)
        self.assertEqual(await client.ended, 1, bytes(client.seen))

        async def clean() -> bool:
            listed = await platform.runner.run(
                platform.podman("ps", "--all", "--external", "--quiet")
            )
            return listed.stdout == b""

        await platform.until(clean, "no container is left", 10)
        await self.clean(platform)

    async def test_killed_server(self) -> None:
        """During a commit, a squash, a build, a clone: the old image or the new one, whole."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = TestRegistry(reactor, platform.base)
        self.addCleanup(lab.stop)
        await lab.start()
        await platform.import_tiny("alice/tiny:latest")
        platform.write_config("registries:\n" + lab.settings("lab"))
        await platform.start()
        content = platform.base / "new"
        await self.random(platform, content, 40)
        new = await self.digest(platform, content)
        self.assertEqual(await self.content(platform, "tiny"), "")
        await self.killed_while(
            platform, ("image", "cp", str(content), "tiny:/etc/content"),
            lambda one: one.startswith("podman") and " commit " in one,
        )
        self.assertIn(await self.content(platform, "tiny"), ("", new))
        await platform.ok("image", "cp", str(content), "tiny:/etc/content")
        await platform.ok("image", "publish", "tiny")
        await self.killed_while(
            platform, ("image", "squash", "tiny"),
            lambda one: one.startswith("buildah") and " commit " in one,
        )
        self.assertEqual(await self.content(platform, "tiny"), new)
        context = platform.base / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM tiny\nRUN busybox sleep 98764\n")
        await self.killed_while(
            platform, ("image", "build", "--from-dir", str(context), "endless"),
            lambda one: " build " in one and one.startswith("podman"),
        )
        self.assertFalse(any("98764" in one for one in commands()))
        await platform.ok("image", "remove", "tiny")
        await self.killed_while(
            platform, ("image", "clone", "lab:alice/tiny"),
            lambda one: one.startswith("skopeo") and " copy " in one,
        )
        await platform.ok("image", "clone", "--force", "lab:alice/tiny")
        for words, program in (
            (("image", "clone", "--force", "lab:alice/tiny"), "skopeo"),
            (("image", "squash", "tiny"), "buildah"),
            (("image", "cp", str(content), "tiny:/etc/other"), "podman"),
        ):
            await self.helper_killed(platform, words, program)
        self.assertEqual(await self.content(platform, "tiny"), new)

    async def refused(self, platform: HomePlatform, *words: str) -> str:
        """Run a command that must fail; return its errors."""
        done = await platform.walt(*words)
        self.assertEqual(done.status, 1, done.stdout.decode() + done.stderr.decode())
        return done.stderr.decode()

    async def test_full_disk(self) -> None:
        """During a transfer, a commit, a build, a download: an error, and nothing half done."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = TestRegistry(reactor, platform.base)
        self.addCleanup(lab.stop)
        await lab.start()
        storage = platform.state / "containers"
        storage.mkdir()
        await platform.runner.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "tmpfs", str(storage)]
        )
        await platform.import_tiny("alice/tiny:latest")
        platform.write_config("registries:\n" + lab.settings("lab"))
        await platform.start()
        data = platform.base / "data"
        await self.random(platform, data, 70)
        small = platform.base / "small"
        await self.random(platform, small, 35)
        context = platform.base / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(
            "FROM tiny\nRUN busybox dd if=/dev/urandom of=/f bs=1M count=100\n"
        )
        for words in (
            ("cp", str(data), "tiny:/etc/content"),  # the copy itself
            ("cp", str(small), "tiny:/etc/content"),  # its commit
            ("build", "--from-dir", str(context), "big"),
        ):
            told = await self.refused(platform, "image", *words)
            self.assertIn("No space left on device".lower(), told.lower())
            await self.clean(platform)
            self.assertEqual(await platform.own(), ["tiny"])
            self.assertEqual(await self.content(platform, "tiny"), "")
        await self.big_image(platform, lab, context)
        self.assertIn("no space left", (
            await self.refused(platform, "image", "clone", "lab:alice/big")
        ).lower())
        await self.clean(platform)
        self.assertEqual(await platform.own(), ["tiny"])
        await platform.ok("image", "cp", "tiny:/etc/hostname", str(platform.base))

    async def big_image(self, platform: HomePlatform, lab: TestRegistry, context: Path) -> None:
        """Put an image on the registry: a small layer that fills the disk when it is unpacked."""
        other = HomePlatform(platform.reactor)
        self.addCleanup(other.close)
        with open(context / "data", "wb") as data:
            data.truncate(70 << 20)
        (context / "Dockerfile").write_text(
            "FROM scratch\nLABEL walt.node.models=pc-x86-64\nCOPY data /\n"
        )
        await other.runner.run(other.podman(
            "build", "--isolation", "chroot", "--format", "docker", "--tag", "alice/big",
            str(context),
        ), timeout=120)
        await other.runner.run(other.podman(
            "push", "--tls-verify=false", "alice/big", f"{lab.host}/alice/big:latest"
        ), timeout=120)

    async def test_registries_that_misbehave(self) -> None:
        """500, silence, tokens that are refused: told and passed over; others are searched."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = TestRegistry(reactor, platform.base)
        self.addCleanup(lab.stop)
        await lab.start()
        await platform.import_tiny("alice/tiny:latest")
        text = "registries:\n" + lab.settings("lab")
        for mode in ("error", "slow", "expired"):
            port = reactor.listenTCP(  # type: ignore[attr-defined]
                0, PlainSite(Misbehaving(mode)), interface="127.0.0.1"
            )
            self.addCleanup(port.stopListening)
            lab.port, saved = port.getHost().port, lab.port
            text += lab.settings(mode)
            lab.port = saved
        platform.write_config(text)
        await platform.start()
        await platform.ok("image", "publish", "--registry", "lab", "tiny")
        done = await platform.walt("image", "search", "--json")
        self.assertEqual(
            [row["clonable_link"] for row in json.loads(done.stdout)], ["lab:alice/tiny"]
        )
        for mode, reason in (("error", "HTTP 500"), ("slow", ""), ("expired", "HTTP 401")):
            self.assertIn(f"{mode} was skipped: {reason and 'it '}", done.stderr.decode())
            self.assertIn(reason, done.stderr.decode())
        for mode in ("error", "expired"):
            told = await self.refused(platform, "image", "clone", f"{mode}:alice/tiny")
            self.assertIn(f"registry {mode}", told)
        await self.clean(platform)
