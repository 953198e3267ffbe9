"""Settings, names and removal of devices (spec server §3.3, §3.7, §4.13)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.interfaces import IReactorTime

from walt.common.errors import Conflict, Invalid
from walt.common.names import default_image
from walt.common.sentences import some as some_of
from walt.common.sentences import subject
from walt.server.domain.devices import settings
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.naming import SERVER_NAME, clear_name
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.replacing import remade
from walt.server.domain.devices.sets import parse_devices, parse_nodes
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.network.expose import ExposedPorts, parse_expose
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.monitor import DEFAULT_RETRIES, BootMonitor
from walt.server.domain.nodes.removal import check_loss
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import unbroken
from walt.server.runtime.slicing import slices

SHOWN_AT_ONCE = 512  # devices whose settings are looked at in one turn of the reactor


class Configuration:
    """What people change about devices; every change is checked as a whole first.

    `memory` is that of this machine, in MiB, the swap space included; it has so many
    `processors`. `clock` gives callLater.
    """

    def __init__(
        self, registry: DeviceRegistry, nodes: NodeService, monitor: BootMonitor,
        images: ImageService, exposed: ExposedPorts, logs: LogService, platform: PlatformLog,
        memory: int, processors: int, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._nodes = nodes
        self._monitor = monitor
        self._images = images
        self._exposed = exposed
        self._logs = logs
        self._platform = platform
        self._memory = memory
        self._processors = processors
        self._clock = clock

    def _parse(self, devices: str, requester: IRequester, nodes_only: bool) -> list[Device]:
        parse = parse_nodes if nodes_only else parse_devices
        return parse(self._registry, devices, requester.username)

    async def show(
        self, devices: str, requester: IRequester, *, nodes_only: bool
    ) -> list[dict[str, Any]]:
        """Return devices grouped by category and identical settings."""
        groups = settings.Groups(self._registry.subnet, self._monitor.emulated)
        found = self._parse(devices, requester, nodes_only)
        async for some in slices(self._clock, found, SHOWN_AT_ONCE):
            for device in some:
                groups.add(device)
        return groups.rows()

    @unbroken
    async def change(
        self, devices: str, words: Sequence[str], requester: IRequester, *, nodes_only: bool
    ) -> None:
        """Apply `name=value` words to a set. Raises Invalid or Conflict; then nothing changed."""
        targets = self._parse(devices, requester, nodes_only)
        values = self._values(words)
        changes = await self._planned(targets, values)
        before = [change.old for change in changes if change.old is not None]
        changed = [
            self._renamed_for_clarity(change.new) for change in changes if change.new is not None
        ]
        await self._registry.put(*changed)
        deed = f"{' '.join(_public(words))} set"
        async for some in slices(self._clock, changed):
            for new in some:
                self._deed(new, deed, requester)
        for old, new in zip(before, changed, strict=True):
            await self._take_effect(old, new, values)
        if settings.needs_reboot(values):
            kind = "node(s)" if all(device.is_node for device in changed) else "device(s)"
            requester.stdout(f"Done. Reboot the {kind} to see the new settings in effect.")
        else:
            requester.stdout("Done.")

    async def check(
        self, devices: str, words: Sequence[str], requester: IRequester, *, nodes_only: bool
    ) -> bool:
        """Check `name=value` words as `change` does, and change nothing.

        Returns whether they take effect at the next boot only. Raises Invalid or Conflict.
        """
        targets = self._parse(devices, requester, nodes_only)
        values = self._values(words)
        await self._planned(targets, values)
        return settings.needs_reboot(values)

    def _values(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values of words, as this machine can have them."""
        values = settings.parse_words(words)
        settings.check_machine(values, self._memory, self._processors)
        return values

    async def _planned(
        self, targets: Sequence[Device], values: dict[str, Any]
    ) -> list[Change]:
        """Return what devices would become: true in this turn."""
        changes = await remade(
            self._registry, targets,
            lambda some: settings.plan(some, values, self._registry.subnet), self._clock,
        )
        if "expose" in values:
            for change in changes:
                self._exposed.check(change.mac, parse_expose(values["expose"]))
        return changes

    def _deed(self, device: Device, deed: str, requester: IRequester) -> None:
        topic, kind = ("nodes", "node") if device.is_node else ("devices", "device")
        self._platform.deed(topic, f"{kind} {device.name}", deed, requester.username)

    def _renamed_for_clarity(self, device: Device) -> Device:
        if device.type != "switch":
            return device
        name = clear_name(device.name, "switch", device.mac, self._registry.name_taken)
        if name == device.name:
            return device
        self._platform.write("devices", f"renamed {device.name} to {name} for clarity")
        return replace(device, name=name)

    async def _take_effect(
        self, old: Device, new: Device, values: dict[str, Any]
    ) -> None:
        if "boot.retries" in values:
            before = int(old.conf.get("boot.retries", DEFAULT_RETRIES))
            self._monitor.adjust_retries(new, int(values["boot.retries"]) - before)
        if "expose" in values and new.ip is not None:
            await self._exposed.apply(new.mac, new.ip, parse_expose(values["expose"]))

    async def restore_exposed(self) -> None:
        """Open the permanent forwards again (at start); failures are only logged."""
        for device in self._registry.all():
            text = device.conf.get("expose", "none")
            if text != "none" and device.ip is not None:
                await self._exposed.restore(device.mac, device.name, device.ip, str(text))

    async def rename(self, old_name: str, new_name: str, requester: IRequester) -> None:
        """Give a device another name; DHCP, DNS and boot links follow."""
        device = self._registry.named(old_name)
        if device.type == "server":
            raise Invalid(f"the server keeps its name, {SERVER_NAME}")
        if new_name == old_name or new_name.lower() != old_name.lower():
            self._registry.check_new_name(new_name)  # else capital letters are what changes
        self._deed(device, f"renamed to {new_name}", requester)
        await self._registry.put(replace(device, name=new_name))

    async def forget(
        self, name: str, requester: IRequester, *, force: bool, keep_logs: bool
    ) -> None:
        """Remove a device with everything known about it, or the logs kept of a former one.

        Raises NotFound, Invalid (virtual nodes, the server), or Conflict when log
        lines would be lost and `force` is false.
        """
        command = f"walt device forget --force {name}"
        if name in self._logs.former and self._registry.by_name(name) is None and not keep_logs:
            if not force:
                await check_loss(self._logs, name, name, command)
            await self._logs.forget_former(name)
            return
        device = self._registry.named(name)
        if device.type == "server":
            raise Invalid("the server cannot be forgotten")
        if device.virtual:
            raise Invalid(f"{name} is a virtual node; use: walt node remove {name}")
        if not force and not keep_logs:
            await check_loss(
                self._logs, device.mac, name, command, f"walt device forget --keep-logs {name}"
            )
        await self._forget(device, requester, keep_logs)

    @unbroken
    async def _forget(self, device: Device, requester: IRequester, keep_logs: bool) -> None:
        self._deed(device, "forgotten", requester)
        await self._exposed.forget(device.mac)
        await self._nodes.forget(device, keep_logs=keep_logs, requester=requester)

    async def acquire(
        self, nodes: str, requester: IRequester, owners: Collection[str] | None = None
    ) -> None:
        """Let free nodes boot the requester's own copies of their default images.

        Those of other users are taken from `owners` alone, or whoever they are if that is None,
        and from nobody who got them meanwhile: Conflict, and nothing is changed.
        """
        targets = self._nodes.parse(nodes, requester)
        before = {node.mac: node.owner for node in targets}
        user = requester.username

        def may_be_taken(node: Device) -> bool:
            return node.is_free or node.owner == user or (
                node.owner == before.get(node.mac) and (owners is None or node.owner in owners)
            )

        _check_taken([node for node in targets if not may_be_taken(node)])
        names = await self._copies(targets, requester)
        images = {model: self._images.fullname(user, name) for model, name in names.items()}

        def make(some: Sequence[Device]) -> list[Device]:
            # Others may have been faster while images were copied.
            _check_taken([node for node in some if not may_be_taken(node)])
            return [replace(node, image=images.get(node.model or "", node.image)) for node in some]

        changes = await remade(self._registry, targets, make, self._clock)
        changed = [change.new for change in changes if change.new is not None]
        await self._registry.put(*changed)
        for name in sorted(set(names.values())):
            own = [node.name for node in changed if names.get(node.model or "") == name]
            if own:
                requester.stdout(f"{subject(own)} will now boot {name}.")

    async def _copies(
        self, targets: Collection[Device], requester: IRequester
    ) -> dict[str, str]:
        names = {}
        for model in sorted({node.model or "" for node in targets}):
            before = {image.fullname for image in self._images.working_set(requester.username)}
            names[model] = await self._images.give_default(
                requester.username, default_image(model)
            )
            if self._images.fullname(requester.username, names[model]) not in before:
                requester.stdout(
                    f"The default image of {model} nodes was saved as {names[model]} in your"
                    " images."
                )
        return names


def _check_taken(nodes: Sequence[Device]) -> None:
    """Raise Conflict for nodes that somebody else has got."""
    if nodes:
        told = [f"{node.name} belongs to {node.owner or 'nobody'} now" for node in nodes]
        raise Conflict(f"{some_of(told)}; nothing was changed, see: walt node show --all")


def _public(words: Sequence[str]) -> list[str]:
    """Return settings as the log may show them: communities are passwords of switches."""
    hidden = {"snmp.community", *settings.SECRETS}
    names = [word.partition("=")[0] for word in words]
    return [
        f"{name}=…" if name in hidden else word[:200]
        for name, word in zip(names, words, strict=True)
    ]
