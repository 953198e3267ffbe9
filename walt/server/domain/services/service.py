"""Keep DHCP, DNS, the boot tree and the firewall in step with the devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from walt.server.domain.devices.model import Device
from walt.server.domain.network.firewall import FirewallConfig, nat_addresses
from walt.server.domain.services.boot_tree import BootTree, boot_tree, probing_possible
from walt.server.domain.services.dhcp import dhcp_config
from walt.server.domain.services.dns import FALLBACK_FORWARDER, dns_config
from walt.server.runtime.ordered import spawn

_log = Logger()

MERGE_WITHIN = 0.05  # seconds; deriving everything from 4,000 devices has a cost


class NetworkServices:
    """Derive every configuration from the devices and the mounted images.

    `clock` gives callLater; `dhcp`, `dns` and `tree` provide IConfigurable, `firewall` IFirewall;
    `forwarders` are the upstream DNS servers, `guarded` the interface below the
    bridge whose 802.1Q frames are dropped. Nothing is configured before the
    first `update`.
    """

    def __init__(
        self, clock: Any, interface: IPv4Interface, *,
        dhcp: Any, dns: Any, tree: Any, firewall: Any,
        forwarders: tuple[str, ...] = (FALLBACK_FORWARDER,), guarded: str | None = None,
        ping_check: bool = True,
    ) -> None:
        self._clock = clock
        self._interface = interface
        self._dhcp, self._dns, self._tree, self._firewall = dhcp, dns, tree, firewall
        self._forwarders = forwarders
        self._guarded = guarded
        self._ping_check = ping_check
        self._devices: tuple[Device, ...] = ()
        self._mounts: dict[str, str] = {}
        self._new_devices = False
        self._later: Any = None
        self._waiting: list[Deferred[None]] = []
        self._stopping = False
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
        """
        if devices is not None:
            self._devices, self._new_devices = tuple(devices), True
        if mounts is not None:
            self._mounts = dict(mounts)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if self._later is None:
            self._later = self._clock.callLater(MERGE_WITHIN, self._derive)
        return done

    def update_links(
        self, devices: Iterable[Device], mounts: Mapping[str, str]
    ) -> Deferred[None]:
        """Point boot links to these mounted images; fires when they are in place."""
        self._devices, self._mounts = tuple(devices), dict(mounts)
        return self._all([self._tree.apply(self._tree_config())])

    def links_to_static(self) -> Deferred[None]:
        """Let every node find the looping boot files: the orderly stop (spec §3.4).

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

    def _derive(self) -> None:
        self._later = None
        waiting, self._waiting = self._waiting, []
        pieces = [self._tree.apply(self._tree_config())]
        if self._new_devices:
            self._new_devices = False
            interface = self._interface
            pieces += [
                self._dhcp.apply(
                    dhcp_config(interface, self._devices, ping_check=self._ping_check)
                ),
                self._dns.apply(dns_config(
                    interface.ip, interface.network, self._devices, self._forwarders
                )),
                spawn(self._firewall.apply(self._firewall_config()), "updating the firewall"),
            ]
        self._all(pieces).addCallback(lambda _: self._release(waiting))

    @staticmethod
    def _release(waiting: list[Deferred[None]]) -> None:
        for one in waiting:
            one.callback(None)

    def _tree_config(self) -> BootTree:
        return boot_tree(
            self._interface, self._devices, self._mounts, stopping=self._stopping
        )

    def _firewall_config(self) -> FirewallConfig:
        network = self._interface.network
        return FirewallConfig(network, nat_addresses(self._devices, network), self._guarded)

    def _all(self, pieces: list[Deferred[Any]]) -> Deferred[None]:
        for piece in pieces:
            piece.addErrback(lambda failure: _log.failure("configuring a service", failure))
        return DeferredList(pieces).addCallback(lambda _: None)
