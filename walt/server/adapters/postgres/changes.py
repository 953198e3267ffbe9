"""What changed, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from zope.interface import implementer

from walt.server.adapters.postgres.connection import Database, Statement
from walt.server.domain.devices.changes import Change, IChanges, Recorded

AT_ONCE = 500  # changes of one statement

# Numbers are given, and seen by readers, in the same order: who follows by them misses nothing.
# The lock is given back when the transaction has ended, and its rows can be seen.
_IN_TURN = "SELECT pg_advisory_xact_lock('changes'::regclass::oid::bigint)"

# A transaction whose end nobody heard of is done again: a change is known by its key.
_ADD = """
INSERT INTO changes (moment, key, who, kind, mac, item, before, after)
SELECT (SELECT clock_timestamp()), new.*
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS new
ON CONFLICT (key) DO NOTHING
"""

_SINCE = """
SELECT id, extract(epoch FROM moment)::float8, kind, mac, item, before, after, who, key
FROM changes WHERE {} ORDER BY id LIMIT %s
"""
_OF_MOMENT, _FOLLOWING = _SINCE.format("moment >= to_timestamp(%s)"), _SINCE.format("id > %s")


def recording(changes: Iterable[Change]) -> Iterator[Statement]:
    """Yield what adds changes: the last statements of the transaction that makes them.

    Other transactions that add some wait until it has ended. Thousands are asked for, and
    written, some at a time.
    """
    left = iter(changes)
    added = list(islice(left, AT_ONCE))
    if added:
        yield _IN_TURN, ()
    while added:
        yield _ADD, (
            [change.key for change in added], [change.who for change in added],
            [change.kind for change in added], [change.mac for change in added],
            [change.item for change in added], [change.before for change in added],
            [change.after for change in added],
        )
        added = list(islice(left, AT_ONCE))


@implementer(IChanges)
class PostgresChanges:
    """The table changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, moment: float, after: int | None, count: int) -> Sequence[Recorded]:
        """Return changes since a moment; see IChanges."""
        rows = await (
            self._database.query(_OF_MOMENT, (moment, count)) if after is None
            else self._database.query(_FOLLOWING, (after, count))
        )
        return [
            Recorded(int(number), float(at), Change(kind, mac, item, before, now, who, key))
            for number, at, kind, mac, item, before, now, who, key in rows
        ]
