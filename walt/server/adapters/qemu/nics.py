"""Network interfaces of virtual machines: taps, limits, MACs (spec node-protocols §8.5).

A machine without limits, or whose limits the kernel enforces, sits on its tap. Where
the kernel cannot, a child process of ours (`walt.server.tools.frame_relay`) stands
between them: it has the tap, and QEMU one end of a socket to it.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.machines import BOOT_NETWORK, Attachment, MachineConfig
from walt.common.qemu import nic_options, on_tap, secondary_mac, tap_name
from walt.common.traffic_shaping import Limits
from walt.server.domain.network.interfaces import ITaps
from walt.server.runtime.process import Launcher, environment, own_code
from walt.server.runtime.reactors import IReactor

_log = Logger()

RELAY = "walt.server.tools.frame_relay"
RELAY_SOCKET = 3  # the descriptor that the relay inherits
FIRST_SOCKET = 3  # the first one that QEMU inherits


@dataclass
class Nics:
    """The interfaces of one machine that is about to start.

    `options` are QEMU's; `sockets` must be open in QEMU as descriptors 3, 4…;
    close them here once it runs.
    """

    options: list[str] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def descriptors(self) -> dict[int, Any]:
        """Return the argument childFDs of spawnProcess: standard pipes and the sockets."""
        inherited = {FIRST_SOCKET + rank: end.fileno() for rank, end in enumerate(self.sockets)}
        return {0: "w", 1: "r", 2: "r", **inherited}

    def close(self) -> None:
        """Close our copies of the sockets."""
        for end in self.sockets:
            end.close()


class NicMaker:
    """Makes the interfaces of machines and removes them.

    `taps` provides ITaps; `nodes` is the directory with one directory per MAC.
    """

    def __init__(self, reactor: IReactor, launcher: Launcher, taps: ITaps, nodes: Path) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._taps = taps
        self._nodes = nodes

    async def make(self, config: MachineConfig) -> Nics:
        """Make the interfaces of a machine, in the order of its networks.

        Raises CommandFailed or Conflict; what was made is then removed.
        """
        nics = Nics()
        try:
            for network in config.networks:
                await self._add(nics, config.mac, network)
        except Exception:
            nics.close()
            await self.remove(config)
            raise
        return nics

    async def _add(self, nics: Nics, mac: str, attachment: Attachment) -> None:
        tap = tap_name(mac, attachment.network)
        await self._taps.create_tap(tap, attachment.network)
        netdev = on_tap(tap)
        if attachment.limits and not await self._taps.shape(tap, attachment.limits):
            ours, theirs = socket.socketpair()
            nics.sockets.append(theirs)
            with ours:
                self._start_relay(ours, tap, attachment.limits)
            descriptor = FIRST_SOCKET + len(nics.sockets) - 1
            netdev = f"stream,addr.type=fd,addr.str={descriptor}"
        networks = self._nodes / mac / "networks"
        network = attachment.network
        own = mac if network == BOOT_NETWORK else secondary_mac(networks, network)
        nics.options += nic_options(netdev, attachment.network, own)

    def _start_relay(self, ours: socket.socket, tap: str, limits: Limits) -> None:
        argv = self._launcher.command([
            sys.executable, "-m", RELAY, tap, str(limits.latency_us), str(limits.bandwidth),
        ])
        self._reactor.spawnProcess(
            _Relay(tap), argv[0], argv, environment(own_code()),
            childFDs={0: "w", 1: "r", 2: "r", RELAY_SOCKET: ours.fileno()},
        )

    async def remove(self, config: MachineConfig) -> None:
        """Delete the taps of a machine that is gone."""
        await self._taps.delete_taps([
            tap_name(config.mac, network.network) for network in config.networks
        ])


class _Relay(ProcessProtocol):
    """It ends by itself, with its machine."""

    def __init__(self, tap: str) -> None:
        self._tap = tap

    def errReceived(self, data: bytes) -> None:
        _log.error(
            "relay of {tap}: {text}", tap=self._tap, text=data.decode(errors="replace").strip()
        )

    def processEnded(self, reason: Failure) -> None:
        _log.info("relay of {tap} ended", tap=self._tap)
