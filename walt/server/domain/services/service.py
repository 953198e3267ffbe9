"""Keep DHCP, DNS, the boot tree and the firewall in step with the devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from walt.server.domain.devices.model import Device
from walt.server.domain.network.firewall import FirewallConfig
from walt.server.domain.network.ports import IFirewall
from walt.server.domain.services.boot_tree import BootLinks, JoinedTree, probing_possible
from walt.server.domain.services.dhcp import DhcpHosts
from walt.server.domain.services.dns import FALLBACK_FORWARDER, DnsNames
from walt.server.domain.services.nat import nat_addresses
from walt.server.domain.services.ports import IConfigurable
from walt.server.domain.services.secondary import secondary_networks
from walt.server.runtime.ordered import spawn

_log = Logger()

MERGE_WITHIN = 0.05  # seconds
REST_PER_DEVICE = 1e-5  # seconds between two derivations, which cost some µs a device


class NetworkServices:
    """Derive every configuration from the devices and the mounted images.

    `clock` gives callLater; `dhcp`, `dns` and `tree` provide IConfigurable, `firewall` IFirewall;
    `forwarders` are the upstream DNS servers, `guarded` the interface below the
    bridge whose 802.1Q frames are dropped. Nothing is configured before the
    first `update`.
    """

    def __init__(
        self, clock: IReactorTime, interface: IPv4Interface, *,
        dhcp: IConfigurable, dns: IConfigurable, tree: IConfigurable, firewall: IFirewall,
        forwarders: tuple[str, ...] = (FALLBACK_FORWARDER,), guarded: str | None = None,
        ping_check: bool = True,
    ) -> None:
        self._clock = clock
        self._interface = interface
        self._dhcp, self._dns, self._tree, self._firewall = dhcp, dns, tree, firewall
        self._guarded = guarded
        self._hosts = DhcpHosts(interface, ping_check=ping_check)
        self._names = DnsNames(interface.ip, interface.network, forwarders)
        self._links = BootLinks(interface)
        self._devices: tuple[Device, ...] = ()
        self._mounts: dict[str, str] | None = None
        self._new_devices = False
        self._later: Any = None
        self._waiting: list[Deferred[None]] = []
        self._stopping = False
        self._deriving = False
        self._not_before = 0.0
        if not probing_possible(interface):
            _log.warn(
                "walt-net {net} is wider than /20: boards that use an offered address without "
                "requesting it find no boot files there; use a /20 or narrower network for them",
                net=interface.network,
            )

    def update(
        self, devices: Iterable[Device] | None = None, mounts: Mapping[str, str] | None = None
    ) -> Deferred[None]:
        """Take the present devices, or the mounted images (full name to id), or both.

        Returns a Deferred that fires when everything is in force; dhcpd may take
        30 s (see `Pacer`). Failures are logged, they do not keep the rest up.
        The boot tree that a former server left stays as it is until the mounted
        images are known (design D20).
        """
        if devices is not None:
            self._devices, self._new_devices = tuple(devices), True
        if mounts is not None:
            self._mounts = dict(mounts)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._plan()
        return done

    def update_links(
        self, devices: Iterable[Device], mounts: Mapping[str, str]
    ) -> Deferred[None]:
        """Point boot links to these mounted images; fires when they are in place."""
        self._devices, self._mounts = tuple(devices), dict(mounts)
        return self._all([self._tree.apply(self._tree_config())])

    def links_to_static(self) -> Deferred[None]:
        """Let every node find the looping boot files: the orderly stop (spec node-protocols §3.4).

        Later updates keep these links. Fires when they are in place.
        """
        self._stopping = True
        return self._all([self._tree.apply(self._tree_config())])

    def stop(self) -> None:
        """Forget an update that did not start yet."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._release(self._waiting)
        self._waiting = []

    def _plan(self) -> None:
        if self._later is None and not self._deriving:
            wait = max(MERGE_WITHIN, self._not_before - self._clock.seconds())
            self._later = self._clock.callLater(wait, self._start)

    def _start(self) -> None:
        self._later = None
        self._deriving = True
        waiting, self._waiting = self._waiting, []
        spawn(self._derive(waiting), "deriving the configuration of services")

    async def _derive(self, waiting: list[Deferred[None]]) -> None:
        """Derive each value in a reactor turn of its own: 10,000 devices cost some ms each."""
        with_devices, self._new_devices = self._new_devices, False
        pieces = []
        try:
            if with_devices:
                wanted = self._hosts.config(self._devices)
                await deferLater(self._clock, 0, lambda: None)
                pieces.append(self._dhcp.apply(wanted))
                await deferLater(self._clock, 0, lambda: None)
                pieces.append(self._dns.apply(self._names.config(self._devices)))
                await deferLater(self._clock, 0, lambda: None)
                pieces.append(
                    spawn(self._firewall.apply(self._firewall_config()), "updating the firewall")
                )
                await deferLater(self._clock, 0, lambda: None)
            if self._mounts is not None:
                pieces.append(self._tree.apply(self._tree_config()))
        finally:
            self._deriving = False
            self._not_before = self._clock.seconds() + len(self._devices) * REST_PER_DEVICE
            self._all(pieces).addCallback(lambda _: self._release(waiting))
            if self._waiting:
                self._plan()

    @staticmethod
    def _release(waiting: list[Deferred[None]]) -> None:
        for one in waiting:
            one.callback(None)

    def _tree_config(self) -> JoinedTree:
        return self._links.tree(self._devices, self._mounts or {}, stopping=self._stopping)

    def _firewall_config(self) -> FirewallConfig:
        network = self._interface.network
        return FirewallConfig(
            network, nat_addresses(self._devices, network), self._guarded,
            networks=secondary_networks(self._devices),
        )

    def _all(self, pieces: list[Deferred[Any]]) -> Deferred[None]:
        for piece in pieces:
            piece.addErrback(lambda failure: _log.failure("configuring a service", failure))
        return DeferredList(pieces).addCallback(lambda _: None)
