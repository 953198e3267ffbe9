"""What the network domain needs from the outside."""

from __future__ import annotations

from zope.interface import Interface

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
    """Tap devices of virtual nodes, ports of the bridge walt-net."""

    async def create_tap(name: str) -> None:
        """Create the tap `name` (an existing one is taken over), on the bridge and up."""

    async def delete_tap(name: str) -> None:
        """Delete the tap `name`; an absent one is fine."""


class IForwarder(Interface):
    """Listening TCP ports of the server whose connections go on to a device."""

    def is_free(server_port: int) -> bool:
        """Tell whether the port can be opened now."""

    async def open(server_port: int, address: str, device_port: int) -> None:
        """Forward connections to `device_port` of `address`. Raises Conflict when in use."""

    async def close(server_port: int) -> None:
        """Stop listening and end the connections through this port; absent is fine."""
