"""What the rules on switches need of the outside world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zope.interface import Interface

from walt.server.domain.switches.tables import Oid, Value

SNMP_PORT = 161


@dataclass(frozen=True)
class SnmpTarget:
    """A switch as it is asked; `version` is 1 or 2 (v2c). The community is a secret."""

    host: str
    version: int
    community: str = field(repr=False)
    port: int = SNMP_PORT


@dataclass(frozen=True)
class Reading:
    """What a switch told; `failure` says why it is not everything, None when it is."""

    rows: Mapping[Oid, Value]
    failure: str | None = None


class ISwitches(Interface):
    """Asks switches, all at once: a slow one delays no other."""

    async def read(
        targets: Sequence[SnmpTarget], on_read: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """Return what each target told; `on_read` gets the place of each one that is done.

        Never fails for what a switch does or does not: its reading says so.
        """

    async def set(target: SnmpTarget, control: Oid, value: int) -> int | None:
        """Set a whole number, once, and return what the switch then has in its place.

        Waits some seconds for the effect. None: the switch has no such object any more.
        Raises Unavailable when the switch does not answer or refuses.
        """
