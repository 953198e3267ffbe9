"""Signatures of boot images, checked by openssl as boards do."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.system.netns import short_dir
from walt.common.errors import Unavailable
from walt.server.adapters.tls.boot_signatures import PIECE, BootSignatures
from walt.server.runtime.process import ProcessRunner

CONTENT = bytes(range(256)) * (PIECE // 100)


class BootSignaturesTests(TestCase):
    def setUp(self) -> None:
        self.base = Path(short_dir(self))
        self.moment = 1700000000.5
        self.image = self.base / "boot.img"
        self.image.write_bytes(CONTENT)
        self.signatures = self.make()

    def make(self) -> BootSignatures:
        clock: Any = reactor
        return BootSignatures(
            clock, ProcessRunner(reactor), self.base / "http-boot", lambda: self.moment
        )

    async def sign(self) -> str:
        with open(self.image, "rb") as stream:
            return await self.signatures.sign(stream)

    async def check(self, text: str) -> None:
        """A board takes the image for the server's."""
        digest, ts, signature = text.splitlines()
        self.assertEqual(digest, hashlib.sha256(self.image.read_bytes()).hexdigest())
        self.assertRegex(ts, r"^ts: [0-9]+$")
        (self.base / "sig").write_bytes(bytes.fromhex(signature.removeprefix("rsa2048: ")))
        (self.base / "pem").write_text(await self.signatures.public_key())
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", "pem", "-signature", "sig", "boot.img"],
            cwd=self.base, capture_output=True, check=False,
        )
        self.assertEqual(done.stdout, b"Verified OK\n", done.stderr)

    async def test_signed_once(self) -> None:
        """The same image has the same signature, whoever asks, until it is another one."""
        first = await self.sign()
        await self.check(first)
        self.assertIn("ts: 1700000000\n", first)
        self.moment += 100
        again = await gatherResults([Deferred.fromCoroutine(self.sign()) for _ in range(3)])
        self.assertEqual(again, [first] * 3)
        beside = self.base / "new"
        beside.write_bytes(CONTENT + b"new")
        beside.rename(self.image)
        second = await self.sign()
        self.assertIn("ts: 1700000100\n", second)
        await self.check(second)
        self.signatures = self.make()  # another run of the server has the same keys
        await self.check(await self.sign())
        names = sorted(one.name for one in (self.base / "http-boot").iterdir())
        self.assertEqual(names, ["private.pem", "public.pem"])
        self.assertEqual((self.base / "http-boot" / "private.pem").stat().st_mode & 0o777, 0o600)

    async def test_replaced_while_it_is_read(self) -> None:
        """Who has an image open gets the signature of that one."""
        with open(self.image, "rb") as stream:
            signing = Deferred.fromCoroutine(self.signatures.sign(stream))
            beside = self.base / "new"
            beside.write_bytes(b"another")
            beside.rename(self.image)
            text = await signing
        self.assertTrue(text.startswith(hashlib.sha256(CONTENT).hexdigest()))

    async def test_changed_while_it_is_read(self) -> None:
        """Half of one image and half of another are never signed."""
        await self.signatures.public_key()
        with open(self.image, "rb") as stream:
            signing = Deferred.fromCoroutine(self.signatures.sign(stream))
            self.image.write_bytes(b"x" * len(CONTENT))
            text = await signing
        self.assertTrue(text.startswith(hashlib.sha256(b"x" * len(CONTENT)).hexdigest()))

    async def test_a_damaged_key(self) -> None:
        """It is said, and what to do."""
        await self.signatures.public_key()
        (self.base / "http-boot" / "private.pem").write_text("damaged")
        with self.assertRaisesRegex(Unavailable, "remove it"):
            await self.sign()
