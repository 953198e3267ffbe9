"""What is known of switches, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from zope.interface import implementer

from walt.server.adapters.postgres.changes import recording
from walt.server.adapters.postgres.connection import Database, Row, Transaction
from walt.server.domain.devices.changes import Cable, of_links
from walt.server.domain.switches.interfaces import ISwitchStore, Kept, PortOff
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import oid
from walt.server.domain.switches.topology import Link
from walt.server.runtime.slicing import slices

SURVEYS_AT_ONCE = 32  # that are made in one turn of the reactor: each has some fifty ports

_LINKS = """
SELECT mac1, port1, mac2, port2, evidence, confirmed, extract(epoch FROM last_seen)::float8
FROM topology
"""

# A device may have been forgotten since it was read.
_NEW = """
FROM unnest(%s::text[], %s::integer[], %s::text[], %s::integer[], %s::text[], %s::boolean[],
            %s::float8[]) AS new (mac1, port1, mac2, port2, evidence, confirmed, seen)
WHERE EXISTS (SELECT 1 FROM devices WHERE mac = new.mac1)
  AND EXISTS (SELECT 1 FROM devices WHERE mac = new.mac2)
"""
# One that is not confirmed is there: a node that is off has not lost its cable. It goes when
# something else is at its port, or it is seen at another one (domain/switches/topology.py).
_COLUMNS = "mac1, port1, mac2, port2, evidence, confirmed"
_DROP_ALL = "DELETE FROM topology RETURNING mac1, port1, mac2, port2"
_DROP_LINKS = """
DELETE FROM topology t
USING unnest(%s::text[], %s::integer[], %s::text[], %s::integer[])
    AS gone (mac1, port1, mac2, port2)
WHERE t.mac1 = gone.mac1 AND t.mac2 = gone.mac2
  AND t.port1 IS NOT DISTINCT FROM gone.port1 AND t.port2 IS NOT DISTINCT FROM gone.port2
RETURNING t.mac1, t.port1, t.mac2, t.port2
"""
_PUT_LINKS = f"""
INSERT INTO topology ({_COLUMNS}, last_seen) SELECT {_COLUMNS}, to_timestamp(seen) {_NEW}
RETURNING mac1, port1, mac2, port2
"""
_PUT_NEWS = f"""
INSERT INTO sightings ({_COLUMNS}, seen) SELECT {_COLUMNS}, to_timestamp(seen) {_NEW}
"""


@implementer(ISwitchStore)
class PostgresSwitches:
    """The tables switches, topology, sightings, switchports and poeoff."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Kept:
        """Return everything; see ISwitchStore."""

        async def work(transaction: Transaction) -> tuple[Kept, list[Row]]:
            explored = await transaction.query(
                "SELECT mac, survey, extract(epoch FROM explored)::float8 FROM switches"
                " WHERE survey IS NOT NULL"
            )
            links = await transaction.query(_LINKS)
            names = await transaction.query("SELECT mac, port, name FROM switchports")
            off = await transaction.query(
                "SELECT mac, port, reason, control, on_value, node FROM poeoff"
                " WHERE control IS NOT NULL"
            )
            return Kept(
                {}, {mac: moment for mac, _, moment in explored},
                [
                    Link((mac1, port1), (mac2, port2), evidence, confirmed, seen)
                    for mac1, port1, mac2, port2, evidence, confirmed, seen in links
                ],
                {(mac, port): name for mac, port, name in names},
                [
                    PortOff(mac, port, reason, oid(control), value, node)
                    for mac, port, reason, control, value, node in off
                ],
            ), explored

        kept, explored = await self._database.transaction(work)
        surveys: dict[str, Survey] = {}
        async for some in slices(self._database.clock, explored, SURVEYS_AT_ONCE):
            surveys |= {mac: Survey.of_words(words) for mac, words, _ in some}
        return replace(kept, surveys=surveys)

    async def save(
        self, surveys: Mapping[str, Survey], gone: Sequence[Link] | None, added: Sequence[Link],
        news: Sequence[Link],
    ) -> None:
        """Replace surveys and links; see ISwitchStore."""

        async def work(transaction: Transaction) -> None:
            for mac, survey in surveys.items():
                await transaction.execute(
                    "UPDATE switches SET survey = %s, explored = now() WHERE mac = %s",
                    (json.dumps(survey.kept().words()), mac),
                )
            if gone is None:
                before = await transaction.query(_DROP_ALL)
            else:
                # What is added may be there: nobody heard whether it was stored.
                dropped = list({link.ends: link for link in (*gone, *added)}.values())
                before = await transaction.query(_DROP_LINKS, _columns(dropped)[:4])
            after = await transaction.query(_PUT_LINKS, _columns(added))
            if news:
                await transaction.execute(_PUT_NEWS, _columns(news))
            # Whoever asked for a look has not moved what it finds.
            changed = of_links(_cables(before), _cables(after), None)
            await transaction.execute_all(recording(changed))

        await self._database.transaction(work)

    async def name_port(self, switch: str, port: int, name: str | None) -> None:
        """Give a port a name, or take it away."""
        if name is None:
            await self._database.execute(
                "DELETE FROM switchports WHERE mac = %s AND port = %s", (switch, port)
            )
            return
        await self._database.execute(
            "INSERT INTO switchports (mac, port, name) VALUES (%s, %s, %s)"
            " ON CONFLICT (mac, port) DO UPDATE SET name = excluded.name",
            (switch, port, name),
        )

    async def note_off(self, ports: Sequence[PortOff]) -> None:
        """Record ports that will be switched off."""

        async def work(transaction: Transaction) -> None:
            for port in ports:
                await transaction.execute(
                    "INSERT INTO poeoff (mac, port, reason, control, on_value, node)"
                    " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (mac, port) DO UPDATE"
                    " SET reason = excluded.reason, control = excluded.control,"
                    " on_value = excluded.on_value, node = excluded.node, since = now()",
                    (
                        port.switch, port.port, port.reason, ".".join(map(str, port.control)),
                        port.on, port.node,
                    ),
                )

        await self._database.transaction(work)

    async def note_on(self, ports: Sequence[PortOff]) -> None:
        """Remove such records."""
        await self._database.execute(
            "DELETE FROM poeoff p USING unnest(%s::text[], %s::integer[]) AS gone (mac, port)"
            " WHERE p.mac = gone.mac AND p.port = gone.port",
            ([port.switch for port in ports], [port.port for port in ports]),
        )


def _cables(rows: Sequence[Row]) -> list[Cable]:
    return [(str(mac1), port1, str(mac2), port2) for mac1, port1, mac2, port2 in rows]


def _columns(links: Sequence[Link]) -> tuple[list[object], ...]:
    return (
        [link.first[0] for link in links], [link.first[1] for link in links],
        [link.second[0] for link in links], [link.second[1] for link in links],
        [link.evidence for link in links], [link.confirmed for link in links],
        [link.seen for link in links],
    )
