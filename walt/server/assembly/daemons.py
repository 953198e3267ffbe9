"""Builds the network services: DHCP, DNS, TFTP, NFS, swap, the firewall."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from walt.server.adapters.dhcpd.service import DhcpdService
from walt.server.adapters.lldp.lldpd import LldpdService
from walt.server.adapters.lldp.snmpd import SnmpdService
from walt.server.adapters.named.service import NamedService
from walt.server.adapters.nbdkit.service import SwapService
from walt.server.adapters.nfs import ganesha, kernel
from walt.server.adapters.nfs.kernel_server import KernelServer
from walt.server.adapters.nftables.firewall import NftFirewall
from walt.server.adapters.tftpd.service import TftpdService
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.adapters.timing.clock import clock_state
from walt.server.adapters.timing.ntp import NtpService
from walt.server.adapters.timing.ptpd import STATUS, PtpdService
from walt.server.assembly.base import Base
from walt.server.assembly.readiness import Essential
from walt.server.config.model import WALT_NET, ServerConfig
from walt.server.domain.services.announcing import LldpdConfig, SnmpdConfig
from walt.server.domain.services.dns import forwarders
from walt.server.domain.services.service import NetworkServices
from walt.server.domain.services.timing import PtpConfig

RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM = Path("/run/systemd/resolve/resolv.conf")  # whom systemd-resolved(8) itself asks


class Health:
    """The daemons whose health people may see; the database is added when it starts."""

    def __init__(self, daemons: list[Any]) -> None:
        self.daemons = daemons

    def services(self) -> list[dict[str, Any]]:
        """Return one row for each daemon; see `runtime.child.Health`."""
        return [
            {
                "name": one.name, "state": one.state, "running": one.running, "pid": one.pid,
                "restarts": one.restarts, "status": one.last_status,
                "trouble": one.trouble, "trouble_time": one.trouble_time,
            }
            for one in (daemon.health for daemon in self.daemons)
        ]


@dataclass(frozen=True)
class Announcing:
    """What makes the server known to its switch, with the configurations of both daemons."""

    snmpd: SnmpdService
    lldpd: LldpdService
    shown: SnmpdConfig
    told: LldpdConfig

    def start(self) -> None:
        """Start both."""
        self.snmpd.startService()
        self.snmpd.apply(self.shown)
        self.lldpd.startService()
        self.lldpd.apply(self.told)


@dataclass(frozen=True)
class Timing:
    """What gives nodes the time of the server."""

    ntp: NtpService
    ptpd: PtpdService | None  # None: server.conf does not want it
    followed: PtpConfig

    def services(self) -> list[NtpService | PtpdService]:
        """Return those that there are."""
        return [self.ntp] if self.ptpd is None else [self.ntp, self.ptpd]

    def start(self) -> None:
        """Start them."""
        for one in self.services():
            one.startService()
        if self.ptpd is not None:
            self.ptpd.apply(self.followed)


@dataclass(frozen=True)
class Daemons:
    """What nodes find in the network."""

    dhcpd: DhcpdService
    named: NamedService
    tftpd: TftpdService
    swap: SwapService
    firewall: NftFirewall
    exporter: Any
    network: NetworkServices
    health: Health
    announcing: Announcing | None  # None: server.conf does not want it
    timing: Timing
    kernel_server: KernelServer | None  # None: ganesha serves

    def essential(self) -> list[Essential]:
        """Return what no node boots without. Ganesha starts with the first export."""
        found = [
            Essential(one.watch.answered, partial(getattr, one, "health"))
            for one in (self.dhcpd, self.named, self.tftpd)
        ]
        if self.kernel_server is not None:
            found.append(Essential(
                self.kernel_server.answered, partial(getattr, self.kernel_server, "health")
            ))
        elif self.exporter.child.running:
            found.append(Essential(
                self.exporter.watch.answered, partial(getattr, self.exporter.child, "health")
            ))
        return found


def snmpd_config(config: ServerConfig) -> SnmpdConfig:
    """Return how snmpd is run."""
    return SnmpdConfig(
        config.server_ip, config.subnet, config.services.snmp_community,
        config.paths.service_runtime("snmpd") / "agentx" / "socket",
    )


def _announcing(base: Base, interface: str) -> Announcing:
    """Build snmpd, and lldpd on an interface."""
    place, runtime = base.config.paths.service, base.config.paths.service_runtime
    shown = snmpd_config(base.config)
    return Announcing(
        SnmpdService(
            base.reactor, base.launcher, directory=place("snmpd"), runtime=runtime("snmpd")
        ),
        LldpdService(
            base.reactor, base.launcher, directory=place("lldpd"), runtime=runtime("lldpd"),
            snmpd=shown,
        ),
        shown, LldpdConfig(base.config.server_ip, interface, shown.agentx),
    )


def _timing(base: Base) -> Timing:
    """Build what answers to clients of NTP, and ptpd."""
    config = base.config
    place, runtime = config.paths.service("ptpd"), config.paths.service_runtime("ptpd")
    return Timing(
        NtpService(
            base.reactor, server=config.server_ip, subnet=config.subnet, clock=clock_state
        ),
        PtpdService(base.reactor, base.launcher, directory=place, runtime=runtime)
        if config.services.ptp else None,
        PtpConfig(WALT_NET, runtime / STATUS),
    )


def build_daemons(base: Base) -> Daemons:
    """Build and join these objects."""
    config, reactor, launcher = base.config, base.reactor, base.launcher

    place, runtime = config.paths.service, config.paths.service_runtime
    dhcpd = DhcpdService(
        reactor, launcher, directory=place("dhcpd"), runtime=runtime("dhcpd")
    )
    named = NamedService(reactor, launcher, directory=place("named"), runtime=runtime("named"))
    tftpd = TftpdService(reactor, launcher, directory=place("tftpd"), runtime=runtime("tftpd"))
    swap = SwapService(reactor, launcher, directory=place("nbdkit"), runtime=runtime("nbdkit"))
    health = Health([dhcpd, named, tftpd, swap])
    exporter: Any
    kernel_server: KernelServer | None = None
    if kernel.chosen(config.services.nfs, isolated=config.namespace is not None):
        exporter = kernel.KernelExporter(base.runner, nodes=config.paths.nodes)
        kernel_server = KernelServer(
            reactor, base.runner, unit=config.services.nfsd_service_name,
            address=str(config.server_ip),
        )
        health.daemons.append(kernel_server)
    else:
        exporter = ganesha.GaneshaExporter(
            reactor, launcher, base.runner, directory=place("ganesha"),
            runtime=runtime("ganesha"), links=base.volumes.links,
            trees=base.volumes.exported, address=str(config.server_ip), subnet=config.subnet,
        )
        health.daemons.append(exporter.child)
    firewall = NftFirewall(base.runner)
    (walt_net,) = [plan for plan in base.link_plans if plan.name == WALT_NET]
    network = NetworkServices(
        reactor, config.walt_interface, dhcp=dhcpd, dns=named,
        tree=BootTreeStore(reactor, base.runner, config.paths.nodes), firewall=firewall,
        forwarders=forwarders(
            _text(RESOLV_CONF), config.server_ip, upstream=_text(UPSTREAM),
            isolated=config.namespace is not None,
        ),
        guarded=None if walt_net.raw_device is None else walt_net.base,
        ping_check=walt_net.raw_device is not None,
    )
    announcing = None
    if config.services.lldp:
        # LLDP has no VLAN: it is told at the interface itself (spec server §1.1).
        announcing = _announcing(base, walt_net.raw_device or walt_net.base)
        health.daemons += [announcing.snmpd, announcing.lldpd]
    timing = _timing(base)
    health.daemons += timing.services()
    return Daemons(
        dhcpd=dhcpd, named=named, tftpd=tftpd, swap=swap, firewall=firewall, exporter=exporter,
        network=network, health=health, announcing=announcing, timing=timing,
        kernel_server=kernel_server,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
