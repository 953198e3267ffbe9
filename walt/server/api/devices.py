"""Commands about devices, switches, leases and virtual hosts."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from walt.common.leases import Sighting
from walt.rpc.arguments import Written
from walt.rpc.commands import devices as commands
from walt.rpc.commands.nodes import AcquireNodes
from walt.server.api.many import written
from walt.server.domain.devices.changes import PAGE, IChanges, moment, row
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.announcements import Announcements
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.nodes.registration import Registration
from walt.server.domain.requester import IRequester
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.power import SwitchPower
from walt.server.domain.switches.views import SwitchViews


class DevicesApi(amp.CommandLocator):
    """What is known of devices, and what people change about them."""

    def __init__(
        self, requester: IRequester, views: DeviceViews, configuration: Configuration
    ) -> None:
        self._requester = requester
        self._views = views
        self._configuration = configuration

    @commands.ShowDevices.responder
    async def show(self) -> dict[str, Any]:
        """Return the rows of `walt device show`, by table."""
        return {"tables": Written((await self._views.tables()).encode())}

    @commands.GetDevice.responder
    def get(self, name: str) -> dict[str, Any]:
        """Return the record of the device of this name; NotFound."""
        return {"device": self._views.named(name)}

    @commands.GetDeviceConfig.responder
    async def config(self, devices: str, nodes_only: bool) -> dict[str, Any]:
        """Return the settings of a set, devices with the same ones together."""
        return {"groups": await self._configuration.show(
            devices, self._requester, nodes_only=nodes_only
        )}

    @commands.SetDeviceConfig.responder
    async def set_config(
        self, devices: str, settings: list[str], nodes_only: bool
    ) -> dict[str, Any]:
        """Change settings of a set: all of them on all devices, or none."""
        await self._configuration.change(
            devices, settings, self._requester, nodes_only=nodes_only
        )
        return {}

    @commands.RenameDevice.responder
    async def rename(self, name: str, new_name: str) -> dict[str, Any]:
        """Rename a device; its addresses, links and logs follow."""
        await self._configuration.rename(name, new_name, self._requester)
        return {}

    @commands.ForgetDevice.responder
    async def forget(
        self, name: str, force: bool, keep_logs: bool | None = None
    ) -> dict[str, Any]:
        """Forget a device, its settings and, unless they are kept, its log lines."""
        await self._configuration.forget(
            name, self._requester, force=force, keep_logs=bool(keep_logs)
        )
        return {}

    @AcquireNodes.responder
    async def acquire(self, nodes: str, owners: list[str] | None = None) -> dict[str, Any]:
        """Have free nodes boot the caller's copies of their default images."""
        await self._configuration.acquire(nodes, self._requester, owners)
        return {}


class ChangesApi(amp.CommandLocator):
    """The record of what changed."""

    def __init__(self, changes: IChanges, registry: DeviceRegistry) -> None:
        self._changes = changes
        self._registry = registry

    @commands.ListChanges.responder
    async def changes(self, since: float, after: int | None = None) -> dict[str, Any]:
        """Return the next changes since a moment, oldest first; `after` is the last one known."""
        # Numbers begin with 1: who has read nothing yet may say 0.
        found = await self._changes.since(moment(since), after or None, PAGE)
        return {"changes": [row(recorded, self._name(recorded.change.mac)) for recorded in found]}

    def _name(self, mac: str | None) -> str | None:
        device = self._registry.get(mac) if mac is not None else None
        return device.name if device is not None else None


class SwitchesApi(amp.CommandLocator):
    """The cables: what switches see, and settings of their ports."""

    def __init__(
        self, requester: IRequester, exploration: Exploration, power: SwitchPower,
        views: SwitchViews, clock: IReactorTime,
    ) -> None:
        self._requester = requester
        self._exploration = exploration
        self._power = power
        self._clock = clock
        self._views = views

    @commands.RescanDevices.responder
    async def rescan(self, devices: str, quiet: bool | None = None) -> dict[str, Any]:
        """Ask switches what they see."""
        results = await self._exploration.rescan(
            devices, self._requester, self._power.restore, quiet=bool(quiet)
        )
        return {"results": [result.row() for result in results]}

    @commands.GetDeviceTree.responder
    async def tree(self, all: bool) -> dict[str, Any]:
        """Return the network as a tree; NotFound."""
        found = self._views.tree(show_all=all)
        return {**found, "branches": await written(found["branches"], self._clock)}

    @commands.GetPorts.responder
    def ports(self, name: str, port: str | None = None) -> dict[str, Any]:
        """Return the ports of a switch; NotFound, Invalid."""
        return {"ports": self._views.ports(name, port)}

    @commands.SetPort.responder
    async def set_port(self, name: str, port: str, settings: list[str]) -> dict[str, Any]:
        """Change settings of a port."""
        await self._exploration.set_port(name, port, settings, self._requester)
        return {}


class RegistrationApi(amp.CommandLocator):
    """What tools of the server tell of devices."""

    def __init__(self, registration: Registration, announcements: Announcements) -> None:
        self._registration = registration
        self._announcements = announcements

    @commands.RegisterDevice.responder
    async def register(
        self, vci: str, uci: str, ip: str, mac: str, name: str | None = None
    ) -> dict[str, Any]:
        """Register the device that got a lease."""
        self._announcements.leased(mac, ip)
        await self._registration.register(Sighting(mac, ip, vci, uci, name))
        return {}


class AnnouncementsApi(amp.CommandLocator):
    """What machines that emulate nodes tell of these, and ask; `ip` is the caller's."""

    def __init__(self, announcements: Announcements, views: DeviceViews, ip: str | None) -> None:
        self._announcements = announcements
        self._views = views
        self._ip = ip

    @commands.RegisterVirtualDevice.responder
    async def announce(
        self, vci: str, uci: str, ip: str, mac: str, name: str | None = None
    ) -> dict[str, Any]:
        """Register a node that the calling machine emulates, or is."""
        await self._announcements.announce(self._ip, Sighting(mac, ip, vci, uci, name))
        return {}

    @commands.GetVirtualDevice.responder
    def get_by_mac(self, mac: str) -> dict[str, Any]:
        """Return the record of a MAC or VPN MAC, null if it is unknown."""
        return {"device": self._views.for_nodes(mac)}


class NeighboursApi(amp.CommandLocator):
    """What nodes tell of the cables; `ip` is the caller's."""

    def __init__(self, neighbours: NeighbourReports, ip: str | None) -> None:
        self._neighbours = neighbours
        self._ip = ip

    @commands.ReportNeighbour.responder
    async def report_neighbour(self, mac: str, label: str) -> dict[str, Any]:
        """Note which neighbour the calling node sees, and at which of its ports."""
        await self._neighbours.report(self._ip, mac, label)
        return {}
