"""ptpd as a supervised child: master of the clocks of walt-net (PTP version 2)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.timing import PtpConfig, render_ptpd
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.configured import ConfiguredChild
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer, Patience

CONFIGURATION, STATUS = "ptpd.conf", "ptpd.status"
STALE = 10.0  # seconds: it writes its state each second
MASTER = "PTP_MASTER"
# It listens for another master for 16 s before it is one, and starts late on a busy machine: a
# restart would only have it listen anew.
PATIENCE = Patience(settling=75.0)
LONGEST_STATE = 4096  # bytes of its state that are read


def ptpd_spec(directory: Path, runtime: Path) -> ChildSpec:
    """Return how ptpd is run (spec server §1.1).

    It insists on being root; in its sandbox that is an account with a right for its ports and
    one for its directory: no clock to set, nothing of the machine to write.
    """
    return ChildSpec(
        "ptpd",
        (
            "bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc",
            "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run",
            "--bind", str(runtime), str(runtime), "--ro-bind", str(directory), str(directory),
            "--cap-drop", "ALL", "--cap-add", "CAP_NET_BIND_SERVICE", "--",
            "ptpd", "-c", str(directory / CONFIGURATION),
        ),
        cwd="/",
    )


def prepare(directory: Path, runtime: Path, config: PtpConfig) -> None:
    """Write its configuration, and remove the state that another one left."""
    for path in (directory, runtime):
        path.mkdir(parents=True, exist_ok=True)
    write_if_changed(directory / CONFIGURATION, render_ptpd(config))
    config.status.unlink(missing_ok=True)


def state_of(text: str) -> str:
    """Return the state of the port in what ptpd writes of itself, "" when it is not told."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Port state":
            return value.strip()
    return ""


@implementer(IConfigurable)
class PtpdService(ConfiguredChild[PtpConfig]):
    """Run ptpd; `directory` holds its configuration, `runtime` its pid file and its state."""

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        patience: Patience = PATIENCE,
    ) -> None:
        super().__init__("ptpd", reactor, launcher, runtime / "ptpd.pid", patience=patience)
        self._directory, self._runtime = directory, runtime

    def _written(self, config: PtpConfig) -> ChildSpec:
        prepare(self._directory, self._runtime, config)
        return ptpd_spec(self._directory, self._runtime)

    async def _probe(self) -> None:
        # A question from this machine cannot be answered: both ports of PTP are its own.
        assert self._config is not None
        age, state = _read(self._config.status)
        if age > STALE:
            raise NoAnswer("it has stopped writing its state")
        if state != MASTER:
            raise NoAnswer(f"it is no master: {state or 'no state'}")


def _read(path: Path) -> tuple[float, str]:
    """Return the age of the state in seconds, and the state."""
    try:
        with path.open("rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            return age, state_of(file.read(LONGEST_STATE).decode(errors="replace"))
    except FileNotFoundError:
        return 0.0, ""
