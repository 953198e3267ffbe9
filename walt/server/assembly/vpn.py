"""Builds what lets boards of other buildings in."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from walt.server.adapters.network.links import BRIDGE
from walt.server.adapters.postgres.vpn_keys import PostgresVpnKeys
from walt.server.adapters.tls.boot_signatures import BootSignatures
from walt.server.adapters.vpn.authority import SshAuthority
from walt.server.adapters.vpn.host_keys import ScannedHostKeys
from walt.server.adapters.vpn.neighbours import Neighbours
from walt.server.assembly.base import Base
from walt.server.assembly.nodes import Nodes
from walt.server.config.model import ServerConfig
from walt.server.domain.vpn.model import EntryPoints
from walt.server.domain.vpn.service import VpnNodes


@dataclass(frozen=True)
class Vpn:
    """The VPN of a server; `name` is the full name by which entry points know it."""

    config: ServerConfig
    nodes: VpnNodes
    signatures: BootSignatures
    name: str

    def settings(self) -> dict[str, Any]:
        """Return what `ss.vpn.settings` answers."""
        vpn = self.config.vpn
        return {
            "enabled": vpn.enabled, "name": self.name, "ssh_port": vpn.ssh_port,
            "ssh_entrypoint": vpn.ssh_entrypoint, "http_entrypoint": vpn.http_entrypoint,
            "boot_mode": vpn.boot_mode, "authority": "", "host_keys": [],
        }

    async def start(self) -> None:
        """Make keys that are missing, where the VPN is configured."""
        if self.config.vpn.enabled:
            await self.nodes.prepare()
            await self.signatures.public_key()


def entry_points(config: ServerConfig) -> EntryPoints | None:
    """Return where boards come in, None without a VPN."""
    vpn = config.vpn
    if not (vpn.enabled and vpn.ssh_entrypoint and vpn.http_entrypoint and vpn.boot_mode):
        return None
    return EntryPoints(vpn.ssh_entrypoint, vpn.http_entrypoint, vpn.boot_mode)


def full_name(config: ServerConfig) -> str:
    """Return the name by which other machines reach the server: with a dot, if there is one."""
    return next((one for one in config.names if "." in one), os.uname().nodename)


def build_vpn(base: Base, nodes: Nodes) -> Vpn:
    """Build and join these objects."""
    config, runner = base.config, base.runner
    directory = config.paths.state / "vpn-server"
    return Vpn(
        config=config,
        nodes=VpnNodes(
            base.registry, entry_points(config), PostgresVpnKeys(base.database),
            SshAuthority(runner, directory), Neighbours(runner, BRIDGE),
            ScannedHostKeys(runner, base.reactor.seconds), nodes.new_mac,
            lambda text: base.platform.write("vpn", text),
        ),
        signatures=BootSignatures(
            base.reactor, runner, config.paths.state / "http-boot", time.time
        ),
        name=full_name(config),
    )
