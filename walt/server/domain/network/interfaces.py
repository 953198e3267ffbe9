"""What the network domain needs from the outside."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import Interface

from walt.common.traffic_shaping import Limits
from walt.server.domain.network.firewall import FirewallConfig


class IFirewall(Interface):
    """The packet filter of the machine (or of the platform's namespace)."""

    async def apply(config: FirewallConfig) -> None:
        """Enforce `config` atomically; nothing happens when it is in force already.

        Raises CommandFailed or Unavailable; the former rules then stay.
        """

    async def remove() -> None:
        """Undo every rule of ours."""


class ITaps(Interface):
    """Tap devices of virtual machines, and the networks they are ports of.

    A network other than walt-net is a bridge of ours that exists as long as it
    has a tap.
    """

    async def create_tap(name: str, network: str) -> None:
        """Create the tap `name` (an existing one is taken over) on a network, and up.

        Raises Invalid for a name the kernel refuses, Conflict when something
        else than a network of ours has that name.
        """

    async def shape(name: str, limits: Limits) -> bool:
        """Delay and limit what goes to the tap's machine; false when the kernel cannot."""

    async def delete_taps(names: Collection[str]) -> None:
        """Delete taps (absent ones are fine), and secondary networks without any tap."""


class IForwarder(Interface):
    """Listening TCP ports of the server whose connections go on to a device."""

    def is_free(server_port: int) -> bool:
        """Tell whether the port can be opened now."""

    async def open(server_port: int, address: str, device_port: int) -> None:
        """Forward connections to `device_port` of `address`. Raises Conflict when in use."""

    async def close(server_port: int) -> None:
        """Stop listening and end the connections through this port; absent is fine."""
