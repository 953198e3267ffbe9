"""The life of images through the walt command, on one platform."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import posixpath
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import registry
from tests.system.dialogue import Dialogue
from tests.system.hostile import check_archives
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load
from tests.system.processes import commands
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher

PC = "walt.node.pc-x86-64"


class ImagesTests(TestCase):
    skip = why_not()
    timeout = patient(600)

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
        # A repository of this machine is read where server.conf says so only.
        platform.write_config("images:\n  git-networks: [127.0.0.1/32]\n")
        await self.import_tiny(platform, "alice/tiny:latest")
        await self.import_tiny(platform, "bob/his:latest")
        await self.import_tiny(platform, "waltplatform/pc-x86-64-default:latest")
        for model in ("rpi-2-b", "rpi-b"):
            await self.import_tiny(
                platform, f"waltplatform/{model}-default:latest",
                "walt.node.models=rpi-b,rpi-2-b", "walt.image.preferred-name=for-rpi",
            )
        await platform.start()
        await self.newcomers(platform)
        await self.names(platform)
        await self.shells(platform)
        await self.copies(platform)
        await self.builds(platform)
        await self.squashed(platform)
        await self.full_system(platform)
        await self.repositories(platform)
        await self.held(platform)
        await self.left_alone(platform)
        await self.many_layers(platform)
        await self.used(platform)
        before = await self.references(platform)
        await check_archives(self, platform)
        self.assertEqual(await self.references(platform), before)
        await self.features(platform)
        await self.tools(platform)
        self.assertEqual(
            {
                one for one in await self.references(platform)
                if "<" in one or ("/walt/" in one and "/walt/mounts:" not in one)
            },
            set(),
        )
        self.assertEqual(await self.containers(platform), "")
        self.assertEqual(await platform.stop(), 0)
        self.assertEqual(platform.left_overs(), [])

    async def newcomers(self, platform: LivePlatform) -> None:
        """Who has no image gets copies of the default ones of the nodes; then listings."""
        boards = {"rpi-b": "b8:27:eb:00:00:01", "rpi-2-b": "b8:27:eb:00:00:02",
                  "pc-x86-64": "02:00:00:00:00:51"}
        for number, (model, mac) in enumerate(boards.items(), 51):
            await platform.event(
                "commit", "", f"walt.node.{model}", f"192.168.181.{number}", mac, model, "0",
                "unknown",
            )
        shown = await platform.walt("image", "show", user="zoe")
        told, table = shown.stderr.decode(), shown.stdout.decode()
        self.assertEqual(shown.status, 0, told)
        self.assertTrue(table.startswith("\nYour images:\n\n"), table)
        table = table.removeprefix("\nYour images:\n\n")
        # One copy serves two models; without preferred name it has that of the model.
        self.assertEqual(told.splitlines(), [
            "Image 'pc-x86-64-default' is now in your working set: default image of pc-x86-64"
            " nodes.",
            "Image 'for-rpi' is now in your working set: default image of rpi-[2-b|b] nodes.",
        ])
        date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        size = r"[0-9.]+ [kMG]B *"
        self.assertRegex(table, (
            r"\Aname +in-use  created +size +compatibility\n[- ]+\n"
            rf"for-rpi +no +{date}  {size}  rpi-\[b\|2-b\] *\n"
            rf"pc-x86-64-default  no +{date}  {size}  pc-x86-64 *\n\n"
            r"Other images are available; use `walt image show --all` to see them\.\n\Z"
        ))
        everything = (await platform.ok("image", "show", "--all", user="zoe")).split("\n\n")
        self.assertRegex(everything[3], (
            r"\Auser +name  created +size +clonable-link *\n[- ]+\n"
            rf"alice  tiny  {date}  {size}  walt:alice/tiny *\n"
            rf"bob    his   {date}  {size}  walt:bob/his *\Z"
        ))
        self.assertRegex(everything[5], (
            r"\Aname +created +size +clonable-link *\n[- ]+\n"
            rf"pc-x86-64-default  {date}  {size}  walt:waltplatform/pc-x86-64-default *\n"
            rf"rpi-2-b-default    {date}  {size}  walt:waltplatform/rpi-2-b-default *\n"
            rf"rpi-b-default      {date}  {size}  walt:waltplatform/rpi-b-default *\Z"
        ))
        self.assertIn("walt image clone <clonable-link>\n", everything[6])
        # So does any command that names an image, and its completion.
        await self.refused(
            platform, 1, "not in your working set", "image", "remove", "his", user="yan"
        )
        await platform.ok("image", "duplicate", "for-rpi", "mine", user="xiu")
        client = await Load(platform).connect()
        await client.call("hello", program="test", version="1", protocol="1", username="will")
        completed = await client.call("cs.server.complete", kind="IMAGE", words="[]", partial="f")
        self.assertEqual(json.loads(completed[b"candidates"]), ["for-rpi"])
        await client.call("hello", program="test", version="1", protocol="1", username="vic")
        await client.call("cs.images.show", all="False", refresh="False")
        self.assertIn(b"Cloning default images", [box.get(b"label") for box in client.told])
        Load.close(client)
        for user, names in (("yan", []), ("xiu", ["mine"]), ("will", [])):
            self.assertEqual(
                (await platform.ok("image", "show", "--names-only", user=user)).split(),
                sorted(["for-rpi", "pc-x86-64-default", *names]),
            )
        for name in json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]:
            await platform.ok("device", "forget", "--force", name["name"])

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
        self.assertEqual(done.status, 1, done.stderr)  # no name was given
        self.assertIn(b"image-shell\n", done.stdout)
        self.assertIn(b"discarded", done.stderr)
        self.assertEqual(await self.own(platform), ["tiny"])

    async def copies(self, platform: LivePlatform) -> None:
        """Files and directories to and from an image."""
        here = platform.base / "files"
        (here / "sub").mkdir(parents=True)
        (here / "one").write_text("content")
        done = await platform.walt("image", "cp", str(here), "tiny:")
        self.assertEqual(done.status, 0, done)
        self.assertIn(b"Saving image tiny: layer 1\n", done.stderr)
        await platform.ok("image", "cp", str(here / "one"), "tiny:/etc/two")
        await platform.ok("image", "cp", "tiny:/root/files/one", str(here / "back"))
        self.assertEqual((here / "back").read_text(), "content")
        await platform.ok("image", "cp", "tiny:files", str(platform.base / "again"))
        self.assertEqual(sorted(os.listdir(platform.base / "again")), ["one", "sub"])
        await self.refused(
            platform, 1, "there is no", "image", "cp", "tiny:/nothing", str(here)
        )
        await self.refused(platform, 2, "Usage:", "image", "cp", "a", "b")
        await self.refused(
            platform, 1, "is a file", "image", "cp", str(here), "tiny:/etc/two"
        )

        # What cannot be in an image is refused by its name, and not told to be saved.
        one = str(here / "one")
        for place in ("/run/here", "/etc/../dev/shm/here"):
            await self.refused(
                platform, 1, f"{posixpath.normpath(place)} lies in memory",
                "image", "cp", one, f"tiny:{place}",
            )
        # A volume of the image is a directory as others, and its user is no matter.
        recipe = platform.base / "volumes"
        recipe.mkdir()
        (recipe / "Dockerfile").write_text("FROM tiny\nVOLUME /data\nUSER 1000\n")
        await platform.ok("image", "build", "--from-dir", str(recipe), "volumes")
        await platform.ok("image", "cp", str(here), "volumes:/data")
        for name in ("hosts", "resolv.conf", "hostname"):
            await platform.ok("image", "cp", one, f"volumes:/etc/{name}")
            await platform.ok("image", "cp", f"volumes:/etc/{name}", str(platform.base / name))
            self.assertEqual((platform.base / name).read_text(), "content")
        await platform.ok("image", "cp", "volumes:/data", str(platform.base / "data"))
        self.assertEqual(sorted(os.listdir(platform.base / "data")), ["back", "one", "sub"])
        await platform.ok("image", "remove", "volumes")

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
        done = await platform.walt("image", "squash", "made")
        self.assertEqual(
            (done.status, done.stderr.decode().splitlines()),
            (0, ["Squashing made: 4 layers", "Squashing made: layer 1",
                 "Squashing made: finishing"]),
        )
        await platform.ok("image", "cp", "made:built", str(platform.base / "squashed"))
        self.assertEqual(Path(platform.base / "squashed").read_text(), "built\n")
        podman = Storage.private(platform.state, platform.runtime).podman
        shown = await platform.runner.run(podman("image", "inspect", "alice/made"))
        self.assertEqual(len(json.loads(shown.stdout)[0]["RootFS"]["Layers"]), 1)

    async def full_system(self, platform: LivePlatform) -> None:
        """An image with start and shutdown programs runs its operating system meanwhile."""
        context = platform.base / "system"
        context.mkdir()
        (context / "start").write_text(
            "#!/bin/sh\nbusybox touch /root/started\nexec busybox sleep 98763\n"
        )
        (context / "stop").write_text("#!/bin/sh\nbusybox touch /root/stopped\n")
        (context / "cpuinfo").write_text("model: odd\n")
        (context / "bash").write_text("#!/bin/sh\necho this is bash\nexec /bin/sh\n")
        (context / "Dockerfile").write_text(
            "FROM tiny\nCOPY start /bin/walt-image-shell-start\n"
            "COPY stop /bin/walt-image-shell-shutdown\nCOPY cpuinfo /etc/cpuinfo\n"
            "COPY bash /bin/bash\nRUN busybox chmod 755 /bin/bash /bin/walt-image-shell-*\n"
        )
        await platform.ok("image", "build", "--from-dir", str(context), "system")
        shell = Dialogue(
            (b"# ", b"busybox cat /proc/cpuinfo; exit\n"),
            (b"New image name: ", b"system\n"), (b"(y/n): ", b"y\n"),
        )
        env = {**os.environ, **platform.environment(), "TERM": "dumb"}
        argv = [sys.executable, "-m", "walt.client.main", "image", "shell", "system"]
        platform.reactor.spawnProcess(shell, argv[0], argv, env, usePTY=True)
        status = await shell.ended.addTimeout(30, platform.reactor)
        self.assertEqual(status, 0, shell.seen)
        self.assertIn(b"operating system of this image is running", shell.seen)
        self.assertIn(b"model: odd", shell.seen)
        self.assertIn(b"this is bash", shell.seen)
        for name in ("started", "stopped"):
            await platform.ok("image", "cp", f"system:{name}", str(platform.base))
        await platform.ok("image", "remove", "system")
        await self.saved_elsewhere(platform)

    async def saved_elsewhere(self, platform: LivePlatform) -> None:
        """A shell saved under another name, once that is not taken; the image stays as it was."""
        shell = Dialogue(
            (b"# ", b"echo elsewhere > /root/place; exit\n"),
            (b"New image name: ", b"made\n"), (b"New image name: ", b"a/b\n"),
            (b"New image name: ", b"fresh:v1\n"),
        )
        env = {**os.environ, **platform.environment(), "TERM": "dumb"}
        argv = [sys.executable, "-m", "walt.client.main", "image", "shell", "tiny"]
        platform.reactor.spawnProcess(shell, argv[0], argv, env, usePTY=True)
        status = await shell.ended.addTimeout(30, platform.reactor)
        self.assertEqual(status, 0, shell.seen)
        self.assertIn(b"Choose another name", shell.seen)
        await platform.ok("image", "cp", "fresh:v1:place", str(platform.base))
        self.assertEqual((platform.base / "place").read_text(), "elsewhere\n")
        await self.refused(
            platform, 1, "there is no", "image", "cp", "tiny:place", str(platform.base)
        )
        await platform.ok("image", "remove", "fresh:v1")

    async def repositories(self, platform: LivePlatform) -> None:
        """A build of a git repository, of one of its directories; bad addresses."""
        top = platform.base / "repositories" / "project"
        (top / "deep").mkdir(parents=True)
        (top / "deep" / "ContainerFile").write_text("FROM tiny\nRUN echo url > /root/url\n")
        (top / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = ../lib\n')
        git = ["git", "-C", str(top), "-c", "user.name=t", "-c", "user.email=t@t"]
        await platform.runner.run(["git", "init", "--quiet", str(top)])
        await platform.runner.run([*git, "add", "."])
        await platform.runner.run([*git, "commit", "--quiet", "-m", "first"])
        port = registry.free_port()
        daemon = ChildService(platform.reactor, Launcher(), ChildSpec("git", (
            "/usr/lib/git-core/git-daemon", "--reuseaddr", "--export-all",
            "--listen=127.0.0.1", f"--port={port}", f"--base-path={top.parent}", str(top.parent),
        )))
        daemon.startService()
        self.addCleanup(daemon.stopService)
        url = f"git://127.0.0.1:{port}/project"

        async def serves() -> bool:
            listed = await platform.runner.run(["git", "ls-remote", url], check=False)
            return listed.status == 0

        await platform.until(serves, "the git daemon serves", 20)
        build = ("image", "build", "--from-url")
        done = await platform.walt(*build, url, "--sub-dir", "/deep/", "from-url")
        self.assertEqual(done.status, 0, done.stderr)
        self.assertIn(b"Image from-url was built.", done.stdout)
        self.assertIn(b"submodules of this repository are not fetched", done.stderr)
        for text, words in (
            ("no Dockerfile", (url, "x")), ("no directory", (url, "--sub-dir", "none", "x")),
            ("without `..`", (url, "--sub-dir", "../..", "x")),
            ("not the address", ("ext::sh -c true", "x")), ("not the address", (str(top), "x")),
            ("cannot be fetched", (f"{url}-missing", "x")),
            ("cannot be fetched", ("git://127.0.0.2/project", "x")),
        ):
            await self.refused(platform, 1, text, *build, *words)
        missing = await platform.walt("image", "build", "x")
        self.assertEqual((missing.status, b"--from-dir" in missing.stderr), (2, True))
        await daemon.stopService()

    async def held(self, platform: LivePlatform) -> None:
        """What one person changes, another cannot; the message says which task."""
        shell = Dialogue()
        env = {**os.environ, **platform.environment()}
        argv = [sys.executable, "-m", "walt.client.main", "image", "shell", "tiny"]
        transport = platform.reactor.spawnProcess(shell, argv[0], argv, env)
        await platform.until(lambda: succeed(b"container" in shell.seen), "the shell is open", 20)
        for words in (
            ("shell", "tiny"), ("cp", "tiny:/etc/hostname", "/tmp"), ("squash", "tiny"),
            ("remove", "tiny"), ("rename", "tiny", "other"),
        ):
            await self.refused(platform, 1, "(shell)", "image", *words)
        await platform.ok("image", "duplicate", "tiny", "spare")
        await platform.ok("image", "remove", "spare")
        transport.signalProcess("KILL")

        async def free() -> bool:
            done = await platform.walt("image", "cp", "tiny:/etc/hostname", str(platform.base))
            return done.status == 0

        await platform.until(free, "the image is free again", 20)

    async def left_alone(self, platform: LivePlatform) -> None:
        """A build that never ends, whose client is killed: nothing of it remains."""
        context = platform.base / "endless"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM tiny\nRUN busybox sleep 98765\n")
        client = Dialogue()
        env = {**os.environ, **platform.environment()}
        words = ("image", "build", "--from-dir", str(context), "endless")
        argv = [sys.executable, "-m", "walt.client.main", *words]
        transport = platform.reactor.spawnProcess(client, argv[0], argv, env)

        async def sleeping() -> bool:
            return any("98765" in one and "unshare" not in one for one in commands())

        await platform.until(sleeping, "the build sleeps", 30)
        await self.refused(
            platform, 1, "(build)", "image", "build", "--from-dir", str(context), "endless"
        )
        transport.signalProcess("KILL")

        async def gone() -> bool:
            return not any("98765" in one for one in commands()) and not (
                await self.containers(platform)
            )

        await platform.until(gone, "nothing of the build is left", 30)
        self.assertEqual(list((platform.state / "builds").iterdir()), [])

    async def many_layers(self, platform: LivePlatform) -> None:
        """With 128 layers an image is not changed any more, until it is squashed."""
        layers = platform.base / "layers.tar"
        layers.write_bytes(docker_archive("docker.io/alice/full:latest", 128))
        podman = Storage.private(platform.state, platform.runtime).podman
        await platform.runner.run(podman("load", "--quiet", "--input", str(layers)), timeout=120)
        await platform.ok("image", "show", "--refresh")
        for words in (("shell", "full"), ("cp", "full:/etc", "/tmp")):
            await self.refused(platform, 1, "walt image squash full", "image", *words)
        await platform.ok("image", "squash", "full")
        await platform.ok("image", "cp", "full:/layer-127", str(platform.base))
        await platform.ok("image", "remove", "full")

    async def used(self, platform: LivePlatform) -> None:
        """What a node boots is neither removed nor replaced by what it cannot boot."""
        await platform.event(
            "commit", "", PC, "192.168.181.31", "02:00:00:00:00:01", "", "0", "unknown"
        )
        booted = await platform.walt("node", "boot", "node-000001", "tiny")
        self.assertIn(b"will now boot tiny", booted.stdout)
        rows = {row["name"]: row for row in json.loads(
            await platform.ok("image", "show", "--json"))["own"]}
        self.assertTrue(rows["tiny"]["in_use"])
        self.assertTrue(rows["tiny"]["digest"].startswith("sha256:"))
        await self.refused(platform, 1, "in use", "image", "remove", "tiny")
        await self.refused(platform, 1, "in use", "image", "rename", "tiny", "other")
        await platform.ok("image", "duplicate", "tiny", "same")
        context = platform.base / "context"
        (context / "Dockerfile").write_text("FROM made\nLABEL walt.node.models=rpi-b\n")
        await platform.ok("image", "build", "--from-dir", str(context), "for-rpi")
        refused = await platform.walt("node", "boot", "node-000001", "for-rpi")
        self.assertIn(b"cannot boot nodes of type pc-x86-64", refused.stderr)
        await self.refused(
            platform, 1, "not for them", "image", "build", "--from-dir", str(context), "tiny",
            stdin=b"y\n",
        )
        await platform.ok("image", "clone", "walt:alice/for-rpi", user="bob")
        await self.refused(
            platform, 1, "not for them", "image", "clone", "--force", "walt:bob/for-rpi", "tiny",
        )
        (context / "Dockerfile").write_text("FROM tiny\nRUN echo over > /root/over\n")
        over = await platform.walt(
            "image", "build", "--from-dir", str(context), "tiny", stdin=b"y\n"
        )
        self.assertIn(b"Node node-000001 uses it and will reboot", over.stderr)
        self.assertIn(b"Image tiny was built.", over.stdout)
        self.assertIn(b"Node node-000001 will reboot.", over.stdout)
        self.assertIn(b"Node node-000001: failed soft-reboot (", over.stderr)
        warned = await platform.walt("image", "squash", "tiny", stdin=b"n\n")
        self.assertEqual(warned.status, 1)
        self.assertIn(b"Node node-000001 uses it and will reboot", warned.stderr)
        await self.refused(
            platform, 1, "in use", "advanced", "fix-image-owner", "--yes-i-know-do-it-please",
            "alice", user="dave",
        )
        for user, text in (("bob", "yours already"), ("nobody", "has no image")):
            await self.refused(
                platform, 1, text, "advanced", "fix-image-owner", "--yes-i-know-do-it-please",
                user, user="bob",
            )
        await platform.walt("node", "release", "node-000001")
        await platform.ok("image", "clone", "walt:alice/tiny", "his", user="carol")
        await self.refused(
            platform, 1, "exists already", "advanced", "fix-image-owner",
            "--yes-i-know-do-it-please", "carol", user="bob",
        )
        await platform.ok("image", "remove", "his", user="carol")
        explained = await platform.ok("advanced", "fix-image-owner", "carol", user="bob")
        self.assertIn("--yes-i-know-do-it-please carol", explained)
        await platform.ok("image", "clone", "walt:alice/tiny", "hers", user="carol")
        moved = await platform.ok(
            "advanced", "fix-image-owner", "--yes-i-know-do-it-please", "carol", user="bob"
        )
        self.assertEqual(moved, "Image hers is now yours.\n")

    async def features(self, platform: LivePlatform) -> None:
        """What image.spec and server.spec agree on is done in the tree that a node boots."""
        (platform.base / "server.spec").write_text("features: [ptp, broken]\n")
        files = platform.base / "features" / "files"
        (files / "walt").mkdir(parents=True)
        (files / "walt" / "image.spec").write_text(
            "features:\n  ptp: busybox touch /etc/ptp-on; echo ptp is on\n"
            "  nbfs2: busybox touch /etc/other-on\n  broken: exit 3\n"
        )
        (files / "ptpd.conf").write_text(
            "ptpengine:interface = eth0\nptpengine:log_delayreq_interval = 0\n"
        )
        local = Path("/etc/localtime")
        zone = Path(os.path.normpath(local.parent / os.readlink(local)) if local.is_symlink()
                    else "/usr/share/zoneinfo/Etc/UTC")
        # Links to what is outside of the image: nothing is written, nor removed, there.
        outside = platform.base / "outside"
        outside.mkdir()
        kept = ("walt-echo", "hosts", "resolv.conf", "hostname")
        for name in kept:
            (outside / name).write_text("of the server")
        for name in kept[1:]:
            (files / name).symlink_to(outside / name)
        (files.parent / "Dockerfile").write_text(
            f"FROM tiny\nCOPY files/ /etc/\nRUN busybox mkdir -p /usr/local; "
            f"busybox rm -rf /root/.ssh /usr/local/bin /etc/dropbear; "
            f"for one in /root/.ssh /usr/local/bin /etc/dropbear; do"
            f" busybox ln -s {outside} $one; done;"
            f" busybox mkdir -p /boot/real /boot/pc-x86-64 {zone.parent};"
            f" busybox touch {zone};"
            f" busybox ln -s /boot/real /boot/pc-x86-64/absolute\n"
        )
        await platform.ok("image", "build", "--from-dir", str(files.parent), "featured")
        platform.signal(signal.SIGHUP)
        await platform.walt("node", "boot", "node-000001", "featured")
        etc = (await platform.until(
            lambda: succeed(list(platform.state.glob("images/*/fs/etc/ptp-on"))), "mounted", 20
        ))[0].parent
        await platform.until(
            lambda: succeed("feature broken: status 3" in platform.log.read_text()), "told", 20
        )
        self.assertIn(": ptp: ptp is on", platform.log.read_text())
        self.assertIn("server.spec applies to what is mounted", platform.log.read_text())
        self.assertEqual(
            {one.name: one.read_text() for one in outside.iterdir()},
            dict.fromkeys(kept, "of the server"),
        )
        # The time zone is that of the server, if it has one.
        self.assertEqual(
            os.readlink(etc / "localtime") if local.is_symlink() else str(zone), str(zone)
        )
        self.assertIn("localhost", (etc / "hosts").read_text())
        self.assertIn("nameserver 192.168.181.1", (etc / "resolv.conf").read_text())
        self.assertFalse((etc / "hosts").is_symlink() or (etc / "resolv.conf").is_symlink())
        inside = etc.parent / str(outside).lstrip("/")
        self.assertTrue((inside / "authorized_keys").exists())
        # TFTP sees another root directory.
        self.assertEqual(os.readlink(etc.parent / "boot" / "pc-x86-64" / "absolute"), "../real")
        self.assertFalse((etc / "other-on").exists())
        self.assertEqual((etc / "walt/server.spec").read_text(), "features: [ptp, broken]\n")
        self.assertEqual(
            (etc / "ptpd.conf").read_text().splitlines()[1:],
            ["ptpengine:log_delayreq_interval = 3", "ptpengine:ip_mode = hybrid"],
        )

    async def tools(self, platform: LivePlatform) -> None:
        """walt-image-check, -mount, -umount beside a running server."""

        async def run(status: int, name: str, *words: str) -> str:
            done = await platform.runner.run(
                [*tool(name), "--config", str(platform.config), *words], check=False,
                env={"PYTHONPATH": str(ROOT)},
            )
            self.assertEqual(done.status, status, f"{name} {words} {done}")
            return (done.stderr or done.stdout).decode()

        podman = Storage.private(platform.state, platform.runtime).podman
        await platform.runner.run(
            podman("import", "-q", str(platform.base / "tiny.tar"), "docker.io/alice/plain")
        )
        shown = await platform.runner.run(podman("image", "inspect", "alice/made"))
        made = json.loads(shown.stdout)[0]["Id"]
        for name in ("alice/made", "docker.io/alice/made:latest", made, made[:12]):
            self.assertEqual(await run(0, "walt-image-check", name), "OK\n")
        self.assertIn("no label walt.node.models", await run(1, "walt-image-check", "alice/plain"))
        self.assertIn("no image named", await run(1, "walt-image-check", "alice/none"))
        await run(1, "walt-image-check", "a b")
        await run(2, "walt-image-check")
        for words in ((made[:12],), (made, "1000")):
            tree = Path((await run(0, "walt-image-mount", *words)).strip())
            self.assertEqual(tree, platform.state / "images" / made / "fs")
            self.assertTrue(tree.is_mount())
            self.assertTrue((tree / "bin/walt-init").exists())
        await run(0, "walt-image-umount", made[:12])
        self.assertFalse(tree.exists())
        self.assertIn("not the id of a mounted image", await run(1, "walt-image-umount", made))
        (used,) = platform.state.glob("images/*/fs/etc/ptp-on")
        self.assertIn("cannot unmount", await run(1, "walt-image-umount", used.parts[-4]))
        await platform.runner.run(podman("rmi", "alice/plain"))


def tool(name: str) -> list[str]:
    """Return the command that runs an executable of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    scripts = parser["options.entry_points"]["console_scripts"].splitlines()
    (target,) = [one.split(" = ")[1] for one in scripts if one.startswith(f"{name} = ")]
    module, function = target.split(":")
    return [
        sys.executable, "-c",
        f"import sys; from {module} import {function}; sys.exit({function}())",
    ]


def docker_archive(name: str, count: int) -> bytes:
    """Return what `docker save` would write of an image with many layers."""
    layers = [archive({f"layer-{number}": b"x"}) for number in range(count)]
    config = {
        "architecture": "amd64", "os": "linux",
        "config": {"Labels": {"walt.node.models": "pc-x86-64"}},
        "rootfs": {"type": "layers", "diff_ids": [
            f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers
        ]},
    }
    files = {f"{number}.tar": one for number, one in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)}]
    return archive({
        **files, "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    })
