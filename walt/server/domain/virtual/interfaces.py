"""What virtual nodes need from the outside."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import Interface

from walt.common.machines import MachineConfig


class IMachine(Interface):
    """One running virtual machine."""

    def write(data: bytes) -> None:
        """Type bytes on its serial console."""

    def kill() -> None:
        """End it at once; `ended` is called as for any end."""


class IHypervisor(Interface):
    """Starts virtual machines attached to their networks. Methods are coroutines."""

    async def prepare() -> str:
        """Probe the machine once; return the accelerator used: `kvm` or `tcg`."""

    async def start(
        config: MachineConfig, output: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> IMachine:
        """Start a machine that boots from the network.

        `output` gets console bytes; `ended` is called once, with the reason,
        when the machine is gone (a guest reboot ends it too) and its interfaces
        on the server are removed.
        Raises Unavailable or CommandFailed when it cannot be started.
        """

    async def remove(mac: str) -> None:
        """Delete what a machine that ended left: its files."""


class IAddresses(Interface):
    """Free addresses and MACs."""

    def lowest_free_ip() -> str:
        """Return the lowest free host address of walt-net. Raises Conflict if none is left."""

    def new_mac() -> str:
        """Return an unused MAC starting with 52:54:00."""
