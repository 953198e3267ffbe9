"""Keep DHCP, DNS, the boot tree and the firewall in step with the devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Interface
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from walt.server.domain.devices.derived import Change, Followed
from walt.server.domain.devices.model import NETSETUP_NAT, RASPBERRY_PI_PREFIXES, Device
from walt.server.domain.network.firewall import FirewallConfig, Redirection
from walt.server.domain.network.interfaces import IFirewall
from walt.server.domain.network_services.boot_tree import BootLinks
from walt.server.domain.network_services.dhcp import HTTP_PORT, DhcpHosts
from walt.server.domain.network_services.dns import FALLBACK_FORWARDER, DnsNames
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.nat import nat_addresses
from walt.server.domain.network_services.redirected import board_addresses
from walt.server.domain.network_services.secondary import secondary_networks
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.slicing import slices, worked_off
from walt.server.runtime.waiting import Waiters

_log = Logger()

MERGE_WITHIN = 0.05  # seconds
OFFERS_WITHIN = 0.02  # seconds: a board asks for files as soon as it was offered an address
REST_PER_DEVICE = 2e-6  # seconds between two derivations, which cost a µs a device
AT_ONCE = 256  # devices that are derived from in one turn of the reactor


class Filtered:
    """The devices that the firewall knows: of all others there is nothing to derive."""

    def __init__(self) -> None:
        self._known: dict[str, Device] = {}

    @property
    def devices(self) -> Collection[Device]:
        """They, in no particular order."""
        return self._known.values()

    def change(self, changes: Collection[Change]) -> None:
        """Take what changed."""
        for change in changes:
            device = change.new
            if device is not None and (
                device.netsetup == NETSETUP_NAT or device.vpn_mac is not None
                or (device.virtual and "networks" in device.conf)
            ):
                self._known[device.mac] = device
            else:
                self._known.pop(change.mac, None)


class NetworkServices:
    """Derive every configuration from the devices and the mounted images.

    `clock` gives callLater; `dhcp`, `dns` and `tree` provide IConfigurable, `firewall` IFirewall;
    `forwarders` are the upstream DNS servers, `guarded` the interface below the
    bridge whose 802.1Q frames are dropped, `http_port` that of boot files, `vpn_ports` those
    of the server's web pages and of the VPN's sshd (None: there is no VPN). Nothing is
    configured before the first `update`.
    """

    def __init__(
        self, clock: IReactorTime, interface: IPv4Interface, *,
        dhcp: IConfigurable, dns: IConfigurable, tree: IConfigurable, firewall: IFirewall,
        forwarders: tuple[str, ...] = (FALLBACK_FORWARDER,), guarded: str | None = None,
        ping_check: bool = True, http_port: int = HTTP_PORT,
        vpn_ports: tuple[int, int] | None = None,
    ) -> None:
        self._clock = clock
        self._interface = interface
        self._dhcp, self._dns, self._tree, self._firewall = dhcp, dns, tree, firewall
        self._guarded = guarded
        self._vpn_ports = vpn_ports
        self._entry_points: tuple[str, ...] = ()
        self._hosts = DhcpHosts(interface, ping_check=ping_check, http_port=http_port)
        self._names = DnsNames(interface.ip, interface.network, forwarders)
        self._links = BootLinks(interface)
        self._filtered = Filtered()
        self._followed = Followed()
        self._lock = DeferredLock()
        self._devices: Collection[Device] = ()
        self._mounts: dict[str, str] | None = None
        self._new_devices = False
        self._whole_look = False  # whether all devices are to be compared
        self._later: Any = None
        self._waiting: Waiters[None] = Waiters()
        self._stopping = False
        self._deriving = False
        self._not_before = 0.0
        self._offers_later: IDelayedCall | None = None

    def update(
        self, devices: Collection[Device] | None = None, mounts: Mapping[str, str] | None = None,
        changes: Collection[Change] = (),
    ) -> Deferred[None]:
        """Take the present devices, or what changed of them, or the mounted images, by full name.

        Returns a Deferred that fires when everything is in force; dhcpd may take
        30 s (see `Pacer`). Failures are logged, they do not keep the rest up.
        The boot tree that a former server left stays as it is until the mounted
        images are known (design D20).
        """
        if devices is not None:
            self._devices, self._new_devices, self._whole_look = devices, True, True
        if changes:
            self._followed.note(changes)
            self._new_devices = True
        if mounts is not None:
            self._mounts = dict(mounts)
        done = self._waiting.wait()
        self._plan()
        return done

    def update_links(self, mounts: Mapping[str, str]) -> Deferred[None]:
        """Point boot links to these mounted images; fires when they are in place."""
        self._mounts = dict(mounts)
        return self._set_links()

    def offered(self, mac: str, ip: str) -> None:
        """Have boot files at an address that dhcpd offers to a board which asks for no more."""
        if not mac.startswith(RASPBERRY_PI_PREFIXES) or not self._links.offer(ip):
            return
        if self._offers_later is None and self._mounts is not None and not self._stopping:
            self._offers_later = self._clock.callLater(OFFERS_WITHIN, self._link_offers)

    def _link_offers(self) -> None:
        self._offers_later = None
        self._set_links()

    def links_to_static(self) -> Deferred[None]:
        """Let every node find the looping boot files: the orderly stop (spec node-protocols §3.4).

        Later updates keep these links. Fires when they are in place.
        """
        self._stopping = True
        return self._set_links()

    def stop(self) -> None:
        """Forget an update that did not start yet."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._offers_later is not None:
            self._offers_later.cancel()
            self._offers_later = None
        self._waiting.release(None)

    def _plan(self) -> None:
        if self._later is None and not self._deriving:
            wait = max(MERGE_WITHIN, self._not_before - self._clock.seconds())
            self._later = self._clock.callLater(wait, self._start)

    def _start(self) -> None:
        self._later = None
        self._deriving = True
        spawn(self._derive(self._waiting.taken()), "deriving the configuration of services")

    async def _derive(self, waiting: Waiters[None]) -> None:
        """Derive each value in a reactor turn of its own: 10,000 devices cost some ms each."""
        with_devices, self._new_devices = self._new_devices, False
        pieces = []
        try:
            if with_devices:
                await self._follow()
                await self._pause()
                wanted = self._hosts.config()
                await self._pause()
                pieces.append(self._dhcp.apply(wanted))
                await self._pause()
                pieces.append(self._dns.apply(self._names.config()))
                await self._pause()
                pieces.append(
                    spawn(self._firewall.apply(self._firewall_config()), "updating the firewall")
                )
                await self._pause()
            if self._mounts is not None:
                pieces.append(self._set_links())
        finally:
            self._deriving = False
            self._not_before = self._clock.seconds() + len(self._devices) * REST_PER_DEVICE
            self._all(pieces).addCallback(lambda _: waiting.release(None))
            if self._waiting:
                self._plan()

    def _pause(self) -> Deferred[None]:
        return deferLater(self._clock, 0, lambda: None)

    async def _follow(self) -> None:
        """Take the devices that changed, many of them in slices."""
        async with self._lock:
            whole, self._whole_look = self._whole_look, False
            changes = self._followed.look(self._devices) if whole else self._followed.noted()
            if len(changes) > AT_ONCE:
                await self._pause()
                left = [Change(change.old, None) for change in changes if change.old is not None]
                if left:  # another one may have it: all is left before
                    new = [Change(None, change.new) for change in changes if change.new is not None]
                    changes = left + new
                    await self._pause()
            async for some in slices(self._clock, changes, AT_ONCE):
                for derived in (self._hosts, self._names, self._links, self._filtered):
                    derived.change(some)

    def _set_links(self) -> Deferred[None]:
        return self._all([Deferred.fromCoroutine(self._apply_links())])

    async def _apply_links(self) -> None:
        await self._follow()
        mounts = self._mounts or {}
        await worked_off(
            self._clock, self._links.derive(mounts, stopping=self._stopping), AT_ONCE
        )
        # The latest: it may have been asked for another one meanwhile.
        await self._tree.apply(self._links.tree(self._mounts or {}, stopping=self._stopping))

    def redirect(self, entry_points: Sequence[str]) -> None:
        """Answer web requests of walt-net to these addresses outside ourselves."""
        self._entry_points = tuple(entry_points)
        if not self._stopping:
            spawn(self._firewall.apply(self._firewall_config()), "updating the firewall")

    def _firewall_config(self) -> FirewallConfig:
        subnet, devices = self._interface.network, self._filtered.devices
        redirection = None
        if self._vpn_ports is not None:
            http, ssh = self._vpn_ports
            redirection = Redirection(
                str(self._interface.ip), self._entry_points, http,
                board_addresses(devices, subnet), ssh,
            )
        return FirewallConfig(
            subnet, nat_addresses(devices, subnet), self._guarded,
            networks=secondary_networks(devices), redirection=redirection,
        )

    def _all(self, pieces: list[Deferred[Any]]) -> Deferred[None]:
        for piece in pieces:
            piece.addErrback(lambda failure: _log.failure("configuring a service", failure))
        return DeferredList(pieces).addCallback(lambda _: None)
