"""OpenSSH's sshd as a supervised child: the door of the VPN (spec node-protocols §9.5).

It runs as the account of the tunnel, which is the only one that can come in, and has no right
beside that: not even a mistake in it makes somebody root.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from importlib.resources import files
from pathlib import Path

from twisted.internet.endpoints import TCP4ClientEndpoint
from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.adapters.vpn.account import ACCOUNT
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.tunnel import TunnelConfig, render
from walt.server.runtime.accounts import group_of
from walt.server.runtime.asking import Place, ask_stream
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.placing import put_in_place
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer, Patience

NAME = "sshd"
PROGRAM = "/usr/sbin/sshd"  # it starts itself again, by its path
KEYS = ("ssh_host_ecdsa_key", "ssh_host_ed25519_key")
ENDPOINT = "endpoint.pyz"
GREETING = b"SSH-2.0-"
FIRST_FREE = 1024  # ports that every account may have
BIND = "+net_bind_service"
# Of the account: sshd has two for each session, which has one, and two for each that begins.
MOST_PROCESSES = 2048
# What the endpoint is made of: it reads nothing else of ours.
PARTS = {
    "walt.common": ("__init__.py", "errors.py", "ethernet.py"),
    "walt.vpn": ("__init__.py", "certificate.py", "relay.py", "endpoint.py"),
}
_MAIN = "from walt.vpn.endpoint import main\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same archive from the same sources


def endpoint_archive() -> bytes:
    """Return the program that sessions run, as one file (zipapp)."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        archive.writestr(zipfile.ZipInfo("walt/__init__.py", _EPOCH), "")
        for package, names in PARTS.items():
            for name in names:
                place = f"{package.replace('.', '/')}/{name}"
                archive.writestr(
                    zipfile.ZipInfo(place, _EPOCH), (files(package) / name).read_text()
                )
    return made.getvalue()


def read_greeting(received: bytes) -> bool | None:
    """Tell that a greeting of SSH is there, None as long as bytes are missing. Raises NoAnswer."""
    if not GREETING.startswith(received[:len(GREETING)]):
        raise NoAnswer("another program answers at its port")
    return True if b"\n" in received else None


def is_of_probe(line: str) -> bool:
    """Tell whether a line of its log is about the questions of a probe."""
    return line.startswith((
        "kex_exchange_identification: ", "Connection closed by 127.0.0.1 ",
        "Connection reset by 127.0.0.1 ",
    ))


async def ensure_host_keys(runner: ProcessRunner, directory: Path) -> list[str]:
    """Make the keys that our sshd shows, once; return their public halves.

    The account of the tunnel reads them, and cannot change them. Raises CommandFailed.
    """
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = []
    for name in KEYS:
        key, kind = directory / name, name.split("_")[2]
        if not key.exists():
            beside = directory / f".{name}.new"
            for left in (beside, Path(f"{beside}.pub")):
                left.unlink(missing_ok=True)
            await runner.run([
                "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "walt-vpn", "-f", str(beside),
            ])
            Path(f"{beside}.pub").unlink()
            await put_in_place(runner, beside, key)
        key.chmod(0o600)  # ssh-keygen reads no other one of its user
        told = await runner.run(["ssh-keygen", "-y", "-f", str(key)])
        found.append(told.stdout.decode().strip())
        os.chown(key, 0, group_of(ACCOUNT))
        key.chmod(0o640)
    return found


@implementer(IConfigurable)
class SshdService(ConfiguredChild[TunnelConfig]):
    """Run sshd in the network of the machine; probes ask from `place`.

    `directory` holds its configuration and the endpoint, `runtime` its pid file.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        place: Place = contextlib.nullcontext, patience: Patience | None = None,
    ) -> None:
        super().__init__(
            NAME, reactor, launcher, runtime / "sshd.pid", patience=patience, on_line=self._line
        )
        self._reactor, self._place = reactor, place
        self._directory = directory

    def _line(self, line: str) -> None:
        if not is_of_probe(line):
            self.child.log_line(line.rstrip())

    def reload(self) -> None:
        """Have it read its files again: sessions go on."""
        self.child.reload()
        self.watch.settle()

    def _written(self, config: TunnelConfig) -> ChildSpec:
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_if_changed(config.endpoint, endpoint_archive())
        file = self._directory / "sshd_config"
        write_if_changed(file, render(config))
        return ChildSpec(
            NAME, (
                "prlimit", f"--nproc={MOST_PROCESSES}", "--", PROGRAM, "-D", "-e", "-f", str(file),
            ), cwd="/", network="host",
            credentials=(
                "--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups", "--inh-caps",
                *(("-all",) if config.port >= FIRST_FREE else (BIND, "--ambient-caps", BIND)),
                "--no-new-privs",
            ),
        )

    async def _probe(self) -> None:
        assert self._config is not None
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._config.port)
        await ask_stream(endpoint, read_greeting, place=self._place)
