"""Which archived files a query of log lines needs, and what of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg2 import sql

from walt.common.records import MICROSECONDS
from walt.server.adapters.postgres.connection import abandonable
from walt.server.adapters.postgres.log_queries import Condition, of_streams
from walt.server.domain.logs.archive import Reading
from walt.server.domain.logs.model import LogQuery

# Before the snapshot: a partition that was dropped after it would be missed in both places.
STEADY = "LOCK TABLE logs IN ACCESS SHARE MODE"

_FILES = sql.SQL("""
SELECT a.name, a.size, (date_part('epoch', a.first_place) * 1000000)::bigint, {}, {}
FROM logarchives a WHERE {} ORDER BY a.first_place, a.name
""")
_HAS = sql.SQL("""
EXISTS (SELECT FROM logarchivestreams x JOIN logstreams s ON s.id = x.stream_id
        WHERE x.archive = a.name AND {})
""")
_LINES = sql.SQL("""
(SELECT coalesce(sum(x.lines), 0)::bigint
 FROM logarchivestreams x JOIN logstreams s ON s.id = x.stream_id
 WHERE x.archive = a.name AND {})
""")
_SELECTED = sql.SQL("""
SELECT DISTINCT x.stream_id FROM logarchivestreams x JOIN logstreams s ON s.id = x.stream_id
WHERE x.archive = ANY(%s) AND {}
""")
_FORGOTTEN = """
SELECT DISTINCT x.stream_id FROM logarchivestreams x WHERE x.archive = ANY(%s)
AND NOT EXISTS (SELECT FROM logstreams s WHERE s.id = x.stream_id)
"""


class Archived(NamedTuple):
    """What a query needs: the reading, the first place of each file, and what is known of each.

    `known` has the number of matching lines of a file, None where only the file tells.
    """

    reading: Reading
    first_places: list[int]
    known: list[int | None]


def _microseconds(moment: float | None) -> int | None:
    return None if moment is None else round(moment * MICROSECONDS)


async def archived(connection: Any, query: LogQuery, *, counted: bool = False) -> Archived | None:
    """Return what a query needs of archived files, None when that is nothing.

    With `counted`, lines are counted where the database knows how many there are.
    """
    chosen = not (query.issuers is None and query.streams is None and not query.exclude_consoles)
    streams, within, whole = of_streams(query), Condition(), Condition()
    within.add("a.gone IS NULL")
    if query.start is not None:
        within.add("a.last > to_timestamp(%s)", query.start)
        whole.add("a.first > to_timestamp(%s)", query.start)
    if query.end is not None:
        within.add("a.first < to_timestamp(%s)", query.end)
        whole.add("a.last < to_timestamp(%s)", query.end)
    if chosen:
        within.add(_HAS.format(streams.text), *streams.values)
    if query.lines is not None or not counted:
        whole.add("false")
    rows = await abandonable(connection.runQuery(
        _FILES.format(
            whole.text, _LINES.format(streams.text) if counted else sql.SQL("0"), within.text
        ),
        (*whole.values, *(streams.values if counted else ()), *within.values),
    ))
    if not rows:
        return None
    names = [name for name, *_ in rows]
    selected, without = None, []
    if chosen:
        found = await abandonable(connection.runQuery(
            _SELECTED.format(streams.text), (names, *streams.values)
        ))
        selected = [number for (number,) in found]
    else:
        found = await abandonable(connection.runQuery(_FORGOTTEN, (names,)))
        without = [number for (number,) in found]
    return Archived(
        Reading(
            [(name, size) for name, size, *_ in rows], selected, without, query.lines,
            _microseconds(query.start), _microseconds(query.end), query.reader,
        ),
        [place for _, _, place, *_ in rows],
        [lines if is_whole else None for *_, is_whole, lines in rows],
    )
