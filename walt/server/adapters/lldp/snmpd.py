"""snmpd as a supervised child."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.adapters.lldp.probe import SYS_OBJECT_ID, ask
from walt.server.domain.network_services.announcing import SnmpdConfig, render_snmpd
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer, Patience

USER = "Debian-snmp"  # of Debian's package
CAPABILITIES = "+net_bind_service"  # port 161
CONFIGURATION = "snmpd.conf"
# Not the old multiplexing protocol, not what acts by itself on what it measures.
LEFT_OUT = "-smux,mteTrigger,mteTriggerConf,snmpNotifyTable,snmpNotifyFilterProfileTable"


def snmpd_spec(directory: Path, user: str = USER, group: str = USER) -> ChildSpec:
    """Return how snmpd is run: by its account from the start, on its own files alone.

    `directory` holds its configuration, and `kept`, where it counts its starts (RFC 3414).
    """
    return ChildSpec(
        "snmpd",
        (
            "snmpd", "-f", "-LOw", "-I", LEFT_OUT, "-C", "-c", str(directory / CONFIGURATION),
        ),
        # Without MIBS it would look for texts that it does not need, and complain.
        env={
            "MIBS": "", "MIBDIRS": str(directory), "SNMPCONFPATH": str(directory),
            "SNMP_PERSISTENT_DIR": str(directory / "kept"), "HOME": str(directory / "kept"),
        },
        cwd="/",
        credentials=(
            "--reuid", user, "--regid", group, "--clear-groups",
            "--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES,
            "--bounding-set", f"-all,{CAPABILITIES}", "--no-new-privs",
        ),
    )


def prepare(
    directory: Path, config: SnmpdConfig, user: str = USER, group: str = USER
) -> None:
    """Write its configuration, and make what its account owns."""
    for path in (directory / "kept", config.agentx.parent):
        give_directory(path, user, group)
    file = directory / CONFIGURATION
    write_if_changed(file, render_snmpd(config), 0o640)
    shutil.chown(file, "root", group)  # the community is for those who may read it


@implementer(IConfigurable)
class SnmpdService(ConfiguredChild[SnmpdConfig]):
    """Run snmpd.

    `directory` holds its configuration, `runtime` its pid file and, in a directory that its
    account owns, the socket of AgentX; probes ask from `place`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        place: Place = contextlib.nullcontext, patience: Patience | None = None,
    ) -> None:
        super().__init__("snmpd", reactor, launcher, runtime / "snmpd.pid", patience=patience)
        self._reactor, self._place = reactor, place
        self._directory = directory

    def _written(self, config: SnmpdConfig) -> ChildSpec:
        prepare(self._directory, config)
        return snmpd_spec(self._directory)

    async def _probe(self) -> None:
        assert self._config is not None
        config = self._config
        if not await ask(
            self._reactor, str(config.server), config.port, config.community, SYS_OBJECT_ID,
            place=self._place,
        ):
            raise NoAnswer("does not show its own sysObjectID")
