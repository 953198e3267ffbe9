"""What nodes and virtual hosts say of devices, and how much of it is believed."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from walt.common.errors import Denied, Invalid, LimitExceeded
from walt.common.leases import Sighting
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.registration import Registration

PATIENCE = 3.0  # seconds: a client may speak before the line of dhcpd was read
MAX_WAITING = 1000  # announcements that wait for their lease
MAX_OF_CALLER = 50  # of them, those of one peer: it must not keep others waiting


class LeaseBook:
    """Which device got which address from dhcpd, in memory."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._waiting: list[tuple[str, str, Deferred[bool]]] = []
        self._callers: Counter[str] = Counter()

    def leased(self, sighting: Sighting) -> None:
        """dhcpd gave an address to a device."""
        if sighting.ip is not None:
            self.committed(sighting.mac, sighting.ip)

    def committed(self, mac: str, ip: str) -> None:
        """A device got an address."""
        self._holders[ip] = mac
        for entry in [waiter for waiter in self._waiting if waiter[:2] == (mac, ip)]:
            self._waiting.remove(entry)
            entry[2].callback(True)

    def holds(self, mac: str, ip: str) -> bool:
        """Tell whether the newest lease of an address is that of a device."""
        return self._holders.get(ip) == mac

    def wait(self, mac: str, ip: str, caller: str, clock: IReactorTime) -> Deferred[bool]:
        """Tell whether a device has, or gets within 3 s, the lease of an address.

        `caller` is the address of the peer that asks. Raises LimitExceeded.
        """
        waiting: Deferred[bool] = Deferred()
        if self.holds(mac, ip):
            waiting.callback(True)
            return waiting
        if self._callers[caller] >= MAX_OF_CALLER or len(self._waiting) >= MAX_WAITING:
            raise LimitExceeded("too many devices are waiting for their leases: try again")
        self._callers[caller] += 1
        entry = (mac, ip, waiting)
        self._waiting.append(entry)

        def late() -> None:
            self._waiting.remove(entry)
            waiting.callback(False)

        timer = clock.callLater(PATIENCE, late)

        def over(found: bool) -> bool:
            if timer.active():
                timer.cancel()
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
            return found

        return waiting.addCallback(over)


class Announcements:
    """Registers what peers of walt-net announce.

    An address is believed when it is the caller's own, or when dhcpd gave it to this device.
    """

    def __init__(
        self, registry: DeviceRegistry, registration: Registration, leases: LeaseBook,
        server_ip: str, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._registration = registration
        self._leases = leases
        self._server_ip = server_ip
        self._clock = clock

    def leased(self, mac: str, ip: str) -> None:
        """Take note of a lease that was reported by the server's own machine."""
        self._leases.committed(mac, ip)

    async def announce(self, caller: str | None, sighting: Sighting) -> None:
        """Register a device that the peer at address `caller` tells of. Raises Invalid, Denied."""
        mac, ip = sighting.mac, sighting.ip
        subnet = self._registry.subnet
        ends = (subnet.network_address, subnet.broadcast_address)
        address = IPv4Address(ip) if ip is not None else None
        if ip is None or ip == self._server_ip or address not in subnet or address in ends:
            raise Invalid(f"{ip} is not an address of a device in {subnet}")
        known, holder = self._registry.get(mac), self._registry.by_ip(ip)
        if holder is not None and holder.mac != mac:
            raise Denied(f"{ip} is the address of another device")
        if known is not None and known.ip == ip and known.type != "unknown":
            return  # nothing new
        own = ip == caller and (known is None or known.ip == ip)
        if not own and not await self._leases.wait(
            mac, ip, caller or "", self._clock
        ):
            raise Denied(
                f"{ip} is neither the address of the caller nor one that {mac} got by DHCP"
            )
        await self._registration.register(sighting)
