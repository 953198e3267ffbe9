"""What the rules on switches need of the outside world."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from zope.interface import Interface

from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import Oid
from walt.server.domain.switches.topology import Link

SNMP_PORT = 161


@dataclass(frozen=True)
class SnmpUser:
    """A user of SNMP version 3, with authentication and privacy (RFC 3414); secrets of 8 on.

    Protocols are words of walt.server.domain.devices.settings.
    """

    name: str
    auth: str = field(repr=False)
    priv: str = field(repr=False)
    auth_protocol: str = "sha"
    priv_protocol: str = "aes"


@dataclass(frozen=True)
class SnmpTarget:
    """A switch as it is asked; `version` is 1, 2 (v2c), or 3. The community is a secret.

    Version 3 has a `user`, the others a community.
    """

    host: str
    version: int
    community: str = field(default="", repr=False)
    port: int = SNMP_PORT
    user: SnmpUser | None = None


class ISwitches(Interface):
    """Asks switches, all at once: a slow one delays no other."""

    async def read(
        targets: Sequence[SnmpTarget], known: Collection[str] = (),
        on_read: Callable[[int, Survey], None] | None = None,
    ) -> list[Survey]:
        """Return what each target told; `on_read` gets place and survey as soon as one is done.

        `known` are addresses of devices, see `Survey.behind`. Never fails for what a switch
        does or does not: its survey says so.
        """

    async def set(target: SnmpTarget, control: Oid, value: int) -> int | None:
        """Set a whole number, once, and return what the switch then has in its place.

        Waits some seconds for the effect. None: the switch has no such object any more.
        Raises Unavailable when the switch does not answer or refuses.
        """


@dataclass(frozen=True)
class PortOff:
    """A port that the server switched off: how to switch it on again.

    `switch` and `node` are MACs, `port` an ifIndex, `reason` is `powersave` or `hard-reboot`.
    """

    switch: str
    port: int
    reason: str
    control: Oid
    on: int
    node: str | None


@dataclass(frozen=True)
class Kept:
    """What is kept of switches between two runs; names are those that people gave to ports."""

    surveys: Mapping[str, Survey]
    moments: Mapping[str, float]
    links: Sequence[Link]
    names: Mapping[tuple[str, int], str]
    off: Sequence[PortOff]


class ISwitchStore(Interface):
    """Where what is known of switches is kept. All methods are coroutines."""

    async def load() -> Kept:
        """Return everything."""

    async def save(
        surveys: Mapping[str, Survey], gone: Sequence[Link] | None, added: Sequence[Link],
        news: Sequence[Link],
    ) -> None:
        """Replace these surveys; have links in place of those that are gone (None: of all others).

        `news` are added to what was seen. All or nothing. What refers to a device that was
        forgotten meanwhile is left out.
        """

    async def name_port(switch: str, port: int, name: str | None) -> None:
        """Give a port a name, or take it away."""

    async def note_off(ports: Sequence[PortOff]) -> None:
        """Record ports that will be switched off."""

    async def note_on(ports: Sequence[PortOff]) -> None:
        """Remove such records."""
