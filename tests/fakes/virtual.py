"""Fakes of the interfaces of the virtual domain."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.common.errors import Conflict
from walt.common.machines import MachineConfig
from walt.server.domain.virtual.interfaces import IAddresses, IHypervisor, IMachine


@implementer(IMachine)
class FakeMachine:
    """A machine that ends when it is killed, or when the test says so."""

    def __init__(
        self, config: MachineConfig, output: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> None:
        self.config = config
        self.output = output
        self.ended = ended
        self.typed = b""
        self.alive = True

    def write(self, data: bytes) -> None:
        """Note what was typed."""
        self.typed += data

    def kill(self) -> None:
        """End."""
        self.end("killed")

    def end(self, reason: str) -> None:
        """The machine is gone."""
        if self.alive:
            self.alive = False
            self.ended(reason)


@implementer(IHypervisor)
class FakeHypervisor:
    """Starts fake machines; `errors` are raised by starts, `gate` holds the next one back."""

    def __init__(self) -> None:
        self.machines: list[FakeMachine] = []
        self.removed: list[str] = []
        self.errors: list[Exception] = []
        self.gate: Deferred[None] | None = None

    async def prepare(self) -> str:
        """Return an accelerator."""
        return "tcg"

    async def start(
        self, config: MachineConfig, output: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> IMachine:
        """Start a machine."""
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate
        if self.errors:
            raise self.errors.pop(0)
        self.machines.append(FakeMachine(config, output, ended))
        return self.machines[-1]

    async def remove(self, mac: str) -> None:
        """Note a removal."""
        self.removed.append(mac)


@implementer(IAddresses)
class FakeAddresses:
    """Addresses and MACs by number, `left` of them."""

    def __init__(self, left: int = 100) -> None:
        self.left = left
        self.given = 0

    def lowest_free_ip(self) -> str:
        """Return the next address."""
        if self.given >= self.left:
            raise Conflict("no address is left")
        self.given += 1
        return f"192.168.1.{100 + self.given}"

    def new_mac(self) -> str:
        """Return the next MAC."""
        return f"52:54:00:00:00:{self.given:02x}"
