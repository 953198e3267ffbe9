"""Commands about devices: from clients, server tools and virtual hosts."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, IPAddress, Json, Mac, Names, Text
from walt.rpc.base import WaltCommand


class ShowDevices(WaltCommand):
    """Rows of `walt device show`, unknown devices apart."""

    commandName = b"cs.devices.show"
    side = "cs"
    many = True
    response = [(b"tables", Json(rows.DEVICES))]


class GetDevice(WaltCommand):
    """The record of one device (spec server §3.5)."""

    commandName = b"cs.devices.get"
    side = "cs"
    arguments = [(b"name", Text(256))]
    response = [(b"device", Json(rows.RECORD))]


class ForgetDevice(WaltCommand):
    """Remove a device and everything known about it; CONFLICT when logs would be lost.

    `force` lets them go, `keep_logs` keeps them under the name of the device. With the name
    of a device that is gone: remove the logs that were kept of it.
    """

    commandName = b"cs.devices.forget"
    side = "cs"
    arguments = [
        (b"name", Text(256)), (b"force", amp.Boolean()),
        (b"keep_logs", amp.Boolean(optional=True)),
    ]


class RenameDevice(WaltCommand):
    """Give a device another name."""

    commandName = b"cs.devices.rename"
    side = "cs"
    arguments = [(b"name", Text(256)), (b"new_name", Text(256))]


class GetDeviceConfig(WaltCommand):
    """Settings of a set of devices, grouped: [{category, names, settings}]."""

    commandName = b"cs.devices.config"
    side = "cs"
    arguments = [(b"devices", Text(1 << 20)), (b"nodes_only", amp.Boolean())]
    response = [(b"groups", Json(rows.SETTINGS))]


class SetDeviceConfig(WaltCommand):
    """Apply `name=value` words to a set of devices, all or nothing."""

    commandName = b"cs.devices.set_config"
    side = "cs"
    arguments = [
        (b"devices", Text(1 << 20)), (b"settings", Names()), (b"nodes_only", amp.Boolean()),
    ]


class RescanDevices(WaltCommand):
    """Ask switches of a set what they see; a line for each is told, unless `quiet`."""

    commandName = b"cs.devices.rescan"
    side = "cs"
    arguments = [(b"devices", Text(1 << 20)), (b"quiet", amp.Boolean(optional=True))]
    response = [(b"results", Json(rows.SCANNED))]


class GetDeviceTree(WaltCommand):
    """The network as a tree, from the switch that the server is connected to.

    `age` is the time since a switch was last read, in seconds; absent when that is not known.
    """

    commandName = b"cs.devices.tree"
    side = "cs"
    many = True
    arguments = [(b"all", amp.Boolean())]
    response = [
        (b"root", Text(256)), (b"age", Float(optional=True)),
        (b"branches", Json(rows.BRANCHES)),
    ]


class GetPorts(WaltCommand):
    """The ports of a switch: all of them, or the one of a number (ifIndex) or name."""

    commandName = b"cs.devices.ports"
    side = "cs"
    arguments = [(b"name", Text(256)), (b"port", Text(256, optional=True))]
    response = [(b"ports", Json(rows.PORTS))]


class SetPort(WaltCommand):
    """Apply `name=value` words to a port of a switch."""

    commandName = b"cs.devices.set_port"
    side = "cs"
    arguments = [
        (b"name", Text(256)), (b"port", Text(256)), (b"settings", Names()),
    ]


class ListChanges(WaltCommand):
    """What changed since a moment (epoch seconds), 1,000 changes at most, the oldest first.

    More of them: with `after`, the `id` of the last one (0: none), whatever their moment. Who goes
    on so misses none: no change gets a smaller id later.
    """

    commandName = b"cs.devices.changes"
    side = "cs"
    arguments = [(b"since", Float()), (b"after", Integer(optional=True))]
    response = [(b"changes", Json(rows.CHANGES))]


_LEASE: list[tuple[bytes, amp.Argument]] = [
    (b"vci", Text(1024)), (b"uci", Text(1024)), (b"ip", IPAddress()), (b"mac", Mac()),
    (b"name", Text(1024, optional=True)),
]


class RegisterDevice(WaltCommand):
    """Report a lease: what `walt-dhcp-event` calls (spec server §3.2)."""

    commandName = b"ss.devices.register"
    side = "ss"
    arguments = _LEASE


class RegisterVirtualDevice(WaltCommand):
    """Report a node hosted by another machine (spec node-protocols §7.2)."""

    commandName = b"vs.devices.register"
    side = "vs"
    arguments = _LEASE


class GetVirtualDevice(WaltCommand):
    """The record of a device by MAC, null when unknown."""

    commandName = b"vs.devices.get"
    side = "vs"
    arguments = [(b"mac", Mac())]
    response = [(b"device", Json(rows.RECORD_OR_NULL))]


class ReportNeighbour(WaltCommand):
    """The calling node sees a switch by LLDP: its MAC, and the label of the port.

    Ignored for unknown nodes and devices.
    """

    commandName = b"ns.lldp.report"
    side = "ns"
    arguments = [(b"mac", Mac()), (b"label", Text(255))]


class SyncClock(WaltCommand):
    """Answer at the next whole second, with that epoch second."""

    commandName = b"ns.clock.sync"
    side = "ns"
    response = [(b"time", Integer())]
