"""QEMU machines as children of the server (design D11)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.common.files import write_atomic
from walt.common.machines import BOOT_NETWORK, MachineConfig
from walt.common.qemu import command
from walt.server.adapters.qemu.command import (
    IPXE,
    MARK,
    PROBE_SCRIPT,
    PROGRAM,
    boot_options,
    probe_command,
    script,
)
from walt.server.adapters.qemu.nics import NicMaker
from walt.server.domain.network.interfaces import ITaps
from walt.server.domain.virtual.interfaces import IHypervisor, IMachine
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.process import Launcher, environment, exit_status, give
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.workers import WorkerPool

_log = Logger()

# Its files are root's, its interfaces are opened for it: a machine needs no capability.
POWERLESS = (
    "setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--",
)

PROBE_PATIENCE = 5.0  # seconds; a guest prints after one where KVM works


class _Probe(ProcessProtocol):
    """A guest that prints a mark, or hangs."""

    def __init__(self) -> None:
        self._text = b""
        self.works: Deferred[bool] = Deferred(lambda _: None)

    def outReceived(self, data: bytes) -> None:
        self._text += data
        if MARK.encode() in self._text:
            self._end(True)

    def processEnded(self, reason: Failure) -> None:
        self._end(False)

    def _end(self, works: bool) -> None:
        if not self.works.called:
            self.works.callback(works)


@implementer(IMachine)
class _Machine(ProcessProtocol):
    """One running machine."""

    def __init__(
        self, output: Callable[[bytes], None], ended: Callable[[str], object]
    ) -> None:
        self._output = output
        self._ended = ended
        self._errors = b""

    def outReceived(self, data: bytes) -> None:
        self._output(data)

    def errReceived(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-2000:]

    def processEnded(self, reason: Failure) -> None:
        status = exit_status(reason)
        words = self._errors.decode(errors="replace").strip()
        self._ended(f"its machine ended (status {status})" + (f": {words}" if words else ""))

    def write(self, data: bytes) -> None:
        """Type bytes on its serial console."""
        if self.transport is not None and self.transport.pid:
            give(self.transport, data)

    def kill(self) -> None:
        """End it at once."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")


@implementer(IHypervisor)
class QemuHypervisor:
    """Starts QEMU with its taps, which live as long as the machine.

    `taps` provides ITaps; `directory` holds the scripts given to iPXE; `accel`
    is the setting `virtual.accel`; `workers` make the disks below `nodes`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, taps: ITaps, directory: Path,
        accel: Literal["auto", "kvm", "tcg"], workers: WorkerPool, nodes: Path,
    ) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._nics = NicMaker(reactor, launcher, taps, nodes)
        self._directory = directory
        self._wanted = accel
        self._workers = workers
        self._nodes = nodes
        self._accel: str | None = None

    @property
    def emulates(self) -> bool:
        """Whether the processors of machines are emulated, as far as is known."""
        return self._accel == "tcg"

    async def prepare(self) -> str:
        """Probe the machine once; return the accelerator used: `kvm` or `tcg`."""
        if shutil.which(PROGRAM) is None or not IPXE.exists():
            raise Unavailable(
                "virtual nodes need QEMU and iPXE; run: apt-get install qemu-system-x86 ipxe"
            )
        if self._accel is None:
            if self._wanted == "auto":
                self._accel = "kvm" if await self._kvm_works() else "tcg"
            else:
                self._accel = self._wanted
            _log.info("virtual nodes use accelerator {accel}", accel=self._accel)
        return self._accel

    async def _kvm_works(self) -> bool:
        # The file alone proves nothing: there are machines where guests hang.
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return False
        self._directory.mkdir(parents=True, exist_ok=True)
        script_file = self._directory / "probe.ipxe"
        write_atomic(script_file, PROBE_SCRIPT)
        probe = _Probe()
        argv = self._launcher.command(probe_command(script_file))
        transport = self._reactor.spawnProcess(probe, argv[0], argv, environment())
        try:
            return await probe.works.addTimeout(PROBE_PATIENCE, self._reactor)
        except (CancelledError, TimeoutError):
            return False
        finally:
            if transport.pid:
                transport.signalProcess("KILL")

    async def start(
        self, config: MachineConfig, output: Callable[[bytes], None],
        ended: Callable[[str], None],
    ) -> IMachine:
        """Start a machine that boots from the network; see IHypervisor."""
        accel = await self.prepare()
        self._directory.mkdir(parents=True, exist_ok=True)
        script_file = self._directory / f"{config.mac.replace(':', '-')}.ipxe"
        names = [network.network for network in config.networks]
        write_atomic(script_file, script(config.model, names.index(BOOT_NETWORK)))
        disks = await self._disks(config)
        nics = await self._nics.make(config)
        argv = self._launcher.command([*POWERLESS, *command(
            config, accel, boot_options(script_file), nics.options, disks
        )])

        async def clean_up(reason: str) -> None:
            try:
                await self._nics.remove(config)
            finally:
                ended(reason)

        machine = _Machine(
            output, lambda reason: spawn(clean_up(reason), "removing the taps of a machine")
        )
        try:
            self._reactor.spawnProcess(
                machine, argv[0], argv, environment(), childFDs=nics.descriptors()
            )
        finally:
            nics.close()
        return machine

    async def _disks(self, config: MachineConfig) -> list[str]:
        directory = self._nodes / config.mac / "disks"
        if not config.disks and not directory.exists():
            return []
        paths: list[str] = await self._workers.call("virtual_disks:prepare", {
            "directory": str(directory), "disks": [disk._asdict() for disk in config.disks],
        })
        return paths

    async def remove(self, mac: str) -> None:
        """Delete a node's script; its taps went with its machine."""
        (self._directory / f"{mac.replace(':', '-')}.ipxe").unlink(missing_ok=True)
