"""What a query of log lines asks of PostgreSQL: streams first, then their lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from walt.server.adapters.postgres.connection import abandonable
from walt.server.domain.logs.model import LogQuery
from walt.server.domain.logs.order import BEGINNING

_FOUND = sql.SQL("""
SELECT (date_part('epoch', l.timestamp) * 1000000)::bigint, l.stream_id, l.place, l.arrival,
       l.line
FROM {} l WHERE {} ORDER BY l.place, l.arrival
""")
_LOGS = sql.Identifier("logs")
# Lines with another place than their time, which are few: OFFSET keeps PostgreSQL, which
# believes that they are many, from looking for them among all those after a range.
_DISPLACED = sql.SQL(
    "(SELECT * FROM logs WHERE place > timestamp AND timestamp > to_timestamp(%s)"
    " AND timestamp < to_timestamp(%s) OFFSET 0)"
)

# Classes such as [:alpha:] are those of ASCII, as where live lines are searched.
_EXPRESSION = """(('(?e)' || %s) COLLATE "C")"""


# A query goes on only as long as somebody wants its result.
_LIMITED = "SET client_connection_check_interval = '1s'; SET statement_timeout = %s"
SNAPSHOT = f"{_LIMITED}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how much a query may hold."""

    count: float = 20.0  # to count
    search: float = 300.0  # to find the next lines
    listed: int = 1000  # streams whose numbers a query gets; it looks for more itself
    last_batches: float = 2.0  # after which no batch can bring lines of a forgotten device


def limited(seconds: float) -> tuple[int]:
    """Return the values of _LIMITED: the limit in milliseconds."""
    return (int(seconds * 1000),)


class Condition:
    """What follows WHERE, and its values."""

    def __init__(self) -> None:
        self._parts: list[sql.Composable] = [sql.SQL("true")]
        self.values: list[Any] = []

    def add(self, text: str | sql.Composable, *values: Any) -> None:
        """Ask for this, too."""
        self._parts.append(sql.SQL(text) if isinstance(text, str) else text)
        self.values.extend(values)

    @property
    def text(self) -> sql.Composable:
        """All of it."""
        return sql.SQL(" AND ").join(self._parts)


def of_streams(query: LogQuery) -> Condition:
    """Return what a query asks of streams."""
    found = Condition()
    if query.issuers is not None:
        issuers = list(query.issuers)
        found.add("(s.issuer_mac = ANY(%s) OR s.former = ANY(%s))", issuers, issuers)
    if query.streams is not None:
        found.add(f"s.name ~ {_EXPRESSION}", query.streams)
    if query.exclude_consoles:
        found.add("s.name NOT LIKE '%%console'")
    return found


async def selected_streams(connection: Any, query: LogQuery, listed: int) -> Condition:
    """Return what a query asks of streams, as what it asks of lines.

    Streams are looked for first, unless they are more than `listed`: PostgreSQL compares
    numbers faster than it joins tables, and knows better which index is the right one.
    """
    found, streams = Condition(), of_streams(query)
    which = sql.SQL("SELECT s.id FROM logstreams s WHERE {}").format(streams.text)
    rows = await abandonable(connection.runQuery(
        sql.SQL("{} LIMIT %s").format(which), (*streams.values, listed + 1)
    ))
    if len(rows) <= listed:
        found.add("l.stream_id = ANY(%s::integer[])", [number for (number,) in rows])
    else:
        found.add(sql.SQL("l.stream_id IN ({})").format(which), *streams.values)
    return found


def of_lines(query: LogQuery, selected: Condition) -> Condition:
    """Return what a query asks of lines, those of `selected` streams."""
    found = Condition()
    found.add(selected.text, *selected.values)
    if query.lines is not None:
        found.add(f"l.line ~ {_EXPRESSION}", query.lines)
    if query.start is not None:
        found.add("l.timestamp > to_timestamp(%s)", query.start)
        found.add("l.place > to_timestamp(%s)", query.start)
    if query.end is not None:
        found.add("l.timestamp < to_timestamp(%s)", query.end)
    return found


def searches(query: LogQuery, lines: Condition) -> list[tuple[sql.Composable, list[Any]]]:
    """Return what finds the lines of a query, in order."""
    if query.end is None:
        return [(_FOUND.format(_LOGS, lines.text), lines.values)]
    # A line is never placed before its time, hardly ever later: the places of the
    # range are searched, then what was placed after its end, which comes last.
    within = sql.SQL("{} AND l.place < to_timestamp(%s)").format(lines.text)
    after = sql.SQL("{} AND l.place >= to_timestamp(%s)").format(lines.text)
    start = BEGINNING if query.start is None else query.start
    return [
        (_FOUND.format(_LOGS, within), [*lines.values, query.end]),
        (_FOUND.format(_DISPLACED, after), [start, query.end, *lines.values, query.end]),
    ]
