"""How far the boot of each node has come, and whether that is late (docs/limits.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.ports import IBootTimes
from walt.server.runtime.ordered import spawn

KEPT = 10  # boots remembered of a node with an image
LATE_FACTOR, LATE_MARGIN = 1.5, 5.0  # more than the longest of them
LONGEST = 86400.0  # seconds; what takes longer was no boot
ROOT_LINE = "Starting up."  # of the stream walt-init: the root file system is mounted
HANDOVER = "Handing"  # the start of its last line: the system of the image starts


class Stage(IntEnum):
    """Stages of a boot, in their order, as far as the server can know them."""

    STARTED = 0
    ADDRESS = 1
    SCRIPT = 2
    KERNEL = 3
    ROOT = 4
    SYSTEM = 5


NAMES = {
    Stage.STARTED: "started", Stage.ADDRESS: "DHCP done", Stage.SCRIPT: "boot script fetched",
    Stage.KERNEL: "fetching the kernel", Stage.ROOT: "root mounted",
    Stage.SYSTEM: "its system is starting",
}

ONCE = (Stage.ADDRESS, Stage.SCRIPT, Stage.ROOT)  # in one boot


@dataclass
class _Boot:
    start: float
    stage: Stage


class BootProgress:
    """Follows boots by what nodes ask for and log; remembers how long they took.

    `clock` gives seconds, `is_booted` tells whether a node, by MAC, is booted.
    """

    def __init__(
        self, clock: IReactorTime, registry: DeviceRegistry, store: IBootTimes,
        is_booted: Callable[[str], bool],
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._store = store
        self._is_booted = is_booted
        self._boots: dict[str, _Boot] = {}
        self._times: dict[tuple[str, str], list[float]] = {}
        # The last ones of all nodes of a kind, for those that never booted this image.
        self._of_kind: dict[tuple[str, str, bool], deque[float]] = {}

    async def load(self) -> None:
        """Take over what a former server remembered."""
        for (mac, image), seconds in (await self._store.load_boot_times()).items():
            self._times[mac, image] = list(seconds)[-KEPT:]
            device = self._registry.get(mac)
            if device is not None:
                self._kind(device, image).extend(seconds)

    def _kind(self, device: Device, image: str) -> deque[float]:
        key = image, device.model or "", device.virtual
        return self._of_kind.setdefault(key, deque(maxlen=KEPT))

    # -- what is known -----------------------------------------------------

    def started(self, device: Device) -> None:
        """A node is about to boot: its machine starts, or it was told to reboot."""
        self._boots[device.mac] = _Boot(self._clock.seconds(), Stage.STARTED)

    def reached(self, mac: str, stage: Stage) -> None:
        """A node got this far. One that comes to a stage again, or to an earlier one, restarted."""
        device = self._registry.get(mac)
        if device is None or not device.is_node or self._is_booted(device.mac):
            return
        boot = self._boots.get(device.mac)
        if boot is not None and stage == Stage.ADDRESS and boot.stage >= Stage.ROOT:
            return  # the system of the image asks, too
        again = boot is not None and (
            stage < boot.stage or (stage == boot.stage and stage in ONCE)
        )
        if boot is None or again:
            self._boots[device.mac] = _Boot(self._clock.seconds(), stage)
        else:
            boot.stage = stage

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
            self.started(device)
            return
        boot = self._boots.pop(mac, None)
        if boot is None or device.image is None:
            return
        seconds = self._clock.seconds() - boot.start
        if 0 < seconds < LONGEST:
            times = self._times.setdefault((mac, device.image), [])
            times.append(seconds)
            del times[:-KEPT]
            self._kind(device, device.image).append(seconds)
            spawn(
                self._store.save_boot_times(mac, device.image, list(times)),
                "recording how long a boot took",
            )

    def forget(self, mac: str) -> None:
        """A node was removed."""
        self._boots.pop(mac, None)
        for key in [key for key in self._times if key[0] == mac]:
            del self._times[key]

    # -- what is told --------------------------------------------------------

    def stage(self, mac: str) -> str | None:
        """Return in words how far a node has come, None when nothing is known."""
        boot = self._boots.get(mac)
        return NAMES[boot.stage] if boot is not None else None

    def summary(self, names: Mapping[str, str]) -> str:
        """Return how far these nodes (names by MAC) have come, in a few words."""
        stages = [boot.stage for mac in names if (boot := self._boots.get(mac)) is not None]
        if len(names) == 1:
            return NAMES[stages[0]] if stages else ""
        return ", ".join(
            f"{stages.count(stage)} {NAMES[stage]}" for stage in sorted(set(stages))
        )

    def late(self, mac: str) -> str | None:
        """Return a sentence when a node takes much longer than it did before, else None."""
        device, boot = self._registry.get(mac), self._boots.get(mac)
        if device is None or boot is None:
            return None
        before = self._before(device)
        elapsed = self._clock.seconds() - boot.start
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
        own: Sequence[float] = self._times.get((device.mac, image), ())
        return own or self._of_kind.get(kind, ())
