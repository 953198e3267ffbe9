"""The authority of the VPN's certificates: a key of ssh-keygen(1), and its revocation list."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from zope.interface import implementer

from walt.common.errors import CommandFailed, Invalid
from walt.server.domain.vpn.interfaces import IVpnAuthority
from walt.server.domain.vpn.model import PRINCIPAL
from walt.server.runtime.placing import put_in_place
from walt.server.runtime.process import ProcessRunner

CA_KEY = "vpn-ca-key"
REVOKED = "revoked.krl"
LIMIT = 30.0  # seconds for ssh-keygen


@implementer(IVpnAuthority)
class SshAuthority:
    """Keeps its files where WalT 10 had them: `directory` is root's (spec server §1.6).

    The private key is root's alone; sshd, which is not root, reads the list.
    """

    def __init__(self, runner: ProcessRunner, directory: Path) -> None:
        self._runner = runner
        self.directory = directory

    @property
    def revoked_file(self) -> Path:
        """The list of what sshd refuses (RevokedKeys, sshd_config(5))."""
        return self.directory / REVOKED

    async def prepare(self) -> str:
        """Make the key once; return its public half."""
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        key = self.directory / CA_KEY
        if not key.exists():
            beside = key.with_name(f".{CA_KEY}.new")
            for left in (beside, Path(f"{beside}.pub")):
                left.unlink(missing_ok=True)
            await self._keygen(
                "-q", "-t", "ecdsa", "-b", "521", "-N", "", "-C", "walt-vpn-ca", "-f", str(beside)
            )
            Path(f"{beside}.pub").unlink()
            await put_in_place(self._runner, beside, key)
        key.chmod(0o600)
        public = (await self._keygen("-y", "-f", str(key))).strip()
        half = Path(f"{key}.pub")
        if not half.exists() or half.read_text().strip() != public:
            half.write_text(public + "\n")
        return public

    async def sign(self, public_key: str, cert_id: str) -> str:
        """Return the certificate of a key."""
        work = Path(tempfile.mkdtemp(prefix=".sign-", dir=self.directory))
        try:
            (work / "key.pub").write_text(public_key + "\n")
            await self._keygen(
                "-q", "-s", str(self.directory / CA_KEY), "-I", cert_id, "-n", PRINCIPAL,
                str(work / "key.pub"),
            )
            return (work / "key-cert.pub").read_text().strip()
        except CommandFailed as error:
            raise Invalid(f"this key cannot be signed: {error}") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def refuse(self, cert_ids: Collection[str]) -> None:
        """Replace the list as a whole: sshd reads it at each attempt to come in."""
        work = Path(tempfile.mkdtemp(prefix=".krl-", dir=self.directory))
        try:
            (work / "ids").write_text("".join(f"id: {image_id}\n" for image_id in sorted(cert_ids)))
            await self._keygen(
                "-q", "-k", "-f", str(work / "krl"), "-s", str(self.directory / f"{CA_KEY}.pub"),
                str(work / "ids"),
            )
            (work / "krl").chmod(0o644)
            os.replace(work / "krl", self.revoked_file)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    async def _keygen(self, *words: str) -> str:
        done = await self._runner.run(["ssh-keygen", *words], timeout=LIMIT)
        return done.stdout.decode()
