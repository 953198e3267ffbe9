"""Records of boots in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database
from walt.server.domain.nodes.boots import BOOTS_KEPT, Boot, Outcome, Stage
from walt.server.domain.nodes.interfaces import IBoots

_SAVE = """
INSERT INTO boots
SELECT mac, to_timestamp(asked), node, image, digest, cause, tries, outcome, reason,
       to_timestamp(started), to_timestamp(address), to_timestamp(script), to_timestamp(kernel),
       to_timestamp(root), to_timestamp(system), to_timestamp(ready)
FROM unnest(
    %s::text[], %s::float8[], %s::text[], %s::text[], %s::text[], %s::text[], %s::integer[],
    %s::text[], %s::text[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
    %s::float8[], %s::float8[]
) AS new (mac, asked, node, image, digest, cause, tries, outcome, reason, started, address, script,
          kernel, root, system, ready)
WHERE EXISTS (SELECT 1 FROM devices d WHERE d.mac = new.mac FOR KEY SHARE)
ON CONFLICT (mac, asked) DO UPDATE SET
    node = excluded.node, image = excluded.image, digest = excluded.digest,
    cause = excluded.cause, tries = excluded.tries, outcome = excluded.outcome,
    reason = excluded.reason, started = excluded.started, address = excluded.address,
    script = excluded.script, kernel = excluded.kernel, root = excluded.root,
    system = excluded.system, ready = excluded.ready
"""

_BOUND = """
DELETE FROM boots b USING unnest(%s::text[]) AS changed (mac)
WHERE b.mac = changed.mac AND b.asked <= (
    SELECT asked FROM boots WHERE mac = changed.mac ORDER BY asked DESC OFFSET %s LIMIT 1
)
"""

_SELECT = """
SELECT b.mac, extract(epoch FROM asked)::float8, node, image, digest, cause, tries, outcome, reason,
       extract(epoch FROM started)::float8, extract(epoch FROM address)::float8,
       extract(epoch FROM script)::float8, extract(epoch FROM kernel)::float8,
       extract(epoch FROM root)::float8, extract(epoch FROM system)::float8,
       extract(epoch FROM ready)::float8
FROM {}
"""

_LAST = _SELECT.format("""devices d JOIN LATERAL (
    SELECT * FROM boots WHERE mac = d.mac ORDER BY asked DESC LIMIT %s
) b ON true WHERE %s::text[] IS NULL OR d.mac = ANY(%s) ORDER BY asked DESC, b.mac DESC LIMIT %s""")

_UNFINISHED = _SELECT.format("""boots b WHERE outcome = 'booting' AND NOT EXISTS (
    SELECT FROM boots later WHERE later.mac = b.mac AND later.asked > b.asked
) ORDER BY asked, b.mac""")


@implementer(IBoots)
class PostgresBoots:
    """The table boots."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_boots(
        self, macs: Sequence[str] | None, count: int, most: int | None = None
    ) -> list[Boot]:
        """Return the last boots of nodes, oldest first; see IBoots."""
        wanted = list(macs) if macs is not None else None
        rows = await self._database.query(_LAST, (count, wanted, wanted, most))
        return [_boot(row) for row in reversed(rows)]

    async def unfinished(self) -> list[Boot]:
        """Return those that are not over; see IBoots."""
        return [_boot(row) for row in await self._database.query(_UNFINISHED)]

    async def save_boots(self, boots: Sequence[Boot]) -> None:
        """Insert or replace records; see IBoots."""
        # Rows of devices are locked in the order in which all do so; see PostgresDevices.
        boots = sorted(boots, key=attrgetter("mac", "asked"))
        columns = list(zip(*map(_values, boots), strict=True))
        macs = sorted({boot.mac for boot in boots})

        await self._database.transaction(lambda transaction: transaction.execute_all([
            (_SAVE, [list(column) for column in columns]), (_BOUND, (macs, BOOTS_KEPT)),
        ]))


def _values(boot: Boot) -> tuple[object, ...]:
    return (
        boot.mac, boot.asked, boot.node, boot.image, boot.digest, boot.cause, boot.tries,
        boot.outcome.value, boot.reason, *(boot.moments.get(stage) for stage in Stage),
    )


def _boot(row: Sequence[Any]) -> Boot:
    mac, asked, node, image, digest, cause, tries, outcome, reason, *moments = row
    known = {
        stage: moment for stage, moment in zip(Stage, moments, strict=True) if moment is not None
    }
    return Boot(
        mac, asked, node, image, digest, cause, tries, known, Outcome(outcome), reason
    )
