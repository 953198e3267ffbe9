"""How far the boot of each node has come, and whether that is late (docs/limits.md)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from heapq import merge
from operator import attrgetter
from typing import Literal

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.common.errors import LimitExceeded
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.events import Source
from walt.server.domain.nodes.boots import Boot, Outcome, Stage
from walt.server.domain.nodes.interfaces import IBoots
from walt.server.domain.nodes.monitor import LATE_BOOT, POWERSAVE
from walt.server.runtime.coroutines import insist, spawn
from walt.server.runtime.slicing import slices

_log = Logger()

COMPARED = 10  # boots of a node with an image
LOADED = 20  # boots of a node, after the start of the server
READ_AT_ONCE = 2000  # boots that are read in one turn of the reactor
MOST_TOLD = 20_000  # boots in one answer (docs/limits.md)
SAVED_AT_ONCE = 250  # boots in one statement, which is made in one turn of the reactor
MANY_TRIES = 2
LATE_FACTOR, LATE_MARGIN = 1.5, 5.0  # more than the longest of them
CHAINED = 60.0  # seconds in which firmware, and the boot loader it fetches, ask for an address
# Seconds: dhcpd's lines and requests come by ways of their own, and dhcpd answers each request that
# a client repeats. No firmware starts again as fast.
OVERTAKEN = 5.0
LONGEST = 86400.0  # seconds; what takes longer was no boot
ROOT_LINE = "Starting up."  # of the stream walt-init: the root file system is mounted
HANDOVER = "Handing"  # the start of its last line: the system of the image starts

NAMES = {
    Stage.STARTED: "started", Stage.ADDRESS: "DHCP done", Stage.SCRIPT: "boot script fetched",
    Stage.KERNEL: "fetching the kernel", Stage.ROOT: "root mounted",
    Stage.SYSTEM: "its system is starting",
}

ONCE = (Stage.ADDRESS, Stage.SCRIPT, Stage.ROOT)  # in one boot


State = Literal["booted", "booting", "failed", "off"]


def state_of(booted: bool, stage: str | None, failure: str | None) -> State:
    """Return what a node does, of what is known of its boot."""
    if booted:
        return "booted"
    if stage is not None:
        return "booting"
    return "failed" if failure is not None else "off"


class BootProgress:
    """Follows boots by what nodes ask for and log; keeps a record of each in `store`.

    `clock` gives epoch seconds, `is_booted` tells whether a node, by MAC, is booted, `digest`
    that of an image by its full name. `changed` tells the MAC of a node whose boot went on. One
    answer has `most_told` boots at most.
    """

    def __init__(
        self, clock: IReactorTime, registry: DeviceRegistry, store: IBoots,
        is_booted: Callable[[str], bool], digest: Callable[[str], str | None],
        *, most_told: int = MOST_TOLD,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._store = store
        self._is_booted = is_booted
        self._digest = digest
        self._most_told = most_told
        self._boots: dict[str, Boot] = {}  # those under way, by MAC
        # How long boots took, the last ones: of each node, by MAC, with each image.
        self._times: dict[str, Mapping[str, array[float]]] = {}
        # And of all nodes of a kind, for those that never booted this image.
        self._of_kind: dict[tuple[str, str, bool], array[float]] = {}
        self._began = clock.seconds()
        self._unsaved: dict[tuple[str, float], Boot] = {}
        self._saving = False
        self._failures: dict[str, str] = {}  # why nothing is done any more for a node, by MAC
        self.changed: Source[str] = Source()

    async def load(self) -> None:
        """Take over the boots that were under way."""
        self._began = self._clock.seconds()
        for boot in await self._store.unfinished():
            if self._registry.get(boot.mac) is not None and not self._is_booted(boot.mac):
                self._boots[boot.mac] = boot

    async def learn(self) -> None:
        """Learn how long boots took before the start: of thousands of nodes, some at a time."""
        nodes = sorted(self._registry.nodes(), key=attrgetter("mac"))
        kinds: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
        async for some in slices(self._clock, nodes, READ_AT_ONCE // LOADED):
            times: dict[tuple[str, str], list[float]] = {}
            for boot in await self._store.last_boots([node.mac for node in some], LOADED):
                device, seconds = self._registry.get(boot.mac), _comparable(boot)
                # What ended since the start is known.
                if device is None or seconds is None or self._ended_since(boot):
                    continue
                times.setdefault((boot.mac, boot.image or ""), []).append(seconds)
                key = _kind(device, boot)
                kinds[key] = sorted([*kinds.get(key, ()), (boot.asked, seconds)])[-COMPARED:]
            for (mac, image), before in times.items():
                known = self._times.get(mac, {})
                self._times[mac] = {**known, image: _last(before, known.get(image, ()))}
        for kind, found in kinds.items():
            before = [seconds for _, seconds in found]
            self._of_kind[kind] = _last(before, self._of_kind.get(kind, ()))

    def _ended_since(self, boot: Boot) -> bool:
        return boot.moments.get(Stage.READY, 0.0) > self._began

    def _compare_with(self, device: Device, boot: Boot) -> None:
        seconds, image, kind = _comparable(boot), boot.image or "", _kind(device, boot)
        if seconds is not None:
            known = self._times.get(boot.mac, {})
            self._times[boot.mac] = {**known, image: _last(known.get(image, ()), (seconds,))}
            self._of_kind[kind] = _last(self._of_kind.get(kind, ()), (seconds,))

    def _save(self, boot: Boot) -> None:
        self.changed.tell(boot.mac)
        self._unsaved[boot.mac, boot.asked] = boot
        if not self._saving:
            self._saving = True
            spawn(self._save_all(), "recording boots")

    async def _save_all(self) -> None:
        try:
            while self._unsaved:
                boots, self._unsaved = self._unsaved, {}
                await self._save_some([*boots.values()])
        finally:
            self._saving = False

    async def _save_some(self, boots: Sequence[Boot]) -> None:
        """Save records together, or those that the store takes."""
        # They are taken from the end: the first ones last.
        waiting = [
            boots[start:start + SAVED_AT_ONCE]
            for start in reversed(range(0, len(boots), SAVED_AT_ONCE))
        ]
        while waiting:
            some = waiting.pop()
            try:
                await insist(
                    self._clock, partial(self._store.save_boots, some), "recording boots"
                )
            except Exception:
                if len(some) == 1:
                    _log.failure("the record of a boot of {node} is lost", node=some[0].node)
                    continue
                # One record that the store refuses must not take the others with it.
                half = len(some) // 2
                waiting += [some[half:], some[:half]]

    # -- what is known -----------------------------------------------------

    def started(self, device: Device, cause: str | None = None) -> None:
        """A node is about to boot: its machine starts, or it was told to reboot.

        The same start may be told twice: by who asked for it, and by the machine that starts.
        """
        boot, now = self._boots.get(device.mac), self._clock.seconds()
        if boot is None:
            boot = self._begin(device, Stage.STARTED, cause)
        elif cause == LATE_BOOT or (cause is None and boot.stage > Stage.STARTED):
            boot.try_again(Stage.STARTED, now)
        elif boot.stage is Stage.STARTED and (cause is None or boot.cause in (None, cause)):
            boot.cause = boot.cause or cause
            boot.moments[Stage.STARTED] = now
        else:
            boot = self._begin(device, Stage.STARTED, cause)
        self._save(boot)

    def _begin(self, device: Device, stage: Stage, cause: str | None = None) -> Boot:
        now = self._clock.seconds()
        before = self._boots.get(device.mac)
        if before is not None:
            self._end(before, Outcome.INTERRUPTED, cause)
        boot = Boot(device.mac, now, device.name, cause=cause, moments={stage: now})
        self._take_image(device, boot)
        self._boots[device.mac] = boot
        self._failures.pop(device.mac, None)
        return boot

    def _take_image(self, device: Device, boot: Boot) -> None:
        boot.image = device.image
        boot.digest = self._digest(device.image) if device.image is not None else None

    def _end(self, boot: Boot, outcome: Outcome, reason: str | None = None) -> None:
        self._boots.pop(boot.mac, None)
        boot.outcome, boot.reason = outcome, reason
        self._save(boot)

    def reached(self, mac: str, stage: Stage) -> None:
        """A node got this far. One that comes to a stage again, or to an earlier one, restarted."""
        device = self._registry.get(mac)
        if device is None or not device.is_node or self._is_booted(device.mac):
            return
        boot, now = self._boots.get(device.mac), self._clock.seconds()
        if boot is None:
            boot = self._begin(device, stage)
        elif stage == Stage.ADDRESS and boot.stage >= Stage.ROOT:
            return  # the system of the image asks, too
        elif stage == Stage.ADDRESS == boot.stage and now - boot.moments[stage] < CHAINED:
            return
        elif (later := boot.next_after(stage)) is not None and now - later < OVERTAKEN:
            if stage in boot.moments:
                return
            boot.moments[stage] = later  # at the latest
        elif stage < boot.stage or (stage == boot.stage and stage in ONCE):
            boot.try_again(stage, now)
        elif stage in boot.moments:
            return
        else:
            boot.moments[stage] = now
        if stage <= Stage.SCRIPT:
            self._take_image(device, boot)  # it may have changed since
        self._save(boot)

    def got_address(self, mac: str) -> None:
        """A client got its address: this may be the boot of a node."""
        self.reached(mac, Stage.ADDRESS)

    def boot_file(self, ip: str, path: str) -> None:
        """A node fetched a boot file by HTTP."""
        device = self._registry.by_ip(ip)
        if device is not None:
            script = path.lstrip("/").endswith(".ipxe")
            self.reached(device.mac, Stage.SCRIPT if script else Stage.KERNEL)

    def init_lines(self, mac: str, text: str) -> None:
        """A node logged lines of its first program."""
        for line in text.split("\n"):
            if line == ROOT_LINE:
                self.reached(mac, Stage.ROOT)
            elif line.startswith(HANDOVER):
                self.reached(mac, Stage.SYSTEM)

    def on_status(self, mac: str, booted: bool, cause: str | None) -> None:
        """A node was booted, or went down."""
        device = self._registry.get(mac)
        if device is None:
            return
        if not booted:
            if cause != POWERSAVE:
                self.started(device, cause)
            return
        self._failures.pop(mac, None)
        boot = self._boots.get(mac)
        if boot is None:
            return
        boot.moments[Stage.READY] = self._clock.seconds()
        self._compare_with(device, boot)
        self._end(boot, Outcome.BOOTED)

    def gave_up(self, mac: str, reason: str | None) -> None:
        """Nothing is done any more to make a node boot; without a reason, something is."""
        if reason is None:
            self._failures.pop(mac, None)
            self.changed.tell(mac)
            return
        self._failures[mac] = reason
        boot = self._boots.get(mac)
        if boot is not None:
            self._end(boot, Outcome.FAILED, reason)

    def forget(self, mac: str) -> None:
        """A node was removed."""
        self._boots.pop(mac, None)
        self._failures.pop(mac, None)
        self._times.pop(mac, None)
        self.changed.tell(mac)

    # -- what is told --------------------------------------------------------

    async def history(
        self, nodes: Sequence[Device], count: int, most: int | None = None
    ) -> Iterable[Boot]:
        """Return the last boots of each of some nodes, `count` at most, oldest first.

        Of all those it is the last `most` ones, READ_AT_ONCE at most. Raises LimitExceeded when
        without `most` there are more than one answer has.
        """
        if most is not None:
            macs = [node.mac for node in nodes]
            return await self._store.last_boots(macs, count, min(most, READ_AT_ONCE))
        found: list[Sequence[Boot]] = []
        async for some in slices(self._clock, nodes, max(1, READ_AT_ONCE // count)):
            found.append(await self._store.last_boots([node.mac for node in some], count))
            if sum(map(len, found)) > self._most_told:
                raise LimitExceeded(
                    f"there are more than {self._most_told} records of boots; ask for those of"
                    " fewer nodes, or for fewer of each"
                )
        return merge(*found, key=attrgetter("asked", "mac"))

    def stage(self, mac: str) -> str | None:
        """Return in words how far a node has come, None when nothing is known."""
        boot = self._boots.get(mac)
        return NAMES[boot.stage] if boot is not None else None

    def failure(self, mac: str) -> str | None:
        """Return why nothing is done any more to make a node boot, None when something is."""
        return self._failures.get(mac)

    def summary(self, names: Mapping[str, str]) -> str:
        """Return how far these nodes (names by MAC) have come, in a few words."""
        stages = [boot.stage for mac in names if (boot := self._boots.get(mac)) is not None]
        if len(names) == 1:
            return NAMES[stages[0]] if stages else ""
        return ", ".join(
            f"{stages.count(stage)} {NAMES[stage]}" for stage in sorted(set(stages))
        )

    def late(self, mac: str) -> str | None:
        """Return a sentence when a node takes much longer than it did before, or begins again and
        again; else None.
        """
        device, boot = self._registry.get(mac), self._boots.get(mac)
        if device is None or boot is None:
            return None
        if boot.tries > MANY_TRIES:
            return (
                f"Node {device.name} began to boot {boot.tries} times, and is not ready: its last"
                f" try has reached: {NAMES[boot.stage]}. Its console may tell why:"
                f" walt log show --consoles --issuers {device.name} --history -5m:"
            )
        before = self._before(device)
        elapsed = self._clock.seconds() - boot.began
        if not before or elapsed <= LATE_FACTOR * max(before) + LATE_MARGIN:
            return None
        boots = "boot" if len(before) == 1 else f"{len(before)} boots"
        return (
            f"Node {device.name} is late: it started {elapsed:.0f} s ago, and the last {boots} with"
            f" this image took {max(before):.0f} s at most. It has reached: {NAMES[boot.stage]}."
        )

    def _before(self, device: Device) -> Sequence[float]:
        """Return how long boots took: of this node, else of others of its model."""
        image = device.image or ""
        kind = image, device.model or "", device.virtual
        own = self._times.get(device.mac, {}).get(image)
        return own if own is not None else self._of_kind.get(kind, ())


def _comparable(boot: Boot) -> float | None:
    """Return how long a boot took, None unless others can be compared with it."""
    seconds = boot.seconds()
    return seconds if boot.image and seconds is not None and 0 < seconds < LONGEST else None


def _kind(device: Device, boot: Boot) -> tuple[str, str, bool]:
    return boot.image or "", device.model or "", device.virtual


def _last(before: Iterable[float], after: Iterable[float]) -> array[float]:
    # Four bytes each: there may be those of thousands of nodes.
    return array("f", [*before, *after][-COMPARED:])
