"""Publishing, searching and cloning with real registries, through the walt command."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import registry
from tests.system.dialogue import Dialogue
from tests.system.live import LivePlatform, why_not
from tests.system.processes import commands
from tests.system.registry import TestJfrog, TestRegistry
from tests.system.storage import archive, with_busybox
from walt.server.adapters.podman.options import Storage

LABEL = "walt.node.models=pc-x86-64"


class HomePlatform(LivePlatform):
    """A platform whose client has a home of its own."""

    def environment(self, user: str = "alice") -> dict[str, str]:
        home = self.base / f"home-{user}"
        home.mkdir(exist_ok=True)
        return {**super().environment(user), "HOME": str(home)}

    @property
    def podman(self) -> Any:
        """Make vectors of podman commands on the server's storage."""
        return Storage.private(self.state, self.runtime).podman

    async def import_tiny(self, name: str, *labels: str) -> None:
        """Put an image with a busybox into the store."""
        tree = self.base / "tiny.tar"
        tree.write_bytes(archive({**with_busybox(), "etc/name": name.encode()}))
        changes = [word for label in labels or (LABEL,) for word in ("--change", f"LABEL {label}")]
        await self.runner.run(
            self.podman("import", "-q", *changes, str(tree), f"docker.io/{name}")
        )

    async def references(self) -> set[str]:
        """Return every name in the store, dangling images included."""
        listed = await self.runner.run(
            self.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        )
        return set(listed.stdout.decode().split())

    async def own(self, user: str = "alice") -> list[str]:
        """Return the names in a working set."""
        return (await self.ok("image", "show", "--names-only", user=user)).split()


class RegistriesTests(TestCase):
    skip = why_not() or registry.why_not()
    timeout = patient(300)

    async def refused(
        self, platform: LivePlatform, text: str, *words: str, **options: Any
    ) -> None:
        """Run a command that must fail with a text on standard error."""
        done = await platform.walt(*words, **options)
        self.assertEqual(
            (done.status, text in done.stderr.decode()), (1, True),
            f"{words}: {done.status} {done.stdout.decode()} {done.stderr.decode()}",
        )

    async def test_registries(self) -> None:
        """One without accounts, one with, one that is down."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = self.lab = TestRegistry(reactor, platform.base)
        private = TestRegistry(reactor, platform.base, accounts=True)
        frog = TestJfrog(reactor, platform.base, "team", accounts=True)
        for one in (lab, private, frog):
            self.addCleanup(one.stop)
            await one.start()
        down = registry.free_port()
        await platform.import_tiny("alice/tiny:latest")
        await platform.import_tiny("alice/future:latest", LABEL, "walt.server.minversion=99")
        await platform.import_tiny("bob/his:latest")
        platform.write_config(
            "registries:\n" + lab.settings("lab", description="of the lab")
            + private.settings("private", auth="basic") + frog.settings("frog", auth="basic")
            + f"- label: down\n  api: docker-registry-v2\n  host: 127.0.0.1\n  port: {down}\n"
            "  protocol: http\n  auth: none\n"
        )
        auth = platform.base / "auth.json"
        platform.server_environment["REGISTRY_AUTH_FILE"] = str(auth)
        await platform.start()
        await self.publish_and_clone(platform)
        await self.credentials(platform)
        await self.searched(platform)
        await self.jfrog(platform, frog)
        await self.stored_credentials(platform, auth, private)
        await self.damaged(platform, lab)
        left = {one for one in await platform.references() if "/walt/" in one or "<" in one}
        self.assertEqual(left, set())
        for place in (platform.runtime / "registries", platform.state / "layers"):
            self.assertEqual(list(place.iterdir()), [])
        self.assertNotIn("secret", platform.log.read_text(errors="replace"))

    async def publish_and_clone(self, platform: HomePlatform) -> None:
        """To the registry without accounts, and back under another user."""
        choice = await platform.walt("image", "publish", "tiny")
        self.assertEqual(choice.status, 1)
        self.assertIn(b"lab       of the lab", choice.stdout)
        await self.refused(
            platform, "no registry 'x'", "image", "publish", "--registry", "x", "tiny"
        )
        await self.refused(
            platform, "the Docker Hub is not among the registries", "advanced", "update-hub-meta"
        )
        told = await platform.ok("image", "publish", "--registry", "lab", "tiny")
        self.assertIn("walt image clone lab:alice/tiny\n", told)
        await platform.ok("image", "publish", "--registry", "lab", "future")
        await self.refused(
            platform, "down", "image", "publish", "--registry", "down", "tiny"
        )
        await platform.ok("image", "clone", "lab:alice/tiny", user="bob")
        await platform.ok("image", "clone", "walt:alice/tiny", "renamed:v1", user="bob")
        self.assertEqual(await platform.own("bob"), ["his", "renamed:v1", "tiny"])
        await self.refused(
            platform, "walt image clone --force lab:alice/tiny", "image", "clone",
            "lab:alice/tiny", user="bob",
        )
        await platform.ok("image", "clone", "--force", "lab:alice/tiny", user="bob")
        # A name that is none here is changed, and that is told.
        odd = "alice/odd__name:v1"
        await platform.runner.run(platform.podman(
            "push", "--tls-verify=false", "docker.io/alice/tiny", f"{self.lab.host}/{odd}"
        ))
        told = await platform.ok("image", "clone", f"lab:{odd}", user="bob")
        self.assertIn("odd-name:v1", told)
        self.assertIn("odd-name:v1", await platform.own("bob"))
        await platform.ok("image", "remove", "odd-name:v1", user="bob")
        await platform.ok("image", "remove", "tiny")
        await platform.ok("image", "clone", "lab:alice/tiny")
        for text, *words in (
            ("version 99", "lab:alice/future"), ("no such image", "lab:alice/nothing"),
            ("not a link", "nowhere:alice/tiny"), ("not a link", "lab:alice"),
            ("your working set already", "walt:alice/tiny"), ("there is no image", "walt:eve/x"),
            ("not a valid image name", "lab:alice/tiny", "Bad name"), ("registry down", "down:a/b"),
        ):
            await self.refused(platform, text, "image", "clone", *words)

    async def credentials(self, platform: HomePlatform) -> None:
        """Asked for, tried, kept where only their owner reads them."""
        await self.refused(
            platform, "no credentials were given", "image", "publish", "--registry", "private",
            "tiny",
        )
        told = await platform.ok(
            "image", "publish", "--registry", "private", "tiny",
            stdin=b"walter\nwrong\nwalter\nsecret\n",
        )
        self.assertIn("walt image clone private:walter/tiny\n", told)
        config = Path(platform.environment()["HOME"]) / ".walt" / "config"
        self.assertEqual(config.stat().st_mode & 0o777, 0o600)
        self.assertNotIn("secret", config.read_text())
        await platform.ok("image", "clone", "private:walter/tiny", "again")
        await self.refused(platform, "", "image", "clone", "private:walter/tiny", user="bob")
        config.write_text(config.read_text().replace("walter", "nobody"))
        await platform.ok(
            "image", "clone", "private:walter/tiny", "third", stdin=b"walter\nsecret\n"
        )

    async def searched(self, platform: HomePlatform) -> None:
        """Every source that answers; the others are told."""
        done = await platform.walt("image", "search", "--json")
        self.assertEqual(done.status, 0, done.stderr)
        self.assertIn(b"down was skipped", done.stderr)
        links = {row["clonable_link"] for row in json.loads(done.stdout)}
        self.assertEqual(links, {
            "walt:bob/his", "walt:bob/renamed:v1", "walt:bob/tiny", "lab:alice/tiny",
            "[need server upgrade, version>=99]", "private:walter/tiny", "lab:alice/odd__name:v1",
        })
        table = await platform.ok("image", "search", "lab:alice/t")
        self.assertIn("alice  tiny        custom registry  pc-x86-64      lab:alice/tiny", table)
        nothing = await platform.walt("image", "search", "nothing-like-this")
        self.assertIn(b"No image was found", nothing.stderr)

    async def jfrog(self, platform: HomePlatform, frog: TestJfrog) -> None:
        """The repository takes the place of the user."""
        account = b"walter\nsecret\n"
        await self.refused(platform, "no credentials", "image", "publish", "--registry", "frog",
                           "tiny")
        told = await platform.ok("image", "publish", "--registry", "frog", "tiny", stdin=account)
        self.assertIn("walt image clone frog:team/tiny\n", told)
        found = json.loads(await platform.ok("image", "search", "--json", "frog:"))
        self.assertEqual([row["clonable_link"] for row in found], ["frog:team/tiny"])
        self.assertGreater(frog.front.catalogues, 0)
        await platform.ok("image", "clone", "frog:team/tiny", "leap")
        await self.refused(platform, "no such image", "image", "clone", "frog:walter/tiny", "x")
        await platform.ok("image", "remove", "leap")

    async def stored_credentials(
        self, platform: HomePlatform, auth: Path, private: TestRegistry
    ) -> None:
        """Those of the server's root serve people without any; no secret is ever seen."""
        clone = ("image", "clone", "--force", "private:walter/tiny", "copy")
        await self.refused(platform, "no credentials", *clone, user="carol")
        helper = Path(f"/usr/local/bin/docker-credential-wt{os.getpid()}")
        self.addCleanup(helper.unlink, missing_ok=True)
        helper.write_text(
            f"#!/bin/sh\n[ \"$1 $(cat)\" = 'get {private.host}' ] || exit 1\n"
            'echo \'{"Username": "walter", "Secret": "secret"}\'\n'
        )
        helper.chmod(0o755)
        pair = base64.b64encode(b"walter:secret").decode()
        name = helper.name.removeprefix("docker-credential-")
        for content in (
            {"auths": {f"https://{private.host}/v2/": {"auth": pair}}},
            {"auths": {private.host: {}}, "credHelpers": {private.host: name}},
            {"auths": {private.host: {}}, "credsStore": name},
        ):
            auth.write_text(json.dumps(content))
            auth.chmod(0o600)
            cloning = Deferred.fromCoroutine(platform.ok(*clone, user="carol"))
            seen = 0
            while not cloning.called:
                words = {word for line in commands() for word in line.split()}
                for secret in ("secret", "walter:secret", pair):
                    self.assertNotIn(secret, words)
                for file in (platform.runtime / "registries").glob("*.json"):
                    seen += 1
                    self.assertEqual(
                        (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777),
                        (0o600, 0o700),
                    )
                await platform.sleep(0.01)
            await cloning
            self.assertGreater(seen, 0)
            told = await platform.ok(
                "image", "publish", "--registry", "private", "copy", user="carol"
            )
            self.assertIn("private:walter/copy", told)
        # Another registry is asked for; ctrl-D leaves it out.
        shown = Dialogue((b"frog user name: ", b"\x04"))
        argv = [sys.executable, "-m", "walt.client.main", "image", "search", "private:"]
        env = {**os.environ, **platform.environment("carol"), "TERM": "dumb"}
        platform.reactor.spawnProcess(shown, argv[0], argv, env, usePTY=True)
        self.assertEqual(await shown.ended.addTimeout(60, platform.reactor), 0)
        self.assertIn(b"private:walter/tiny", shown.seen)
        self.assertIn(b"frog was skipped", shown.seen)
        self.assertNotIn(b"private user name", shown.seen)
        for broken in ("{", "[]", '{"auths": {"' + private.host + '": {"auth": "!"}}}',
                       '{"credsStore": "../../bin/sh"}', '{"credsStore": "no-such-helper"}'):
            auth.write_text(broken)
            await self.refused(platform, "no credentials", *clone, user="carol")
        auth.unlink()
        await platform.ok("image", "remove", "copy", user="carol")

    async def damaged(self, platform: HomePlatform, lab: TestRegistry) -> None:
        """A layer that is cut, or is not what its digest says, is never an image."""
        blobs = [
            path for path in (lab.root / "data").rglob("data")
            if path.is_file() and path.stat().st_size > 100_000
        ]
        self.assertTrue(blobs)
        await platform.runner.run(platform.podman("rmi", "--all", "--force"))
        await platform.import_tiny("carol/own:latest")
        # What podman did behind the server's back is seen after --refresh.
        shown = await platform.ok("image", "show", "--names-only", "--refresh", user="carol")
        self.assertEqual(shown, "own\n")
        self.assertEqual(await platform.own("bob"), [])
        for damage in (lambda data: data[:-1000], lambda data: data[:-1000] + bytes(1000)):
            saved = {path: path.read_bytes() for path in blobs}
            for path, data in saved.items():
                path.write_bytes(damage(data))
            await self.refused(
                platform, "registry lab", "image", "clone", "lab:alice/tiny", user="carol"
            )
            for path, data in saved.items():
                path.write_bytes(data)
            self.assertEqual(await platform.own("carol"), ["own"])
        await platform.ok("image", "clone", "lab:alice/tiny", user="carol")

    async def test_hub_and_defaults(self) -> None:
        """The index of an account, and newer default images."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        lab = TestRegistry(reactor, platform.base)
        hub = TestRegistry(reactor, platform.base, accounts=True)
        for one in (lab, hub):
            self.addCleanup(one.stop)
            await one.start()
        default = "waltplatform/pc-x86-64-default:latest"
        for name in (default, "alice/tiny:latest", "alice/other:latest"):
            await platform.import_tiny(name)
        platform.write_config(
            "registries:\n" + hub.settings("hub", api="docker-hub", auth="basic")
            + lab.settings("lab")
        )
        await platform.start()
        await self.defaults(platform, lab, default)

        account = b"walter\nsecret\n"
        published = await platform.ok(
            "image", "publish", "--registry", "hub", "tiny", stdin=account
        )
        self.assertIn("walt image clone hub:walter/tiny\n", published)
        await platform.runner.run(platform.podman(
            "push", "--tls-verify=false", "--creds", "walter:secret", "alice/other",
            f"{hub.host}/walter/other:latest",
        ))
        clone = ("image", "clone", "hub:walter/other", "copy")
        await self.refused(platform, "not in the index", *clone)
        rebuilt = await platform.ok("advanced", "update-hub-meta")
        self.assertEqual(rebuilt.splitlines(), [
            "walter/other:latest", "walter/tiny:latest",
            "2 images can be found on the Docker Hub.",
        ])
        others = await platform.ok("advanced", "rescan-hub-account", "--waltplatform-user")
        self.assertEqual(others, "0 images can be found on the Docker Hub.\n")
        await platform.ok(*clone)
        found = json.loads(await platform.ok("image", "search", "hub:", "--json"))
        self.assertEqual(
            [(row["location"], row["clonable_link"]) for row in found],
            [("docker hub", "hub:walter/other"), ("docker hub", "hub:walter/tiny")],
        )
        self.assertNotIn("secret", platform.log.read_text(errors="replace"))

    async def defaults(self, platform: HomePlatform, lab: TestRegistry, default: str) -> None:
        """A newer version on a registry replaces ours; then there is none."""
        none = "There are no updates of default images.\n"
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", "192.168.181.31", "02:00:00:00:00:01", "", "0",
            "unknown",
        )
        first = await platform.walt("advanced", "update-default-images")
        self.assertIn(none, first.stdout.decode())
        second = int(time.time())  # the resolution of the dates of images

        async def later() -> bool:
            return int(time.time()) > second

        await platform.until(later, "the next second", 5)
        await platform.import_tiny("localhost/newer:latest")
        await platform.runner.run(platform.podman(
            "push", "--tls-verify=false", "docker.io/localhost/newer:latest",
            f"{lab.host}/{default}",
        ))
        await platform.runner.run(platform.podman("rmi", "docker.io/localhost/newer:latest"))
        told = await platform.walt("advanced", "update-default-images")
        self.assertIn(b"Updating pc-x86-64-default from lab.", told.stdout)
        # The board that boots it is told to reboot; nothing answers there.
        self.assertIn(b"Node node-000001 will reboot.", told.stdout)
        self.assertIn(b"Node node-000001: failed soft-reboot (", told.stderr)
        again = await platform.walt("advanced", "update-default-images")
        self.assertIn(none, again.stdout.decode())

    async def test_private_authority(self) -> None:
        """TLS: refused until the authority is known, or when told not to look."""
        from twisted.internet import reactor

        platform = HomePlatform(reactor)
        self.addCleanup(platform.close)
        certificate, key = platform.base / "cert.pem", platform.base / "key.pem"
        await platform.runner.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=registry", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ])
        secure = TestRegistry(reactor, platform.base, certificate=(certificate, key))
        self.addCleanup(secure.stop)
        await secure.start()
        await platform.import_tiny("alice/tiny:latest")
        platform.write_config(
            "registries:\n" + secure.settings("secure", protocol="https")
            + secure.settings("trusting", protocol="https-no-verify")
        )
        await platform.start()
        publish = ("image", "publish", "--registry")
        await self.refused(platform, "certificate", *publish, "secure", "tiny")
        searched = await platform.walt("image", "search")
        self.assertIn(b"secure was skipped", searched.stderr)
        await platform.ok(*publish, "trusting", "tiny")

        authorities = Path("/etc/containers/certs.d") / secure.host
        authorities.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, authorities)
        shutil.copy(certificate, authorities / "ca.crt")
        await platform.ok(*publish, "secure", "tiny")
        found = json.loads(await platform.ok("image", "search", "--json"))
        self.assertEqual(
            [row["clonable_link"] for row in found], ["secure:alice/tiny", "trusting:alice/tiny"]
        )
        await platform.ok("image", "clone", "secure:alice/tiny", user="bob")
