"""Builds the parts of a server and joins them (no start, no stop)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from walt.server.adapters.tftpd.boot_files import BootFiles
from walt.server.assembly.access import Certificates
from walt.server.assembly.api import Locators, build_api
from walt.server.assembly.base import Base
from walt.server.assembly.daemons import Daemons, build_daemons
from walt.server.assembly.images import ImageLife, Images, image_life
from walt.server.assembly.nodes import Nodes, build_nodes
from walt.server.assembly.vpn import Vpn, build_vpn
from walt.server.domain.nodes.image_users import ImageUsers
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.wire.connections import Kind
from walt.server.wire.old_nodes import OldNodes
from walt.server.wire.peers import kind_of


class Core(NamedTuple):
    """The parts of one server, joined.

    `locators` makes the responders of a connection; `old_nodes` answers nodes of WalT 10.
    """

    base: Base
    daemons: Daemons
    images: Images
    nodes: Nodes
    vpn: Vpn
    image_life: ImageLife
    certificates: Certificates
    boot_files: BootFiles
    issuers: LogIssuers
    locators: Locators
    old_nodes: OldNodes

    def kind(self, address: str) -> Kind:
        """Return who has an address."""

        def is_node(ip: str) -> bool:
            device = self.base.registry.by_ip(ip)
            return device is not None and device.is_node

        config = self.base.config
        if address == str(config.server_ip):
            return Kind.ELSEWHERE  # programs of the server's own machine
        return kind_of(address, config.subnet, is_node)


def build(
    base: Base, images: Images,
    host_network: Callable[[], AbstractContextManager[object]] = nullcontext,
    ui_port: int | None = None,
) -> Core:
    """Build what stands on `base` and `images`; nothing is started or touched outside.

    `host_network` gives a context in which sockets are opened in the host's network; `ui_port`
    is the port of the loopback where browsers find the pages, if there is one.
    """
    daemons = build_daemons(base, host_network)
    nodes = build_nodes(base, daemons, images, host_network)
    life = image_life(
        base, images, ImageUsers(base.registry, nodes.rebooter, nodes.provisioning.update)
    )
    certificates = Certificates(base.reactor, base.config, base.database, base.platform)
    issuers = LogIssuers(base.registry, base.logs.former)
    vpn = build_vpn(base, daemons, nodes)
    locators, old_nodes = build_api(
        base, daemons, images, nodes, vpn, life, certificates, issuers, ui_port
    )
    return Core(
        base=base, daemons=daemons, images=images, nodes=nodes, vpn=vpn, image_life=life,
        certificates=certificates, boot_files=BootFiles(base.config.paths.state),
        issuers=issuers, locators=locators, old_nodes=old_nodes,
    )
