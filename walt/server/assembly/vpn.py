"""Builds what lets boards of other buildings in."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.task import LoopingCall

from walt.server.adapters.network.links import BRIDGE
from walt.server.adapters.network.vpn_taps import VpnTaps
from walt.server.adapters.postgres.entry_points import PostgresEntryPoints
from walt.server.adapters.postgres.vpn_keys import PostgresVpnKeys
from walt.server.adapters.tls.boot_signatures import BootSignatures
from walt.server.adapters.vpn import sshd
from walt.server.adapters.vpn.account import ACCOUNT
from walt.server.adapters.vpn.authority import CA_KEY, SshAuthority
from walt.server.adapters.vpn.host_keys import FILE as KEYS_FILE
from walt.server.adapters.vpn.host_keys import ScannedHostKeys
from walt.server.adapters.vpn.names import HostNames
from walt.server.adapters.vpn.neighbours import Neighbours
from walt.server.adapters.vpn.requester_key import ensure_requester_key
from walt.server.assembly.base import Base
from walt.server.assembly.daemons import Daemons
from walt.server.assembly.nodes import Nodes
from walt.server.config.model import ServerConfig
from walt.server.domain.network_services.tunnel import TunnelConfig
from walt.server.domain.vpn.enrolment import VpnNodes
from walt.server.domain.vpn.history import EntryPointHistory
from walt.server.domain.vpn.model import EntryPoints
from walt.server.domain.vpn.tunnels import Tunnels
from walt.server.runtime.coroutines import spawn

LOOK_EVERY = 600.0  # seconds between questions for the addresses of entry points


@dataclass
class Vpn:
    """The VPN of a server; `name` is the full name by which entry points know it."""

    base: Base
    daemons: Daemons
    nodes: VpnNodes
    authority: SshAuthority
    signatures: BootSignatures
    tunnels: Tunnels
    taps: VpnTaps
    history: EntryPointHistory
    name: str
    requester_key: str = ""
    _public: str = ""
    _host_keys: list[str] = field(default_factory=list)
    _looking: LoopingCall | None = None

    def settings(self) -> dict[str, Any]:
        """Return what `ss.vpn.settings` answers."""
        vpn = self.base.config.vpn
        return {
            "enabled": vpn.enabled, "name": self.name, "ssh_port": vpn.ssh_port,
            "ssh_entrypoint": vpn.ssh_entrypoint, "http_entrypoint": vpn.http_entrypoint,
            "boot_mode": vpn.boot_mode, "authority": self._public, "host_keys": self._host_keys,
        }

    async def prepare(self) -> None:
        """Make keys that are missing, and tell sshd about them, where the VPN is configured."""
        door, config = self.daemons.sshd, self.base.config
        if door is None:
            return
        self._public = await self.nodes.prepare()
        await self.signatures.public_key()
        directory = self.authority.directory
        self.requester_key = ensure_requester_key(directory)
        self._host_keys = await sshd.ensure_host_keys(self.base.runner, directory)
        self.nodes.revoked.observe(lambda _: door.reload())
        door.apply(TunnelConfig(
            port=config.vpn.ssh_port, account=ACCOUNT,
            host_keys=tuple(directory / key for key in sshd.KEYS),
            authority=directory / f"{CA_KEY}.pub", revoked=self.authority.revoked_file,
            endpoint=config.paths.service("sshd") / sshd.ENDPOINT,
            socket=config.paths.vpn_socket, subnet=config.subnet, name=self.name,
        ))

    async def start(self) -> None:
        """Follow the addresses of the HTTP entry points."""
        if self.daemons.sshd is None:
            return
        await self._look()
        self._looking = LoopingCall(
            lambda: spawn(self._look(), "asking for the addresses of entry points")
        )
        self._looking.clock = self.base.reactor
        self._looking.start(LOOK_EVERY, now=False)

    async def _look(self) -> None:
        await self.history.look(self.base.config.vpn.http_entrypoint)

    def stop(self) -> None:
        """Ask no more."""
        if self._looking is not None and self._looking.running:
            self._looking.stop()


def entry_points(config: ServerConfig) -> EntryPoints | None:
    """Return where boards come in, None without a VPN."""
    vpn = config.vpn
    if not (vpn.enabled and vpn.ssh_entrypoint and vpn.http_entrypoint and vpn.boot_mode):
        return None
    return EntryPoints(vpn.ssh_entrypoint, vpn.http_entrypoint, vpn.boot_mode)


def full_name(config: ServerConfig) -> str:
    """Return the name by which other machines reach the server: with a dot, if there is one."""
    return next((name for name in config.names if "." in name), os.uname().nodename)


def build_vpn(base: Base, daemons: Daemons, nodes: Nodes) -> Vpn:
    """Build and join these objects."""
    config, runner = base.config, base.runner
    tell = partial(base.platform.write, "vpn")
    authority = SshAuthority(runner, config.paths.state / "vpn-server")
    boards = VpnNodes(
        base.registry, entry_points(config), PostgresVpnKeys(base.database), authority,
        Neighbours(runner, BRIDGE),
        ScannedHostKeys(runner, base.reactor.seconds, authority.directory / KEYS_FILE, tell),
        nodes.new_mac, tell, lambda device: tunnels.owner(device),
    )
    tunnels = Tunnels(boards, tell)
    return Vpn(
        base=base, daemons=daemons, nodes=boards, authority=authority,
        signatures=BootSignatures(
            base.reactor, runner, config.paths.state / "http-boot", time.time
        ),
        tunnels=tunnels, taps=VpnTaps(runner),
        history=EntryPointHistory(
            PostgresEntryPoints(base.database), HostNames(runner), daemons.network.redirect
        ),
        name=full_name(config),
    )
