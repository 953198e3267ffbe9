"""What is known of switches, in memory; verified by tests.contracts.test_switch_store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walt.server.domain.switches.interfaces import ISwitchStore, Kept, PortOff
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.topology import Link


@implementer(ISwitchStore)
class FakeSwitchStore:
    """Everything in dicts; `history` are the news, oldest first.

    `gate` makes who changes places and names of ports wait, once the change is made; `errors`
    are raised in place of a change of links, `saved` are those that were made.
    """

    def __init__(self, moment: float = 1000.0) -> None:
        self.moment = moment
        self.surveys: dict[str, Survey] = {}
        self.moments: dict[str, float] = {}
        self.links: list[Link] = []
        self.history: list[Link] = []
        self.names: dict[tuple[str, int], str] = {}
        self.off: dict[tuple[str, int], PortOff] = {}
        self.gate: Deferred[None] | None = None
        self.errors: list[Exception] = []
        self.saved: list[tuple[Sequence[Link] | None, Sequence[Link]]] = []

    async def _wait(self) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate

    async def load(self) -> Kept:
        """Return everything."""
        return Kept(
            dict(self.surveys), dict(self.moments), list(self.links), dict(self.names),
            list(self.off.values()),
        )

    async def save(
        self, surveys: Mapping[str, Survey], gone: Sequence[Link] | None, added: Sequence[Link],
        news: Sequence[Link],
    ) -> None:
        """Replace surveys and links."""
        if self.errors:
            raise self.errors.pop(0)
        self.saved.append((gone, added))
        self.surveys.update({mac: one.kept() for mac, one in surveys.items()})
        self.moments.update(dict.fromkeys(surveys, self.moment))
        ends = {link.ends for link in (*(gone or ()), *added)}
        kept = [link for link in self.links if gone is not None and link.ends not in ends]
        self.links = [*kept, *added]
        self.history += news
        await self._wait()

    async def name_port(self, switch: str, port: int, name: str | None) -> None:
        """Give a port a name, or take it away."""
        if name is None:
            self.names.pop((switch, port), None)
        else:
            self.names[switch, port] = name
        await self._wait()

    async def note_off(self, ports: Sequence[PortOff]) -> None:
        """Record ports."""
        self.off.update({(one.switch, one.port): one for one in ports})

    async def note_on(self, ports: Sequence[PortOff]) -> None:
        """Forget ports."""
        for one in ports:
            self.off.pop((one.switch, one.port), None)
