"""Signatures of boot images: RSA-2048 with SHA-256 (spec node-protocols §9.2)."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from walt.common.errors import Unavailable, in_words
from walt.server.domain.vpn.interfaces import IBootSignatures
from walt.server.runtime.placing import put_in_place
from walt.server.runtime.process import ProcessRunner

PRIVATE, PUBLIC = "private.pem", "public.pem"
PIECE = 1 << 20  # bytes hashed in one turn of the reactor
MOST_KEPT = 64  # signatures
TRIES = 3  # with an image that changes while it is read


@implementer(IBootSignatures)
class BootSignatures:
    """Keeps the key pair in `directory`, and the signatures of the last images.

    `clock` gives callLater, `now` epoch seconds.
    """

    def __init__(
        self, clock: IReactorTime, runner: ProcessRunner, directory: Path,
        now: Callable[[], float],
    ) -> None:
        self._clock, self._runner = clock, runner
        self._directory = directory
        self._now = now
        self._lock = DeferredLock()
        self._kept: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()

    async def public_key(self) -> str:
        """Return the key that checks signatures."""
        async with self._lock:
            await self._prepare()
            return (self._directory / PUBLIC).read_text()

    async def sign(self, stream: BinaryIO) -> str:
        """Return the text of boot.sig; images are told apart by inode, time and size."""
        async with self._lock:
            for _ in range(TRIES):
                before = _identity(stream)
                text = self._kept.get(before) or await self._signed(stream)
                if _identity(stream) == before:
                    self._kept[before] = text
                    self._kept.move_to_end(before)
                    if len(self._kept) > MOST_KEPT:
                        self._kept.popitem(last=False)
                    return text
        raise Unavailable("the boot image is being changed: ask again")

    async def _signed(self, stream: BinaryIO) -> str:
        await self._prepare()
        digest, offset = hashlib.sha256(), 0
        while piece := os.pread(stream.fileno(), PIECE, offset):
            digest.update(piece)
            offset += len(piece)
            await deferLater(self._clock, 0)
        key = self._key()
        signature = key.sign(digest.digest(), padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        return (
            f"{digest.hexdigest()}\nts: {int(self._now())}\nrsa2048: {signature.hex()}\n"
        )

    def _key(self) -> rsa.RSAPrivateKey:
        try:
            key = load_pem_private_key((self._directory / PRIVATE).read_bytes(), None)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{self._directory / PRIVATE} cannot be used ({in_words(error)}): remove it, and"
                " have the boards enrol again"
            ) from None
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    async def _prepare(self) -> None:
        """Make the key pair once: in a program, since it takes a second."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        private, public = self._directory / PRIVATE, self._directory / PUBLIC
        if not private.exists():
            beside = private.with_name(f".{PRIVATE}.new")
            for left in (beside, Path(f"{beside}.pub")):
                left.unlink(missing_ok=True)
            await self._runner.run([
                "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "",
                "-f", str(beside),
            ])
            Path(f"{beside}.pub").unlink()
            public.unlink(missing_ok=True)
            await put_in_place(self._runner, beside, private)
        if not public.exists():
            told = await self._runner.run(
                ["ssh-keygen", "-e", "-m", "PKCS8", "-f", str(private)]
            )
            beside = public.with_name(f".{PUBLIC}.new")
            beside.write_bytes(told.stdout)
            await put_in_place(self._runner, beside, public)


def _identity(stream: BinaryIO) -> tuple[int, int, int, int]:
    found = os.fstat(stream.fileno())
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
