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
