"""Virtual nodes of this server (spec server §3.10, §4.9, §4.10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import Invalid, Unavailable, WaltError
from walt.common.machines import RANDOM_DELAY, MachineConfig, machine_config
from walt.common.names import default_image, image_fullname, short_image_name
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.interfaces import IDefaultImages
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.deeds import note_on_others
from walt.server.domain.nodes.interfaces import IProvisioning, IVirtualMachines
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.registration import describe
from walt.server.domain.nodes.removal import check_loss
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.domain.virtual.console import Console
from walt.server.domain.virtual.interfaces import IAddresses, IHypervisor
from walt.server.runtime.coroutines import shielded, unbroken

_log = Logger()

MODEL = "pc-x86-64"
PAUSE_AFTER_FAILURE = 2.0
SHORT_LIFE = 1.0  # seconds; a machine that ends before has failed: it is not tried at once
MANY_ENDS = 3  # of machines before the node was booted: it is not going to be
CONSOLE_STREAM = "virtualconsole"


def _stopped(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("the loop of a virtual node ended", failure)


class _Vm:
    """The endless life of one virtual node: delay, machine, end, again."""

    def __init__(self, service: VirtualNodes, mac: str) -> None:
        self._service = service
        self._mac = mac
        self._machine: Any = None
        self._stopping = False
        self._unwanted = False  # a hard reboot was asked for since the settings were read
        self._failed = False  # the last start; forgotten when a machine lives
        self._ends = 0  # of machines in a row, before the node was booted
        self.missing: str | None = None  # the boot file that it asked for last in vain
        self._console = service.console_of(mac)
        self._life: Deferred[None] = Deferred.fromCoroutine(self._live())
        self._life.addErrback(_stopped)

    async def _live(self) -> None:
        service = self._service
        while (device := service.registry.get(self._mac)) is not None and not self._stopping:
            try:
                delay = self._config(device).boot_delay
                if delay is None:
                    delay = service.chance.randint(*RANDOM_DELAY)
                _log.info("virtual node {name}: boots in {s} s", name=device.name, s=delay)
                await self._sleep(delay)
                await service.provisioning.network_settled()
                # Settings and names may have changed meanwhile.
                present = service.registry.get(self._mac)
                if present is None or self._stopping:
                    return
                self._unwanted = False
                self.missing = None
                boots = service.boots(self._mac)
                config = self._config(present)
                ended: Deferred[str] = Deferred()
                self._machine = await service.hypervisor.start(
                    config, self._console.received, ended.callback
                )
                started = service.clock.seconds()
                service.monitor.started(device)
                lives = service.clock.callLater(SHORT_LIFE, self._lives)
                if self._stopping or self._unwanted:
                    self._machine.kill()
                reason = await ended
                if lives.active():
                    lives.cancel()
                self._machine = None
                _log.info("virtual node {name}: {reason}", name=device.name, reason=reason)
                service.machine_ended(self._mac)
                life = service.clock.seconds() - started
                if not self._stopping:
                    if not self._unwanted:
                        self._judge(reason, life, service.boots(self._mac) > boots)
                    if life < SHORT_LIFE:
                        await self._sleep(PAUSE_AFTER_FAILURE)
            except WaltError as error:
                _log.error("virtual node {name}: {error}", name=device.name, error=error)
                self._fails(str(error))
                await self._sleep(PAUSE_AFTER_FAILURE)
            except CancelledError:
                raise
            except Exception as error:  # whatever it is, the node gets another machine
                _log.failure("the machine of virtual node {mac} could not be run", mac=self._mac)
                self._fails(f"the server failed: {error!r} (its log has more)")
                await self._sleep(PAUSE_AFTER_FAILURE)

    def _fails(self, reason: str) -> None:
        self._failed = True
        self._service.provisioning.machine_trouble(self._mac, reason)

    def _lives(self) -> None:
        if self._failed:
            self._failed = False
            self._service.provisioning.machine_trouble(self._mac, None)

    def _judge(self, reason: str, life: float, booted: bool) -> None:
        """Find out from the end of a machine whether the node can boot."""
        if booted:
            self._ends = 0
            return
        self._ends += 1
        if life < SHORT_LIFE:
            self._fails(reason)
        elif self.missing is not None and self._ends >= MANY_ENDS - 1:
            self._service.provisioning.machine_trouble(
                self._mac,
                f"it restarts again and again: its image has no boot file {self.missing!r}",
            )
        elif self._ends >= MANY_ENDS:
            self._service.provisioning.machine_trouble(
                self._mac, "it restarts again and again before it is booted; look at its console"
            )

    @staticmethod
    def _config(device: Device) -> MachineConfig:
        return machine_config(device.name, device.mac, device.model or MODEL, device.conf)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            waiting: Deferred[None] = deferLater(self._service.clock, seconds, lambda: None)
            await waiting

    def write(self, data: bytes) -> None:
        if self._machine is not None:
            self._machine.write(data)

    def kill(self) -> None:
        """End the machine; one that is about to start has settings of before."""
        self._unwanted = True
        self._ends = 0
        if self._machine is not None:
            self._machine.kill()

    async def stop(self) -> None:
        """End the machine for good; returns when it is gone."""
        self._stopping = True
        if self._machine is not None:
            self._machine.kill()
        else:
            self._life.cancel()
        await shielded(self._life)
        self._console.flush()


@implementer(IVirtualMachines)
class RunningMachines:
    """The machines of virtual nodes, by MAC; `begun` when those of all known nodes were begun."""

    def __init__(self) -> None:
        self.all: dict[str, _Vm] = {}
        self.begun = False

    def kill(self, mac: str) -> bool:
        """Hard reboot: end the machine, which starts again; False if there is none.

        While the server starts, one that is still to be begun has nothing of before.
        """
        vm = self.all.get(mac)
        if vm is not None:
            vm.kill()
        return vm is not None or not self.begun


class VirtualNodes:
    """Creates, runs and removes virtual nodes; `chance` spreads their boots."""

    def __init__(
        self, registry: DeviceRegistry, nodes: NodeService, status: BootStatus,
        monitor: BootMonitor, images: ImageService, defaults: IDefaultImages,
        provisioning: IProvisioning,
        hypervisor: IHypervisor, addresses: IAddresses, logs: LogService,
        platform: PlatformLog, clock: IReactorTime,
        give_image: Callable[[str, str], Awaitable[str]], chance: Random,
        machines: RunningMachines,
    ) -> None:
        self.registry = registry
        self.logs = logs
        self.monitor = monitor
        self.provisioning = provisioning
        self.hypervisor = hypervisor
        self.clock = clock
        self.chance = chance
        self._nodes = nodes
        self._status = status
        self._images = images
        self._defaults = defaults
        self._addresses = addresses
        self._platform = platform
        self._give_image = give_image
        self._machines = machines
        self._consoles: dict[str, Console] = {}
        status.changed.observe(self._on_status)

    def _on_status(self, mac: str, booted: bool, cause: str | None) -> None:
        if booted and mac in self._machines.all:
            self.provisioning.machine_trouble(mac, None)

    def boots(self, mac: str) -> int:
        """Return how many times a node was booted since the start of the server."""
        return self._status.boots(mac)

    def no_boot_file(self, ip: str, name: str) -> None:
        """A node asked for a boot file that is not there."""
        device = self.registry.by_ip(ip)
        vm = self._machines.all.get(device.mac) if device is not None else None
        if vm is not None:
            vm.missing = name[:200]

    # -- life of the platform --------------------------------------------

    def start_all(self) -> None:
        """Start every virtual node (at the start of the server)."""
        self._machines.begun = True
        for device in self.registry.nodes():
            if device.virtual:
                self._run(device.mac)

    async def stop_all(self) -> None:
        """End every machine, all at once; returns when they are gone."""
        vms = list(self._machines.all.values())
        self._machines.all.clear()
        stops = [Deferred.fromCoroutine(vm.stop()) for vm in vms]
        for stop in stops:
            await stop

    def _run(self, mac: str) -> None:
        # A node may be created while the server starts the known ones: one life is enough.
        if mac not in self._machines.all:
            self._machines.all[mac] = _Vm(self, mac)

    def machine_ended(self, mac: str) -> None:
        """The machine of a node is gone: the node is down until it boots again."""
        self._status.down(mac, "cause: unknown, note: the virtual machine ended")

    # -- what people do --------------------------------------------------

    async def create(self, name: str, requester: IRequester) -> None:
        """Create a node owned by the requester, booting its copy of the default image.

        Raises Invalid, Conflict (name taken, no address left), Unavailable (no image).
        """
        self.registry.check_new_name(name)
        await self._create(name, await self._image_for(requester), requester)

    @unbroken
    async def _create(self, name: str, image: str, requester: IRequester) -> None:
        device = Device(
            mac=self._addresses.new_mac(), name=name, type="node",
            ip=self._addresses.lowest_free_ip(), virtual=True, model=MODEL, image=image,
        )
        stored = self.registry.put(device)
        self._platform.write("devices", describe(device, previously_unknown=False))
        self._platform.deed("nodes", f"node {name}", "created", requester.username)
        self.monitor.started(device, "created")
        await stored
        self._run(device.mac)
        requester.stdout(f"Node {name} is now booting your image {short_image_name(image)}.")
        requester.stdout(f"Use `walt node boot {name} <other-image>` to boot another image.")

    async def _image_for(self, requester: IRequester) -> str:
        default = default_image(MODEL)
        if not self._images.has(default):
            requester.busy(f'Downloading default image for "{MODEL}"')
            try:
                await self._defaults.obtain(default)
            except Unavailable as error:
                raise Unavailable(
                    f"the server has no default image for {MODEL} nodes, and could not get one:"
                    f" {error}"
                ) from None
            finally:
                requester.busy("")
        name = await self._give_image(requester.username, default)
        return image_fullname(requester.username, name)

    async def remove(
        self, name: str, requester: IRequester, *, force: bool, keep_logs: bool
    ) -> None:
        """Remove a virtual node with all its data.

        Raises NotFound, Invalid, or Conflict when log lines would be lost: neither `force` nor
        `keep_logs` is true.
        """
        device = self.registry.named(name)
        if not device.virtual:
            raise Invalid(
                f"{name} is not a virtual node; use `walt device forget {name}` to forget it"
            )
        if not force and not keep_logs:
            await check_loss(
                self.logs, device.mac, name, f"walt node remove --force {name}",
                f"walt node remove --keep-logs {name}",
            )
        await self._remove(device, requester, keep_logs)

    @unbroken
    async def _remove(self, device: Device, requester: IRequester, keep_logs: bool) -> None:
        self._platform.deed("nodes", f"node {device.name}", "removed", requester.username)
        vm = self._machines.all.pop(device.mac, None)
        if vm is not None:
            await vm.stop()
        self._consoles.pop(device.mac, None)
        await self._nodes.forget(device, keep_logs=keep_logs)
        await self.hypervisor.remove(device.mac)

    def console_input(self, name: str, data: bytes) -> None:
        """Type bytes on a node's console; a lone ctrl-A is doubled (QEMU's escape key)."""
        device = self.registry.named(name)
        if not device.virtual:
            raise Invalid(f"{name} is not a virtual node: it has no console here")
        vm = self._machines.all.get(device.mac)
        if vm is not None:
            vm.write(data)

    def console(self, name: str) -> Console:
        """Return the console of a virtual node, also of one that waits for its machine.

        Raises NotFound, Invalid.
        """
        device = self.registry.named(name)
        if not device.virtual:
            raise Invalid(f"{name} is not a virtual node: it has no console here")
        return self.console_of(device.mac)

    def console_of(self, mac: str) -> Console:
        """Return the console of the machines of a node, one after the other."""
        if mac not in self._consoles:
            self._consoles[mac] = Console(self.clock, lambda data: self.logs.write(
                mac, CONSOLE_STREAM, repr(data), mode="chunk"
            ))
        return self._consoles[mac]

    def console_used(self, name: str, requester: IRequester) -> None:
        """Note that somebody types on the console of a node."""
        note_on_others(
            self._platform, self.registry.named(name), "console used", requester.username
        )
