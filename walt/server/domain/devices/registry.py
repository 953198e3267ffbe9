"""The devices of the platform, in memory, written through to a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from walt.common.errors import Conflict, Invalid, NotFound, Unavailable
from walt.common.names import is_device_name
from walt.common.sentences import meant
from walt.server.domain.devices.changes import Change as Fact
from walt.server.domain.devices.changes import of_device
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.interfaces import IDeviceStore
from walt.server.domain.devices.model import Device, DeviceType
from walt.server.domain.devices.naming import LOCAL_NAMES, RESERVED_NAMES, SERVER_NAME, choose_name
from walt.server.domain.requester import acting
from walt.server.runtime.coroutines import spawn

_log = Logger()

MOST_WAITING = 200_000  # changes of devices that wait for the database (docs/limits.md)

Observer = Callable[[Sequence[Change]], object]


@dataclass
class _Order:
    """What one call changes, and `who` did it.

    `former` has the names under which logs of devices that go are kept, by MAC; `stored` fires
    when the store has it all.
    """

    changes: Sequence[Change]
    who: str | None
    former: dict[str, str] = field(default_factory=dict)
    stored: Deferred[None] = field(default_factory=Deferred)
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def devices(self) -> dict[str, Device | None]:
        """The devices by MAC, None for those that go."""
        return {change.mac: change.new for change in self.changes}

    def facts(self, macs: Container[str]) -> Iterator[Fact]:
        """Yield what is recorded of some devices; the same, if it is asked for again."""
        for number, change in enumerate(self.changes):
            if change.mac in macs:
                key = f"{self.key}-{number}-"
                yield from of_device(change.mac, change.old, change.new, self.who, key)

    def end(self, error: BaseException | None = None) -> None:
        """Tell who waits, if it still does."""
        if self.stored.called:
            return
        if error is None:
            self.stored.callback(None)
        else:
            self.stored.errback(error)


class DeviceRegistry:
    """Every device by MAC, name and address.

    Reading is immediate. A change is visible at once, its observers are told
    what was and what is, and the awaitable returned fires when the store has it;
    changes waiting for the store are written together, in one transaction. What
    the store refuses of one call is that call's failure, and nobody else's.
    """

    def __init__(
        self, store: IDeviceStore, subnet: IPv4Network, most_waiting: int = MOST_WAITING
    ) -> None:
        self._store = store
        self._most_waiting = most_waiting
        self.subnet = subnet
        self._by_mac: dict[str, Device] = {}
        self._by_name: dict[str, str] = {}
        self._folded: Counter[str] = Counter()  # names in small letters
        self._of_type: Counter[str] = Counter()
        self._images: Counter[str] = Counter()  # those that nodes boot
        self._models: Counter[str] = Counter()  # of nodes
        self._by_ip: dict[str, str] = {}
        self._by_vpn_mac: dict[str, str] = {}
        self._observers: list[Observer] = []
        self._orders: list[_Order] = []
        self._size = 0  # of what is not stored
        self._writing = False

    # -- reading ---------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_mac)

    def all(self) -> list[Device]:
        """Return every device, in no particular order."""
        return list(self._by_mac.values())

    def present(self) -> Collection[Device]:
        """Return every device, as they are whenever this is looked at."""
        return self._by_mac.values()

    def nodes(self) -> list[Device]:
        """Return every node."""
        return [device for device in self._by_mac.values() if device.type == "node"]

    def count(self, kind: DeviceType) -> int:
        """Return how many devices of a type there are."""
        return self._of_type[kind]

    def images(self) -> Collection[str]:
        """Return the full names of the images that nodes boot, as they are whenever looked at."""
        return self._images.keys()

    def models(self) -> Collection[str]:
        """Return the models of nodes, as they are whenever this is looked at."""
        return self._models.keys()

    def get(self, mac: str) -> Device | None:
        """Return the device of a MAC (a VPN MAC counts), None if unknown."""
        return self._by_mac.get(mac) or self._by_mac.get(self._by_vpn_mac.get(mac, ""))

    def by_name(self, name: str) -> Device | None:
        """Return the device of a name, None if unknown."""
        mac = self._by_name.get(name)
        return self._by_mac[mac] if mac is not None else None

    def by_ip(self, ip: str) -> Device | None:
        """Return the device of an address, None if unknown."""
        mac = self._by_ip.get(ip)
        return self._by_mac[mac] if mac is not None else None

    def named(self, name: str, keywords: Container[str] = ()) -> Device:
        """Return the device of a name, or raise NotFound; `keywords` may have been meant, too."""
        device = self.by_name(name)
        if device is None:
            hint = meant(name, keywords) or meant(name, self._by_name) or self._meant_case(name)
            raise NotFound(f'there is no device named "{name[:80]}"; {hint}see: walt device show')
        return device

    def _meant_case(self, name: str) -> str:
        """Return a hint at a name that differs in capital letters alone."""
        folded = name.lower()
        if folded not in self._folded:
            return ""
        return "".join(
            f"did you mean {known}? " for known in self._by_name if known.lower() == folded
        )

    def name_taken(self, name: str) -> bool:
        """Tell whether a device has this name, or it means something else.

        Host names are the same in small and capital letters (RFC 1035).
        """
        folded = name.lower()
        return folded in RESERVED_NAMES or folded in LOCAL_NAMES or folded in self._folded

    def check_new_name(self, name: str) -> None:
        """Raise Invalid or Conflict unless `name` may be given to a device."""
        if not is_device_name(name):
            raise Invalid(
                f'"{name[:80]}" is not a valid device name: it must start with a letter, go on'
                " with letters, digits or dashes, end without a dash, and have 2 to 63 characters"
            )
        if self.name_taken(name):
            if name.lower() in LOCAL_NAMES:
                raise Conflict(f'"{name}" is every machine itself; choose another name')
            if name.lower() in RESERVED_NAMES:
                raise Conflict(f'"{name}" is a keyword of sets; choose another name')
            raise Conflict(f'a device is already named "{name}"; choose another name')

    @property
    def server(self) -> Device | None:
        """The entry of the server itself."""
        return self.by_name(SERVER_NAME)

    # -- changing --------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Call `observer` with the devices that change, whenever some do.

        Thousands may at once: what takes more than a moment for each is done later, in slices.
        """
        self._observers.append(observer)

    async def load(self) -> None:
        """Read the store; to be done once, first.

        A name that an older server took and that DNS does not is replaced.
        """
        misnamed: list[Device] = []

        def take(devices: Sequence[Device]) -> None:
            for device in devices:
                self._remember(device)
                if not is_device_name(device.name):
                    misnamed.append(device)
            self._count(devices, 1)

        await self._store.load(take)
        for device in misnamed:
            name = choose_name(device.name, device.type, device.mac, self.name_taken)
            _log.warn(
                "the device {old} is named {new} from now on: its name is not valid in DNS",
                old=device.name, new=name,
            )
            await self.put(replace(device, name=name))

    async def put(self, *devices: Device) -> None:
        """Add or replace devices; returns when they are stored.

        Raises Conflict when a name or an address belongs to another device, Unavailable
        when the database is away for so long that no more can wait for it.
        """
        self._check_room()
        for device in devices:
            self._check_unique(device)
        await self._changed(_Order([self._replace(device) for device in devices], acting.get()))

    async def forget(self, *devices: Device, keep_logs: bool = False) -> None:
        """Remove devices with all that refers to them; returns when stored.

        With `keep_logs` their log lines stay, as those of issuers that are gone. Raises
        Unavailable as `put` does.
        """
        self._check_room()
        changes = [Change(known, None) for device in devices if (known := self._drop(device))]
        await self._changed(_Order(
            changes, acting.get(),
            {device.mac: device.name for device in devices} if keep_logs else {},
        ))

    def _check_room(self) -> None:
        if self._size >= self._most_waiting:
            raise Unavailable(
                "the database does not answer, and too many changes of devices wait for it"
                " already; try again later"
            )

    def _check_unique(self, device: Device) -> None:
        owner = self._by_name.get(device.name)
        if owner not in (None, device.mac):
            raise Conflict(f'a device is already named "{device.name}"')
        holder = self._by_ip.get(device.ip) if device.ip else None
        if holder not in (None, device.mac):
            raise Conflict(f"{device.ip} is the address of another device")

    def _replace(self, device: Device) -> Change:
        """Have a device in place of what was known of it."""
        old = self._by_mac.get(device.mac)
        if old is not None and (old.name, old.ip, old.type, old.vpn_mac) == (
            device.name, device.ip, device.type, device.vpn_mac
        ):
            self._by_mac[device.mac] = device  # it is found by the same
        else:
            if old is not None:
                self._drop(old)
            self._remember(device)
        return Change(old, device)

    def _remember(self, device: Device) -> None:
        self._by_mac[device.mac] = device
        self._by_name[device.name] = device.mac
        self._folded[_folded(device.name)] += 1
        if device.ip:
            self._by_ip[device.ip] = device.mac
        if device.vpn_mac:
            self._by_vpn_mac[device.vpn_mac] = device.mac

    def _drop(self, device: Device) -> Device | None:
        """Have nothing of a device; return what was known of it."""
        known = self._by_mac.pop(device.mac, None)
        if known is None:
            return None
        device = known
        self._by_name.pop(device.name, None)
        folded = _folded(device.name)
        self._folded[folded] -= 1
        if not self._folded[folded]:
            del self._folded[folded]
        if device.ip:
            self._by_ip.pop(device.ip, None)
        if device.vpn_mac:
            self._by_vpn_mac.pop(device.vpn_mac, None)
        return device

    def _count(self, devices: Iterable[Device | None], sign: int) -> None:
        """Keep account of devices that come or go: of thousands, few kinds."""
        kinds = Counter(
            (device.type, device.image, device.model) for device in devices if device is not None
        )
        for (kind, image, model), number in kinds.items():
            self._of_type[kind] += sign * number
            for counts, value in ((self._images, image), (self._models, model)):
                if kind == "node" and value:
                    counts[value] += sign * number
                    if not counts[value]:
                        del counts[value]

    def _changed(self, order: _Order) -> Deferred[None]:
        # Those that come first: what they have in common with others is never gone meanwhile.
        self._count((change.new for change in order.changes), 1)
        self._count((change.old for change in order.changes), -1)
        self._orders.append(order)
        self._size += len(order.changes)
        for observer in self._observers:
            observer(order.changes)
        if not self._writing:
            self._writing = True
            spawn(self._write(), "writing devices to the database")
        return order.stored

    async def _write(self) -> None:
        try:
            while self._orders:
                orders, self._orders = self._orders, []
                await self._store_all(orders)
        finally:
            self._writing = False

    async def _store_all(self, orders: Sequence[_Order]) -> None:
        """Store what several calls changed, in their order: together, or those that can be."""
        try:
            await self._save(orders)
        except Exception as error:
            if len(orders) > 1:
                # One call whose devices the store refuses must not take the others with it.
                half = len(orders) // 2
                await self._store_all(orders[:half])
                await self._store_all(orders[half:])
                return
            self._size -= len(orders[0].changes)
            orders[0].end(error)
        else:
            for order in orders:
                self._size -= len(order.changes)
                order.end()

    async def _save(self, orders: Sequence[_Order]) -> None:
        devices: dict[str, Device | None] = {}
        former: dict[str, str] = {}
        for order in orders:
            known = order.devices
            devices |= known
            for mac in known if former else ():
                former.pop(mac, None)
            former |= order.former
        kept = {mac: device for mac, device in devices.items() if device is not None}
        gone = devices.keys() - kept.keys()

        def facts(macs: Container[str]) -> Iterator[Fact]:
            for order in orders:
                yield from order.facts(macs)

        while True:
            try:
                if gone:
                    names = {mac: former[mac] for mac in gone if mac in former}
                    await self._store.forget(list(gone), names, facts(gone))
                if kept:
                    await self._store.save(list(kept.values()), facts(kept))
                return
            except Unavailable as error:
                # The database comes back (restarted child, fail-over): nothing is lost.
                _log.warn("devices wait for the database: {error}", error=error)


def _folded(name: str) -> str:
    """Return a name in small letters: itself, where it is, so that thousands are not kept twice."""
    folded = name.lower()
    return name if folded == name else folded


def by_name(devices: Iterable[Device]) -> list[Device]:
    """Return devices sorted by name."""
    return sorted(devices, key=lambda device: device.name)
