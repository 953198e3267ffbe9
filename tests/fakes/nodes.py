"""Fakes of the interfaces of the nodes domain, and a platform made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.fakes.boots import FakeBoots
from tests.fakes.devices import FakeDeviceStore
from tests.fakes.images import FakeCatalog, FakeDefaults, FakeStore
from tests.fakes.log_store import FakeLogStore
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.model import StoredImage
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.interfaces import (
    INodeLink,
    INodePower,
    IPowerSaving,
    IProvisioning,
    IVirtualMachines,
)
from walt.server.domain.nodes.monitor import AT_ONCE as LATE_AT_ONCE
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reboot import BEGUN_AT_ONCE, PARALLEL_REQUESTS, Rebooter
from walt.server.domain.nodes.registration import MAX_UNKNOWN, Registration
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.runtime.workflow import Workflows

SERVER = Device("02:00:00:00:ff:01", "walt-server", "server", "192.168.1.1")
DEFAULT = "waltplatform/pc-x86-64-default:latest"


def stored(name: str, models: str = "pc-x86-64", digit: str = "a") -> StoredImage:
    """Return an image of a store."""
    return StoredImage(name, digit * 64, labels={"walt.node.models": models})


def node(number: int, image: str = DEFAULT, **options: Any) -> Device:
    """Return a node."""
    values: dict[str, Any] = {
        "mac": f"02:00:00:00:00:{number:02x}", "name": f"node-{number}", "type": "node",
        "ip": f"192.168.1.{number}", "model": "pc-x86-64", "image": image,
    }
    return Device(**{**values, **options})


@implementer(IPowerSaving)
class FakeSaving:
    """Keeps who was woken up and let go."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.gone: list[str] = []

    async def wake(self, nodes: Iterable[Device], requester: IRequester | None) -> None:
        self.woken += [one.name for one in nodes]

    async def let_go(self, device: Device, requester: IRequester | None) -> None:
        self.gone.append(device.name)


@implementer(INodeLink)
class FakeNodeLink:
    """Nodes that accept every request, but for the reasons in `refusals` (by address).

    `gate` holds every answer back, `slow` those of some addresses.
    """

    def __init__(self) -> None:
        self.refusals: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.gate: Deferred[None] = succeed(None)
        self.slow: dict[str, Deferred[None]] = {}

    async def request(self, ip: str, line: str) -> str | None:
        """Note a request and answer it."""
        self.requests.append((ip, line))
        await self.slow.get(ip, self.gate)
        return self.refusals.get(ip)


@implementer(INodePower)
class FakePower:
    """Ports that can be switched, but for those of `off_errors` and `on_errors` (by MAC).

    With a `refusal`, none can: it is the reason.
    """

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.reasons: dict[str, str] = {}
        self.off_errors: dict[str, str] = {}
        self.on_errors: dict[str, str] = {}
        self.events: list[str] = []

    async def off(self, macs: Collection[str], reason: str) -> Mapping[str, str]:
        """Switch nodes off."""
        if self.refusal:
            return dict.fromkeys(macs, self.refusal)
        for mac in sorted(set(macs) - self.off_errors.keys()):
            self.reasons[mac] = reason
            self.events.append(f"off {mac[-2:]}")
        return {mac: text for mac, text in self.off_errors.items() if mac in macs}

    async def on(self, macs: Collection[str]) -> Mapping[str, str]:
        """Switch nodes on."""
        if self.refusal:
            return dict.fromkeys(macs, self.refusal)
        for mac in sorted(set(macs) - self.on_errors.keys()):
            self.reasons.pop(mac, None)
            self.events.append(f"on {mac[-2:]}")
        return {mac: text for mac, text in self.on_errors.items() if mac in macs}

    def all_off(self) -> Collection[str]:
        """Return those that are off."""
        return self.reasons.keys()

    def is_off(self, mac: str) -> str | None:
        """Return why a port is off."""
        return self.reasons.get(mac)


@implementer(IVirtualMachines)
class FakeMachines:
    """The MACs of the machines that run."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.killed: list[str] = []

    def kill(self, mac: str) -> bool:
        """End a machine."""
        if mac not in self.running:
            return False
        self.killed.append(mac)
        return True


@implementer(IProvisioning)
class FakeProvisioning:
    """Everything is in step, unless `gate` says to wait."""

    def __init__(self) -> None:
        self.troubles: dict[str, str] = {}
        self.past: list[str] = []  # troubles of before
        self.gate: Deferred[None] = succeed(None)

    def lasting(self) -> dict[str, str]:
        """All troubles last."""
        return dict(self.troubles)

    def machine_trouble(self, mac: str, reason: str | None) -> None:
        """Note or forget one."""
        if reason is None:
            self.troubles.pop(mac, None)
        else:
            self.troubles[mac] = reason
            self.past.append(reason)

    async def settled(self) -> None:
        """Wait for the gate."""
        await self.gate

    async def network_settled(self) -> None:
        """Wait for the gate."""
        await self.gate


@implementer(IRequester)
class FakeRequester:
    """Remembers what it was told."""

    def __init__(self, username: str = "joe") -> None:
        self.username = username
        self.out: list[str] = []
        self.err: list[str] = []
        self.labels: list[str] = []
        self.at_the_end: list[Callable[[], object]] = []

    def stdout(self, text: str) -> None:
        """Note a line."""
        self.out.append(text)

    def stderr(self, text: str) -> None:
        """Note an error line."""
        self.err.append(text)

    def busy(self, label: str) -> None:
        """Note a label."""
        self.labels.append(label)

    def progress(self, text: str) -> None:
        """Note how a long task goes, as a label."""
        self.labels.append(text)

    def at_end(self, action: Callable[[], object]) -> None:
        """Keep what is to be done when the requester leaves."""
        self.at_the_end.append(action)


class FakePlatform:
    """The nodes domain over fakes, with a clock of its own."""

    def __init__(
        self, *images: StoredImage, download: Any = None, grace: float = 180.0,
        late_at_once: int = LATE_AT_ONCE, parallel: int = PARALLEL_REQUESTS,
        begun_at_once: int = BEGUN_AT_ONCE, most_unknown: int = MAX_UNKNOWN,
    ) -> None:
        self.clock = Clock()
        self.store = FakeDeviceStore(SERVER)
        self.registry = DeviceRegistry(self.store, IPv4Network("192.168.1.0/24"))
        self.log_store = FakeLogStore()
        self.logs = LogService(self.log_store, self.clock, lambda: 1e9 + self.clock.seconds())
        self.platform = PlatformLog(self.logs, lambda: SERVER.mac)
        self.status = BootStatus(
            self.registry, self.store, self.platform, self.clock, grace
        )
        self.image_store = FakeStore(*images)
        self.images = ImageService(
            self.image_store, FakeCatalog(),
            in_use=lambda: {node.image for node in self.registry.nodes() if node.image},
            node_models=lambda: {node.model for node in self.registry.nodes() if node.model},
        )
        self.defaults = FakeDefaults(self.images, download)
        self.workflows = Workflows(self.clock)
        self.link, self.power = FakeNodeLink(), FakePower()
        self.machines, self.provisioning = FakeMachines(), FakeProvisioning()
        self.late: list[list[str]] = []
        self.emulated: set[str] = set()
        self.monitor = BootMonitor(
            self.registry, self.status, self.platform, self.clock,
            lambda device: device.name in self.emulated, late_at_once,
        )
        self.monitor.late.observe(lambda late: self.late.append([one.name for one in late]))
        self.rebooter = Rebooter(
            self.workflows, self.status, self.link, self.power, self.machines,
            self.provisioning, self.monitor, self.platform, parallel, begun_at_once,
        )
        self.registration = Registration(
            self.registry, self.images, self.defaults, self.workflows, self.platform,
            self.monitor, most_unknown=most_unknown,
        )
        self.boots = FakeBoots(self.store.devices)
        self.progress = BootProgress(
            self.clock, self.registry, self.boots, self.status.is_booted, self.images.digest
        )
        self.monitor.begun.observe(self.progress.started)
        self.status.changed.observe(self.progress.on_status)
        self.nodes = NodeService(
            self.registry, self.images, self.status, self.monitor, self.rebooter, self.logs,
            self.link, self.platform, self.provisioning, self.progress, FakeSaving(), self.clock,
        )

    async def start(self) -> None:
        """Load devices, states and images."""
        await self.registry.load()
        await self.status.load()
        await self.images.refresh()

    async def lines(self, topic: str) -> list[str]:
        """Return the lines of a topic of the platform's log."""
        await self.logs.flush()
        return [
            one.line for one in self.log_store.lines if one.stream == f"platform.{topic}"
        ]
