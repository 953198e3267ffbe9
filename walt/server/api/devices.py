"""Commands about devices, leases and virtual hosts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.rpc.commands import devices as commands
from walt.server.api.context import Context
from walt.server.domain.nodes.clock import next_whole_second
from walt.server.domain.nodes.registration import Sighting
from walt.server.domain.nodes.views import device_tables, for_nodes, record
from walt.server.domain.requester import IRequester


class DevicesApi(amp.CommandLocator):
    """Translates commands to calls of the registry and the registration; `ip` is the caller's."""

    def __init__(
        self, context: Context, requester: IRequester, ip: str | None = None
    ) -> None:
        self._context = context
        self._requester = requester
        self._ip = ip

    @commands.ShowDevices.responder
    def show(self) -> dict[str, Any]:
        """Return the rows of `walt device show`, by table."""
        return {"tables": device_tables(self._context.registry, self._context.network.where)}

    @commands.RescanDevices.responder
    async def rescan(self, devices: str, quiet: bool | None = None) -> dict[str, Any]:
        """Ask switches what they see."""
        results = await self._context.exploration.rescan(
            devices, self._requester, quiet=bool(quiet)
        )
        return {"results": [one.row() for one in results]}

    @commands.GetDeviceTree.responder
    def tree(self, all: bool) -> dict[str, Any]:
        """Return the network as a tree; NotFound."""
        return self._context.network.tree(show_all=all)

    @commands.GetPorts.responder
    def ports(self, name: str, port: str | None = None) -> dict[str, Any]:
        """Return the ports of a switch; NotFound, Invalid."""
        return {"ports": self._context.network.ports(name, port)}

    @commands.SetPort.responder
    async def set_port(self, name: str, port: str, settings: list[str]) -> dict[str, Any]:
        """Change settings of a port."""
        await self._context.exploration.set_port(name, port, settings, self._requester)
        return {}

    @commands.GetDevice.responder
    def get(self, name: str) -> dict[str, Any]:
        """Return the record of the device of this name; NotFound."""
        context = self._context
        device = context.registry.named(name)
        return {
            "device": record(device, context.registry, context.status.is_booted, context.server_ip)
        }

    @commands.GetDeviceConfig.responder
    def config(self, devices: str, nodes_only: bool) -> dict[str, Any]:
        """Return the settings of a set, devices with the same ones together."""
        groups = self._context.configuration.show(
            devices, self._requester, nodes_only=nodes_only
        )
        return {"groups": groups}

    @commands.SetDeviceConfig.responder
    def set_config(
        self, devices: str, settings: list[str], nodes_only: bool
    ) -> Deferred[dict[str, Any]]:
        """Change settings of a set: all of them on all devices, or none."""
        running = Deferred.fromCoroutine(self._context.configuration.change(
            devices, settings, self._requester, nodes_only=nodes_only
        ))
        return running.addCallback(lambda _: {})

    @commands.RenameDevice.responder
    def rename(self, name: str, new_name: str) -> Deferred[dict[str, Any]]:
        """Rename a device; its addresses, links and logs follow."""
        running = Deferred.fromCoroutine(self._context.configuration.rename(
            name, new_name, self._requester
        ))
        return running.addCallback(lambda _: {})

    @commands.ForgetDevice.responder
    def forget(
        self, name: str, force: bool, keep_logs: bool | None = None
    ) -> Deferred[dict[str, Any]]:
        """Forget a device, its settings and, unless they are kept, its log lines."""
        running = Deferred.fromCoroutine(
            self._context.configuration.forget(
                name, self._requester, force=force, keep_logs=bool(keep_logs)
            )
        )
        return running.addCallback(lambda _: {})

    @commands.RegisterVirtualDevice.responder
    def announce(
        self, vci: str, uci: str, ip: str, mac: str, name: str | None = None
    ) -> Deferred[dict[str, Any]]:
        """Register a node that the calling machine emulates, or is."""
        running = Deferred.fromCoroutine(
            self._context.announcements.announce(self._ip, Sighting(mac, ip, vci, uci, name))
        )
        return running.addCallback(lambda _: {})

    @commands.RegisterDevice.responder
    def register(
        self, vci: str, uci: str, ip: str, mac: str, name: str | None = None
    ) -> Deferred[dict[str, Any]]:
        """Register the device that got a lease."""
        self._context.announcements.leased(mac, ip)
        running = Deferred.fromCoroutine(
            self._context.registration.register(Sighting(mac, ip, vci, uci, name))
        )
        return running.addCallback(lambda _: {})

    @commands.GetVirtualDevice.responder
    def get_by_mac(self, mac: str) -> dict[str, Any]:
        """Return the record of a MAC or VPN MAC, null if it is unknown."""
        context = self._context
        device = context.registry.get(mac)
        if device is None:
            return {"device": None}
        found = record(device, context.registry, context.status.is_booted, context.server_ip)
        return {"device": for_nodes(found)}

    @commands.ReportNeighbour.responder
    async def report_neighbour(self, mac: str, label: str) -> dict[str, Any]:
        """Note which neighbour the calling node sees, and at which of its ports."""
        await self._context.neighbours.report(self._ip, mac, label)
        return {}

    @commands.SyncClock.responder
    def sync_clock(self) -> Deferred[dict[str, Any]]:
        """Answer when a second of the server's clock begins, with its number."""
        context = self._context
        waiting = next_whole_second(context.clock, context.now)
        return waiting.addCallback(lambda moment: {"time": moment})
