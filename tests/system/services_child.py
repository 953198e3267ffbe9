"""A server of its own with dhcpd, named and tftpd, to be killed by a test."""

from __future__ import annotations

import sys
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.internet import reactor

from tests.system.netns import NamespaceLauncher
from walt.server.adapters.dhcpd.daemon import DhcpdService
from walt.server.adapters.named.daemon import NamedService
from walt.server.adapters.network.namespace import inside
from walt.server.adapters.tftpd.daemon import TftpdService
from walt.server.domain.network_services.dhcp import dhcp_config
from walt.server.domain.network_services.dns import DnsConfig
from walt.server.domain.network_services.tftp import TftpConfig

INTERFACE = IPv4Interface("192.168.77.1/24")


def main() -> None:
    """Start the daemons, print their pids once they run, wait for the end."""
    netns, directory = sys.argv[1], Path(sys.argv[2])
    launcher = NamespaceLauncher(netns=netns)
    place = partial(inside, f"/run/netns/{netns}")
    dhcpd = DhcpdService(reactor, launcher, place=place, directory=directory / "dhcpd",
                         runtime=directory / "run-dhcpd")
    named = NamedService(reactor, launcher, place=place, directory=directory / "named",
                         runtime=directory / "run-named")
    tftpd = TftpdService(reactor, launcher, place=place, directory=directory / "tftpd",
                         runtime=directory / "run-tftpd")
    dhcpd.apply(dhcp_config(INTERFACE, []))
    named.apply(DnsConfig(INTERFACE.ip))
    tftpd.apply(TftpConfig(INTERFACE.ip, directory))
    for one in (dhcpd, named, tftpd):
        one.startService()
    reactor.callLater(2.0, lambda: print(
        dhcpd.health.pid, named.health.pid, tftpd.health.pid, flush=True
    ))
    reactor.run()


if __name__ == "__main__":
    main()
