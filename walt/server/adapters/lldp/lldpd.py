"""lldpd as a supervised child, in a view of the machine that it cannot write."""

from __future__ import annotations

import contextlib
from pathlib import Path

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.common.files import write_if_changed
from walt.server.adapters.lldp.probe import LOC_CHASSIS, SYS_OBJECT_ID, ask
from walt.server.domain.network_services.announcing import LldpdConfig, SnmpdConfig
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer, Patience

# Of its two processes one keeps network and dac_override, the other, which reads what
# neighbours send, keeps nothing; the rest is what they need to become so.
CAPABILITIES = (
    "NET_RAW", "NET_ADMIN", "DAC_OVERRIDE", "SETUID", "SETGID", "SYS_CHROOT", "CHOWN", "FOWNER",
)
ROOT = Path("/run/lldpd")  # the root directory of the process without rights: built into lldpd
CONFIGURATION = "lldpd.conf"
SOCKET = "lldpd.sock"


def lldpd_spec(config: LldpdConfig, directory: Path, runtime: Path) -> ChildSpec:
    """Return how lldpd is run (spec server §1.1).

    It changes its account itself, and would survive a killed server; and there is one ROOT for
    all servers of a machine. In a sandbox it ends with its parent, and has a ROOT of its own.
    """
    rights = [word for capability in CAPABILITIES for word in ("--cap-add", f"CAP_{capability}")]
    return ChildSpec(
        "lldpd",
        (
            "bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc",
            "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run",
            "--dir", str(ROOT), "--bind", str(runtime), str(runtime),
            "--ro-bind", str(directory), str(directory),
            "--ro-bind", str(config.agentx.parent), str(config.agentx.parent),
            "--cap-drop", "ALL", *rights, "--",
            # -k: no kernel release; -c, -s, -e: what old switches speak in place of LLDP
            "lldpd", "-d", "-k", "-c", "-s", "-e", "-X", str(config.agentx),
            "-I", config.interface, "-C", config.interface, "-m", str(config.server),
            "-u", str(runtime / SOCKET), "-O", str(directory / CONFIGURATION),
        ),
        cwd="/",
    )


def prepare(directory: Path, runtime: Path) -> None:
    """Write its configuration, which is empty, and remove what another one left."""
    for path in (directory, runtime):
        path.mkdir(parents=True, exist_ok=True)
    # Nothing of /etc/lldpd.d.
    write_if_changed(directory / CONFIGURATION, "")
    for left in (SOCKET, f"{SOCKET}.lock"):
        (runtime / left).unlink(missing_ok=True)


@implementer(IConfigurable)
class LldpdService(ConfiguredChild[LldpdConfig]):
    """Run lldpd, and ask for what it serves by way of `snmpd`, whose configuration that is.

    `directory` holds its configuration, `runtime` its pid file and its socket.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        snmpd: SnmpdConfig, place: Place = contextlib.nullcontext,
        patience: Patience | None = None,
    ) -> None:
        super().__init__("lldpd", reactor, launcher, runtime / "lldpd.pid", patience=patience)
        self._reactor, self._place, self._snmpd = reactor, place, snmpd
        self._directory, self._runtime = directory, runtime

    def _written(self, config: LldpdConfig) -> ChildSpec:
        prepare(self._directory, self._runtime)
        return lldpd_spec(config, self._directory, self._runtime)

    async def _probe(self) -> None:
        try:
            await self._ask(SYS_OBJECT_ID)
        except (NoAnswer, CancelledError):
            raise Unavailable("snmpd, by way of which it is asked, does not answer") from None
        if not await self._ask(LOC_CHASSIS):
            raise NoAnswer("snmpd does not get from it what it hears")

    async def _ask(self, name: bytes) -> bool:
        snmpd = self._snmpd
        return await ask(
            self._reactor, str(snmpd.server), snmpd.port, snmpd.community, name,
            place=self._place,
        )
