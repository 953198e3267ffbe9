"""Builds the network services: DHCP, DNS, TFTP, NFS, swap, the firewall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import Service

from walt.server.adapters.dhcpd.daemon import DhcpdService
from walt.server.adapters.lldp.lldpd import LldpdService
from walt.server.adapters.lldp.snmpd import SnmpdService
from walt.server.adapters.named.daemon import NamedService
from walt.server.adapters.nbdkit.daemon import SwapService
from walt.server.adapters.nbfs.exporter import NbfsExporter
from walt.server.adapters.nfs.choice import chosen
from walt.server.adapters.nfs.ganesha import GaneshaExporter
from walt.server.adapters.nfs.kernel import KernelExporter
from walt.server.adapters.nfs.kernel_server import KernelServer
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.adapters.systemd.journal import Journal
from walt.server.adapters.systemd.units import SystemdUnits
from walt.server.adapters.tftpd.daemon import TftpdService
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.adapters.timing.clock import clock_state
from walt.server.adapters.timing.ntp import NtpService
from walt.server.adapters.timing.ptpd import STATUS, PtpdService
from walt.server.adapters.vpn.sshd import SshdService
from walt.server.assembly.base import Base
from walt.server.assembly.readiness import PATIENCE, Essential
from walt.server.config.model import WALT_NET
from walt.server.domain.network_services.announcing import LldpdConfig, SnmpdConfig
from walt.server.domain.network_services.dns import forwarders
from walt.server.domain.network_services.publishing import NetworkServices
from walt.server.domain.network_services.swap import SwapConfig
from walt.server.domain.network_services.tftp import TftpConfig
from walt.server.domain.network_services.timing import PtpConfig
from walt.server.runtime.daemon import Daemon
from walt.server.runtime.units import UnitLauncher

RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # whom systemd-resolved(8) itself asks


class Daemons(NamedTuple):
    """What nodes find in the network.

    `services` are started in this order, and ended in the reverse one; `settled` are those whose
    configuration does not depend on devices, with it.
    """

    dhcpd: DhcpdService
    named: NamedService
    tftpd: TftpdService
    firewall: NftFirewall
    exporter: GaneshaExporter | KernelExporter
    exports: NbfsExporter  # `exporter`, and what else exports
    network: NetworkServices
    services: Sequence[Service]
    settled: Sequence[Callable[[], object]]
    kernel_server: KernelServer | None  # None: ganesha serves
    sshd: SshdService | None  # None: there is no VPN

    def essential(self) -> list[Essential]:
        """Return what no node boots without. Ganesha starts with the first export."""
        found = [
            Essential(daemon.watch.answered, partial(getattr, daemon, "health"))
            for daemon in (self.dhcpd, self.named, self.tftpd)
        ]
        if self.kernel_server is not None:
            found.append(Essential(
                self.kernel_server.answered, partial(getattr, self.kernel_server, "health")
            ))
        elif isinstance(self.exporter, GaneshaExporter) and self.exporter.child.running:
            found.append(Essential(
                self.exporter.watch.answered, partial(getattr, self.exporter.child, "health"),
                max(PATIENCE, self.exporter.start_limit),
            ))
        return found


def build_daemons(
    base: Base, host_network: Callable[[], AbstractContextManager[object]]
) -> Daemons:
    """Build and join these objects; `host_network` as in `assembly.core.build`."""
    config, reactor, launcher = base.config, base.reactor, base.launcher
    (walt_net,) = [plan for plan in base.link_plans if plan.name == WALT_NET]

    def places(name: str) -> dict[str, Any]:
        return {
            "directory": config.paths.service(name), "runtime": config.paths.service_runtime(name)
        }

    systemd = None
    running = launcher  # those that have units
    if config.services.runner == "systemd":
        systemd = SystemdUnits(reactor, partial(Journal, reactor, launcher))
        running = UnitLauncher(launcher.host_netns, systemd)
    dhcpd = DhcpdService(reactor, running, **places("dhcpd"))
    named = NamedService(reactor, running, **places("named"))
    tftpd = TftpdService(reactor, running, **places("tftpd"))
    swap = SwapService(reactor, launcher, **places("nbdkit"))
    supervised: list[Daemon[Any]] = [dhcpd, named, tftpd, swap]
    settled: list[Callable[[], object]] = [
        partial(tftpd.apply, TftpConfig(config.server_ip, config.paths.state)),
        partial(swap.apply, SwapConfig(config.server_ip)),
    ]
    if config.services.lldp:
        agentx = config.paths.service_runtime("snmpd") / "agentx" / "socket"
        shown = SnmpdConfig(
            config.server_ip, config.subnet, config.services.snmp_community, agentx
        )
        snmpd = SnmpdService(reactor, running, **places("snmpd"))
        lldpd = LldpdService(reactor, running, **places("lldpd"), snmpd=shown)
        supervised += [snmpd, lldpd]
        # LLDP has no VLAN: it is told at the interface itself (spec server §1.1).
        interface = walt_net.raw_device or walt_net.base
        settled += [
            partial(snmpd.apply, shown),
            partial(lldpd.apply, LldpdConfig(config.server_ip, interface, agentx)),
        ]
    if config.services.ptp:
        ptpd = PtpdService(reactor, running, **places("ptpd"))
        supervised.append(ptpd)
        status = config.paths.service_runtime("ptpd") / STATUS
        settled.append(partial(ptpd.apply, PtpConfig(WALT_NET, status)))
    sshd = None
    if config.vpn.enabled:
        sshd = SshdService(reactor, launcher, **places("sshd"), place=host_network)
        supervised.append(sshd)
    ntp = NtpService(
        reactor, server=config.server_ip, subnet=config.subnet, clock=clock_state
    )
    base.health.daemons += [*supervised, ntp]
    exporter: GaneshaExporter | KernelExporter
    kernel_server: KernelServer | None = None
    # It takes the orders of those that come after it, and is the last one to end.
    services: list[Service] = [*([systemd] if systemd is not None else []), *supervised, ntp]
    if chosen(config.services.nfs, isolated=config.namespace is not None):
        exporter = KernelExporter(base.runner, nodes=config.paths.nodes)
        kernel_server = KernelServer(
            reactor, base.runner, unit=config.services.nfsd_service_name,
            address=str(config.server_ip),
        )
        base.health.daemons.append(kernel_server)
        services.append(kernel_server)
    else:
        exporter = GaneshaExporter(
            reactor, launcher, base.runner, **places("ganesha"), links=base.volumes.links,
            trees=base.volumes.exported, address=str(config.server_ip), subnet=config.subnet,
        )
        base.health.daemons.append(exporter)
    nbfs = config.services.nbfs
    exports = NbfsExporter(
        reactor, exporter, enabled=nbfs.enabled, directory=nbfs.exports, control=nbfs.control,
        own=config.paths.service_runtime("nbfs"), owner=config.paths.state,
    )
    if nbfs.enabled:
        base.health.daemons.append(exports)
    firewall = NftFirewall(base.runner)
    network = NetworkServices(
        reactor, config.walt_interface, dhcp=dhcpd, dns=named,
        tree=BootTreeStore(reactor, base.runner, config.paths.nodes), firewall=firewall,
        forwarders=forwarders(
            _text(RESOLV_CONF), config.server_ip, upstream=_text(UPSTREAM),
            isolated=config.namespace is not None,
        ),
        guarded=None if walt_net.raw_device is None else walt_net.base,
        ping_check=walt_net.raw_device is not None,
        http_port=config.services.http_port,
        vpn_ports=(
            (config.services.http_port, config.vpn.ssh_port) if config.vpn.enabled else None
        ),
    )
    return Daemons(
        dhcpd=dhcpd, named=named, tftpd=tftpd, firewall=firewall, exporter=exporter,
        exports=exports, network=network, services=[*services, exporter, exports],
        settled=settled, kernel_server=kernel_server, sshd=sshd,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
