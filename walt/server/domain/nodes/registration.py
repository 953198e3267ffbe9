"""Registration of devices and nodes (spec server §3.2, §4.1)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from twisted.internet.defer import CancelledError

from walt.common.errors import WaltError
from walt.common.leases import Sighting
from walt.common.names import default_image
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.naming import Guess, choose_name, generated_name, guess_type
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.interfaces import IDefaultImages
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.runtime.coroutines import spawn, unbroken
from walt.server.runtime.workflow import Workflow, Workflows

MAX_UNKNOWN = 1000  # devices of unknown type that are recorded


def describe(device: Device, previously_unknown: bool) -> str:
    """Return the platform line of a new or newly identified device (user-surface §1.10)."""
    kind = device.type if device.type in ("node", "switch") else "device"
    note = " (device type previously unknown)" if previously_unknown else ""
    middle = ""
    if kind == "node":
        middle = f" model={device.model}"
    elif kind == "device":
        middle = f" type={device.type}"
    return f"new {kind}{note} name={device.name}{middle} mac={device.mac} ip={device.ip}"


class Registration:
    """Turns sightings into devices and nodes; one workflow per MAC at a time.

    Of devices of unknown type `most_unknown` are recorded.
    """

    def __init__(
        self, registry: DeviceRegistry, images: ImageService, defaults: IDefaultImages,
        workflows: Workflows, platform: PlatformLog, monitor: BootMonitor, *,
        most_unknown: int = MAX_UNKNOWN,
    ) -> None:
        self._registry = registry
        self._images = images
        self._defaults = defaults
        self._workflows = workflows
        self._platform = platform
        self._monitor = monitor
        self._most_unknown = most_unknown
        self._in_progress: set[str] = set()
        self._too_many = False  # it was told
        self._stopping = False

    def stop(self) -> None:
        """Register nothing any more: the server stops."""
        self._stopping = True

    def leased(self, sighting: Sighting) -> None:
        """Register the device of a committed lease, if that brings something new."""
        if sighting.is_news:
            spawn(self.register(sighting), f"registering {sighting.mac}")

    def found(self, sighting: Sighting) -> None:
        """Register the device of a lease of before the start, if nobody knows it."""
        if self._registry.get(sighting.mac) is None:
            self.leased(sighting)

    @unbroken
    async def register(self, sighting: Sighting) -> None:
        """Record a device; returns when it is stored (a download may go on after).

        A MAC already in this procedure is ignored: the node tries again.
        """
        if sighting.mac in self._in_progress or self._stopping:
            return
        guess = guess_type(sighting.vci, sighting.uci, sighting.mac)
        known = self._registry.get(sighting.mac)
        if known is None:
            await self._new(sighting, guess)
        else:
            await self._known(known, sighting, guess)

    # -- rules -----------------------------------------------------------

    def _is_full(self) -> bool:
        """Tell whether no more devices of unknown type are recorded, with one warning."""
        count = self._registry.count("unknown")
        if count >= self._most_unknown and not self._too_many:
            self._platform.write(
                "devices",
                f"{count} devices of unknown type are recorded; no more are, until some are"
                " forgotten (walt device forget)",
                error=True,
            )
        self._too_many = count >= self._most_unknown
        return self._too_many

    async def _new(self, sighting: Sighting, guess: Guess) -> None:
        image = default_image(guess.model) if guess.type == "node" and guess.model else None
        ready = image is None or self._images.has(image)
        kind = guess.type if ready else "unknown"
        if kind == "unknown" and self._is_full():
            return
        device = Device(
            mac=sighting.mac,
            name=choose_name(sighting.name, kind, sighting.mac, self._registry.name_taken),
            type=kind, ip=self._free_address(sighting),
            model=guess.model if ready else None, image=image if ready else None,
        )
        if ready:
            await self._store(device, previously_unknown=False)
            return
        await self._store(device, previously_unknown=False)
        self._identify(device, guess)

    async def _known(self, known: Device, sighting: Sighting, guess: Guess) -> None:
        ip = self._better_address(known, sighting)
        if ip != known.ip:
            known = replace(known, ip=ip)
            await self._registry.put(known)
        if known.type != "unknown" or guess.type == "unknown":
            return
        if guess.type == "node" and guess.model:
            if self._images.has(default_image(guess.model)):
                await self._convert(known, guess)
            else:
                self._identify(known, guess)
        else:
            await self._convert(known, guess)

    async def _convert(self, known: Device, guess: Guess) -> None:
        name = known.name
        if "unknown" in name:
            name = generated_name(guess.type, known.mac, self._registry.name_taken)
            self._platform.write("devices", f"renamed {known.name} to {name} for clarity")
        image = default_image(guess.model) if guess.type == "node" and guess.model else None
        await self._store(
            replace(known, name=name, type=guess.type, model=guess.model, image=image),
            previously_unknown=True,
        )

    async def _store(self, device: Device, *, previously_unknown: bool) -> None:
        stored = self._registry.put(device)
        self._platform.write("devices", describe(device, previously_unknown))
        if device.is_node:
            self._monitor.started(device, "first seen")
        await stored

    def _free_address(self, sighting: Sighting) -> str | None:
        if sighting.ip is None:
            return None
        holder = self._registry.by_ip(sighting.ip)
        if holder is None:
            return sighting.ip
        self._platform.write(
            "devices",
            f"device mac={sighting.mac} claims {sighting.ip}, the address of {holder.name};"
            " it is recorded without address",
            error=True,
        )
        return None

    def _better_address(self, known: Device, sighting: Sighting) -> str | None:
        if sighting.ip is None or sighting.ip == known.ip:
            return known.ip
        inside = IPv4Address(sighting.ip) in self._registry.subnet
        if known.ip is None or (inside and not known.in_network(self._registry.subnet)):
            return self._free_address(sighting) or known.ip
        return known.ip

    # -- download of a default image -------------------------------------

    def _identify(self, device: Device, guess: Guess) -> None:
        self._in_progress.add(device.mac)
        workflow = self._workflows.create(
            f"register {device.mac}", [self.wf_download, self.wf_convert],
            mac=device.mac, guess=guess,
        )
        running = workflow.run()
        # What failed is told by its step; a server that stops ends it.
        running.addErrback(lambda failure: failure.trap(WaltError, CancelledError))

        def released(result: Any) -> Any:
            self._in_progress.discard(device.mac)
            return result

        running.addBoth(released)

    async def wf_download(self, wf: Workflow, mac: str, guess: Guess, **env: Any) -> None:
        """Obtain the default image of the model; a failure leaves the device unknown."""
        device = self._registry.get(mac)
        assert guess.model is not None
        if device is None:
            wf.interrupt()
            return
        image = default_image(guess.model)
        log = self._platform.write
        log("devices", f"Device {device.name} is a walt node of type '{guess.model}'.")
        log(
            "devices",
            f"Trying to download a default image for '{guess.model}' nodes: {image}...",
        )
        try:
            await self._defaults.obtain(image)
        except WaltError as error:
            text = str(error)
            log("devices", text[:1].lower() + text[1:], error=True)
            log(
                "devices",
                f"New {guess.model} nodes will remain of type unknown until this is solved.",
                error=True,
            )
            wf.interrupt()
        log("devices", f"Image {image} was downloaded successfully.")

    async def wf_convert(self, wf: Workflow, mac: str, guess: Guess, **env: Any) -> None:
        """The device becomes a node."""
        device = self._registry.get(mac)
        if device is not None and device.type == "unknown":
            await self._convert(device, guess)
