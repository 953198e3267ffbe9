"""What has to be in the tree of node directories, as pure values (spec server §1.3).

Paths are relative to the tree (`<state-dir>/nodes`). A MAC names the real
directory of a node; the MAC with dashes, the address and the name are links.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from itertools import islice, takewhile
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar, cast

from walt.common.names import is_device_name, is_mac, is_model, is_user_name
from walt.server.domain.devices.derived import Change as DeviceChange
from walt.server.domain.devices.derived import Followed
from walt.server.domain.devices.model import Device
from walt.server.domain.network.addresses import AddressPlan, address_number

PROBING = "probing"
STATIC = "../../tftp-static"
FORBIDDEN = "forbidden_dir"
# Prefix length: of a wider network, not all free addresses have links, but those that were offered.
WIDEST_PROBING = 20
MOST_OFFERED = 4096  # addresses; the first ones are forgotten
# Kept when a tree is reset, and moved when a layout is obsolete.
PRESERVED = frozenset({"persist_dirs", "persist_dir", "volumes", "disks", "networks"})
AT_ONCE = 256  # parts, a handful of links each, that are looked at between two pauses
_IMAGE_ID = re.compile(r"[0-9a-f]{12,64}")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_T = TypeVar("_T")


class BootTree(NamedTuple):
    """The wanted directories and links.

    `dirs` disappear with all they hold when they are not wanted any more;
    `kept` are only ever created (persistent data); `owners` gives the owner to
    whom an obsolete persistent directory of a node is moved.
    """

    dirs: frozenset[str] = frozenset()
    links: Mapping[str, str] = _NOTHING
    kept: frozenset[str] = frozenset()
    owners: Mapping[str, str] = _NOTHING

    @property
    def tree(self) -> BootTree:
        """Itself; see Part."""
        return self

    @property
    def parts(self) -> Mapping[str, Part]:
        """It alone; see JoinedTree."""
        return {"": self}

    def beside(self, other: BootTree | JoinedTree) -> Iterator[Part]:
        """Yield itself; see JoinedTree."""
        yield self

    def at(self, name: str) -> BootTree:
        """Return the part that a directory of this name belongs to."""
        return self


class Part(Protocol):
    """What a part of a tree is made from: thousands of trees would take much more memory.

    Parts that are equal have the same tree.
    """

    @property
    def tree(self) -> BootTree:
        """Return the tree, made anew each time."""

    @property
    def dirs(self) -> frozenset[str]:
        """Return the directories of the tree, which is not made for them."""


class LastChanges:
    """Names in the order of their last changes: the latest are found without a look at all."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # of their changes, the last one at the end
        self.number = 0  # of the last change

    def note(self, name: str) -> None:
        """Take a change."""
        self.number += 1
        self._numbers.pop(name, None)
        self._numbers[name] = self.number

    def after(self, number: int) -> list[str]:
        """Return the names that changed after the change of this number."""
        return list(takewhile(lambda name: self._numbers[name] > number, reversed(self._numbers)))


class JoinedTree:
    """A tree of `parts`, which share no link or directory.

    A part has the name of its directory, that of all others is empty. Trees that follow each
    other share `changes`: a part that did not change is the same object in both.
    """

    def __init__(self, parts: Mapping[str, Part], changes: LastChanges) -> None:
        self.parts = parts
        self._changes, self._number = changes, changes.number

    def beside(self, other: BootTree | JoinedTree) -> Iterator[Part]:
        """Yield the parts that are not the same in another tree."""
        names: Iterable[str] = self.parts
        if isinstance(other, JoinedTree) and other._changes is self._changes:
            names = self._changes.after(min(self._number, other._number))
        for name in names:
            part, former = self.parts.get(name), other.parts.get(name)
            if part is not None and former is not part and former != part:
                yield part

    @property
    def whole(self) -> BootTree:
        """The same as one tree."""
        return _at_once(_joined(self.parts.values()))

    def at(self, name: str) -> BootTree:
        """Return the part that a directory of this name belongs to."""
        part = self.parts.get(name, self.parts.get(""))
        return BootTree() if part is None else part.tree


def _at_once(steps: Generator[None, None, _T]) -> _T:
    """Return what comes of some steps, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(_T, end.value)


def _joined(parts: Iterable[Part]) -> Generator[None, None, BootTree]:
    dirs: set[str] = set()
    kept: set[str] = set()
    links: dict[str, str] = {}
    owners: dict[str, str] = {}
    for count, part in enumerate(parts, 1):
        if count % AT_ONCE == 0:
            yield
        tree = part.tree
        dirs |= tree.dirs
        kept |= tree.kept
        links.update(tree.links)
        owners.update(tree.owners)
    yield
    return BootTree(frozenset(dirs), links, frozenset(kept), owners)


@dataclass(frozen=True)
class Change:
    """How to get from one tree to another, in the order of the fields."""

    drop_links: tuple[str, ...] = ()
    drop_dirs: tuple[str, ...] = ()
    make_dirs: tuple[str, ...] = ()
    set_links: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drop_links or self.drop_dirs or self.make_dirs or self.set_links)


def all_probing(interface: IPv4Interface) -> bool:
    """Tell whether all free addresses of this network get links (design §8, Loader)."""
    return interface.network.prefixlen >= WIDEST_PROBING


def _node_links(
    device: Device, owner: str | None, image_id: str | None, stopping: bool
) -> dict[str, str]:
    """Return the links of a node; `owner` is a person who has persistent data."""
    mac = device.mac
    links = {}
    mounted = (
        image_id is not None and _IMAGE_ID.fullmatch(image_id) is not None
        and device.model is not None and is_model(device.model)
    )
    if mounted:
        links[f"{mac}/fs"] = f"../../images/{image_id}/fs"
    if mounted and not stopping:
        links[f"{mac}/tftp"] = f"../../images/{image_id}/fs/boot/{device.model}"
    else:
        links[f"{mac}/tftp"] = STATIC  # boards loop there instead of hanging
    if owner is not None and device.conf.get("mount.persist", True):
        links[f"{mac}/persist"] = f"persist_dirs/{owner}"
    else:
        links[f"{mac}/persist"] = FORBIDDEN  # never exists: the mount fails on the node
    return links


def _aliases(device: Device, target: str, hidden: bool) -> dict[str, str]:
    """Return the aliases of a device; `hidden`: its name is that of another link."""
    links = {device.mac.replace(":", "-"): target}
    if device.ip is not None:
        links[device.ip] = target
    if target != device.mac:
        links[device.mac] = target
    if is_device_name(device.name) and device.name != PROBING and not hidden:
        links.setdefault(device.name, target)
    return links


class _DevicePart(NamedTuple):
    """A device, and what its part depends on besides."""

    device: Device
    image_id: str | None
    stopping: bool
    hidden: bool

    @property
    def dirs(self) -> frozenset[str]:
        """Its directory, if it is a node."""
        return frozenset((self.device.mac,) if self.device.is_node else ())

    @property
    def tree(self) -> BootTree:
        """Its directory, if it is a node, and its links."""
        if not self.device.is_node:
            return BootTree(links=_aliases(self.device, PROBING, self.hidden))
        return _node_tree(self)


def _node_tree(part: _DevicePart) -> BootTree:
    device = part.device
    mac = device.mac
    links = _aliases(device, mac, part.hidden)
    owner = device.owner
    if owner is not None and not is_user_name(owner):
        owner = None
    links.update(_node_links(device, owner, part.image_id, part.stopping))
    if owner is None:
        return BootTree(part.dirs, links, frozenset((f"{mac}/persist_dirs",)))
    kept = frozenset((f"{mac}/persist_dirs", f"{mac}/persist_dirs/{owner}"))
    return BootTree(part.dirs, links, kept, {mac: owner})


class BootLinks:
    """The wanted tree, changed by the devices that changed, and by images mounted.

    The parts of devices are made anew where a device was replaced, or its image mounted, or
    where its name is a link of another device.
    """

    def __init__(self, interface: IPv4Interface) -> None:
        self._interface = interface
        empty = AddressPlan(interface, ())
        self._first, self._last = empty.first, empty.last
        self._devices: dict[str, Device] = {}
        self._of_image: dict[str, set[str]] = {}  # MACs
        self._dashed: dict[str, set[str]] = {}  # MACs of those that are called like a MAC
        self._stale: set[str] = set()  # MACs of those whose parts are to be made
        self._mounts: Mapping[str, str] = {}
        self._stopping = False
        self._parts: dict[str, _DevicePart] = {}
        self._used: Counter[str] = Counter()  # addresses
        self._offered: dict[str, None] = {}  # addresses, the latest last
        self._free: tuple[frozenset[str], BootTree] | None = None
        self._changes = LastChanges()

    def change(self, changes: Collection[DeviceChange]) -> None:
        """Take devices that changed."""
        for change in changes:
            if change.old is not None:
                self._drop(change.old)
        for change in changes:
            if change.new is not None:
                self._add(change.new)
            self._stale.add(change.mac)
            # Its links hide the name of another device, or do so no more.
            self._stale.update(self._dashed.get(change.mac, ()))

    def offer(self, ip: str) -> bool:
        """Take an address that a board was offered; tell whether it needs a link of its own.

        Firmware of Raspberry Pis asks for files from there, and for the address never
        (spec node-protocols §3.3).
        """
        number = address_number(ip)
        if number is None or not self._first <= number <= self._last:
            return False
        if all_probing(self._interface) or ip in self._used or ip == str(self._interface.ip):
            return False
        known = ip in self._offered
        self._offered.pop(ip, None)
        self._offered[ip] = None
        while len(self._offered) > MOST_OFFERED:
            del self._offered[next(iter(self._offered))]
        return not known

    def _drop(self, device: Device) -> None:
        del self._devices[device.mac]
        if device.ip is not None:
            self._used[device.ip] -= 1
            if not self._used[device.ip]:
                del self._used[device.ip]
        for groups, key in self._groups(device):
            groups[key].discard(device.mac)
            if not groups[key]:
                del groups[key]

    def _add(self, device: Device) -> None:
        self._devices[device.mac] = device
        if device.ip is not None:
            self._used[device.ip] += 1
        for groups, key in self._groups(device):
            groups.setdefault(key, set()).add(device.mac)

    def _groups(self, device: Device) -> Iterator[tuple[dict[str, set[str]], str]]:
        if device.image is not None:
            yield self._of_image, device.image
        if device.name[2:3] == "-":
            yield self._dashed, device.name.replace("-", ":")

    def _part(self, device: Device) -> _DevicePart | None:
        """Return the part of a device, None when it boots nothing of ours."""
        number = address_number(device.ip) if device.ip is not None else None
        if number is None or not self._first <= number <= self._last or not is_mac(device.mac):
            return None
        if not device.is_node and not (device.type == "unknown" and device.is_raspberry_pi):
            return None
        return _DevicePart(
            device, self._mounts.get(device.image or ""), self._stopping,
            device.name[2:3] == "-" and device.name.replace("-", ":") in self._devices,
        )

    def tree(self, mounts: Mapping[str, str], *, stopping: bool = False) -> JoinedTree:
        """Return what `boot_tree` returns, in parts."""
        for _ in self.derive(mounts, stopping=stopping):
            pass
        free = self._free_part()
        return JoinedTree({"": free, **self._parts}, self._changes)

    def derive(self, mounts: Mapping[str, str], *, stopping: bool = False) -> Iterator[None]:
        """Make the parts that `tree` lacks, one at each step: who iterates may pause."""
        if stopping != self._stopping:
            self._stale.update(self._devices)
        before, self._mounts, self._stopping = self._mounts, dict(mounts), stopping
        for image in before.keys() | mounts.keys():
            if before.get(image) != mounts.get(image):
                self._stale.update(self._of_image.get(image, ()))
        while self._stale:
            mac = self._stale.pop()
            device = self._devices.get(mac)
            part = None if device is None else self._part(device)
            if part != self._parts.get(mac):
                self._changes.note(mac)
                if part is None:
                    del self._parts[mac]
                else:
                    self._parts[mac] = part
            yield

    def _free_part(self) -> BootTree:
        every = all_probing(self._interface)
        # What the links depend on: addresses in use, or those that were offered and are free.
        basis = frozenset(self._used) if every else frozenset(
            ip for ip in self._offered if ip not in self._used
        )
        if self._free is None or self._free[0] != basis:
            free = AddressPlan(self._interface, basis).free_addresses() if every else basis
            links = {f"{PROBING}/tftp": STATIC, **dict.fromkeys(free, PROBING)}
            self._free = basis, BootTree(frozenset({PROBING}), links)
            self._changes.note("")
        return self._free[1]


def boot_tree(
    interface: IPv4Interface, devices: Iterable[Device], mounts: Mapping[str, str], *,
    stopping: bool = False,
) -> BootTree:
    """Return the wanted tree.

    `mounts` gives the id of each mounted image by its full name; `stopping`
    is true at an orderly stop of the server (boards then loop on tftp-static).
    """
    links = BootLinks(interface)
    links.change(Followed().look(devices))
    return links.tree(mounts, stopping=stopping).whole


def changes(old: BootTree | JoinedTree, new: BootTree | JoinedTree) -> Change:
    """Return what `difference` returns for the whole trees, looking at what changed alone."""
    return _at_once(comparing(old, new))


def comparing(
    old: BootTree | JoinedTree, new: BootTree | JoinedTree
) -> Generator[None, None, Change]:
    """Find what `changes` returns, in steps: who iterates may pause."""
    before = yield from _joined(old.beside(new))
    after = yield from _joined(new.beside(old))
    change = yield from _differing(before, after)
    for tree in (before, after):
        yield from let_go(cast("dict[str, str]", tree.links))
    return change


def let_go(links: dict[str, str]) -> Generator[None, None, None]:
    """Empty links that nobody needs any more, in steps: to free thousands at once takes long."""
    while links:
        for _ in range(min(len(links), 8 * AT_ONCE)):
            links.popitem()
        yield


def difference(old: BootTree, new: BootTree) -> Change:
    """Return what to do when the disk holds `old` and `new` is wanted.

    Links go before directories, directories come before links; a link that
    only changes its target is replaced, never absent.
    """
    return _at_once(_differing(old, new))


def _differing(old: BootTree, new: BootTree) -> Generator[None, None, Change]:
    gone = old.dirs - new.dirs
    yield
    dropped = []
    for count, link in enumerate(old.links, 1):
        if count % (8 * AT_ONCE) == 0:
            yield
        if link not in new.links and ("/" not in link or link.split("/", 1)[0] not in gone):
            dropped.append(link)
    yield
    made = (*sorted(new.dirs - old.dirs), *sorted(new.kept - old.kept))
    yield
    links, changed = iter(new.links.items()), list[tuple[str, str]]()
    while some := list(islice(links, 8 * AT_ONCE)):
        changed += sorted(link for link in some if old.links.get(link[0]) != link[1])
        yield
    return Change(tuple(sorted(dropped)), tuple(sorted(gone)), made, tuple(changed))
