"""What the node domain needs from the outside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from zope.interface import Attribute, Interface

from walt.common.sshkeys import PublicKey
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.boots import Boot
from walt.server.domain.requester import IRequester


class INodeLink(Interface):
    """The network service of nodes (TCP 12346, spec node-protocols §5.1)."""

    async def request(ip: str, line: str) -> str | None:
        """Send one request line; return None for OK, else the reason of the failure."""


class INodeShell(Interface):
    """Scripts run on nodes by ssh, as root."""

    async def run(
        ip: str, script: str, *, timeout: float, output_fd: int | None = None
    ) -> bytes:
        """Run a POSIX shell script; return its output, or write it to `output_fd`.

        `timeout` is in seconds. Raises Unavailable (no connection, too long) or
        CommandFailed with what the script said on its error output.
        """


class INodeQuestions(Interface):
    """Short questions to nodes, answered by a shell that stays open on each (N-096).

    A node has one question at a time, the others wait; nodes do not wait for each other.
    """

    async def ask(ip: str, script: str, *, timeout: float) -> bytes:
        """Run a POSIX shell script, as root and without input; return its output.

        It may be run twice, and leaves nothing in the shell. `timeout` is in seconds,
        the turns of other questions included. Raises Unavailable (no connection, no answer
        in time) or CommandFailed: status other than 0, with what the script said on its
        error output, or more than 1 MiB of output.
        """

    def close(ip: str) -> None:
        """End the shell of a node, which reboots or is removed."""


class IBoots(Interface):
    """Keeps records of boots, the last BOOTS_KEPT of each node, until the node is removed."""

    async def last_boots(
        macs: Sequence[str] | None, count: int, most: int | None = None
    ) -> list[Boot]:
        """Return the last ones of each of these nodes (None: all), `count` at most, oldest first.

        Of all those it is the last `most` ones, unless that is None. They are made in one turn
        of the reactor: thousands are asked for in several calls.
        """

    async def unfinished() -> list[Boot]:
        """Return the last one of each node whose last one is not over, oldest first."""

    async def save_boots(boots: Sequence[Boot]) -> None:
        """Insert or replace records, by `mac` and `asked`; without those of unknown nodes."""


class IUserKeys(Interface):
    """Keeps the public keys of users."""

    async def load() -> list[tuple[str, PublicKey]]:
        """Return all keys with their users, oldest first."""

    async def add(user: str, key: PublicKey) -> None:
        """Remember a key of a user; nothing happens if it is there."""

    async def remove(user: str, key: PublicKey) -> None:
        """Forget a key of a user."""


class IProvisioning(Interface):
    """What lets nodes boot: mounts, exports, boot links, DHCP, DNS."""

    troubles = Attribute("why nodes cannot boot at present, by MAC; tried again by itself")

    def lasting() -> Mapping[str, str]:
        """Return those of the troubles that do not go by themselves, as far as can be told."""

    def machine_trouble(mac: str, reason: str | None) -> None:
        """Take why the machine of a virtual node does not start, None when it does.

        It is forgotten when the settings or the image of the node change.
        """

    async def settled() -> None:
        """Return when mounts, exports and boot links are in step, but for `troubles`."""

    async def network_settled() -> None:
        """Return when DHCP and DNS know every device, too."""


class IVirtualMachines(Interface):
    """The virtual nodes run by this server."""

    def kill(mac: str) -> bool:
        """End the machine of a node, which starts again; False if it has none.

        True, too, while the server starts and still has to begin it.
        """


class IPowerSaving(Interface):
    """Power of nodes that nobody uses."""

    async def wake(nodes: Iterable[Device], requester: IRequester | None) -> None:
        """Power nodes that were switched off to save power; they boot."""

    async def let_go(device: Device, requester: IRequester | None) -> None:
        """A device will be forgotten: what was switched off of it is powered again."""


class INodePower(Interface):
    """Power of the ports that feed nodes."""

    async def off(macs: Collection[str], reason: str) -> Mapping[str, str]:
        """Switch nodes off; return, by MAC, the reasons of the failures."""

    async def on(macs: Collection[str]) -> Mapping[str, str]:
        """Switch nodes on; return, by MAC, the reasons of the failures."""

    def all_off() -> Collection[str]:
        """Return the MACs of nodes whose ports are recorded off."""

    def is_off(mac: str) -> str | None:
        """Return why the port of a node is recorded off, None when it is on."""


class ITopology(Interface):
    """Where devices are connected."""

    def labelled(switch_mac: str, label: str) -> int | None:
        """Return the port of a switch that LLDP calls so, None in doubt."""

    async def look_again(switch: Device) -> None:
        """Read a switch whose labels are not known; does nothing when that was just done."""

    async def locate(node_mac: str, switch_mac: str, port: int | None) -> bool:
        """Record that a node is on a port of a switch, seen now; tell whether that is new.

        The node has no other place any more. A port where another node is remains its
        own: then nothing changes. None is a port without number: it does not replace a
        numbered one of the same switch.
        """
