"""All lines of one week, from first to last, for the worker that archives them. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import sql

from walt.common.errors import Unavailable

AT_ONCE = 500  # lines that are fetched at once
LONG = 64 << 10  # octets above which a line is fetched alone
CONNECT_TIMEOUT = 10  # seconds
Line = tuple[int, str, str, str, "str | None", int, int, int]

_LINES = sql.SQL("""
SELECT (extract(epoch FROM timestamp) * 1000000)::bigint, stream_id,
       CASE WHEN octet_length(line) <= %s THEN line END,
       (extract(epoch FROM place) * 1000000)::bigint, arrival
FROM {} ORDER BY place, arrival
""")
_LONG_LINE = sql.SQL(
    "SELECT line FROM {} WHERE arrival = %s AND place BETWEEN"
    " 'epoch'::timestamptz + (%s - 1) * interval '1 microsecond'"
    " AND 'epoch'::timestamptz + (%s + 1) * interval '1 microsecond'"
)
# Lines of streams that are gone are being deleted.
_COUNT = sql.SQL(
    "SELECT count(*) FILTER (WHERE stream_id IN (SELECT id FROM logstreams)),"
    " coalesce(max(arrival), 0) FROM {}"
)
_KNOWN = """
SELECT a.size, a.lines, (
    SELECT coalesce(sum(x.lines), 0)::bigint FROM logarchivestreams x
    WHERE x.archive = a.name AND x.stream_id = ANY(%s))
FROM logarchives a WHERE a.name = %s
"""
_STREAMS = """
SELECT s.id, coalesce(d.name, s.former), s.name, s.issuer_mac
FROM logstreams s LEFT JOIN devices d ON d.mac = s.issuer_mac
"""


@dataclass(frozen=True)
class Week:
    """What one snapshot has of a week: how many lines, the highest arrival, the lines.

    A line has the columns of the archive: time, issuer, stream, text, MAC, number of the stream,
    place, arrival; times are epoch microseconds.
    """

    count: int
    mark: int
    lines: Iterator[Line]


@contextmanager
def week(dsn: str, table: str) -> Iterator[Week]:
    """Give the week of a partition, in one snapshot. Raises Unavailable.

    Memory does not grow with the week: lines come by a cursor.
    """
    try:
        # A replica may lack the last lines.
        with closing(psycopg2.connect(
            dsn, connect_timeout=CONNECT_TIMEOUT, target_session_attrs="read-write"
        )) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            name = sql.Identifier(table)
            with connection.cursor() as cursor:
                # The index has the order; sorting would take as much disk as the week.
                cursor.execute("SET LOCAL enable_sort = off")
                cursor.execute(_COUNT.format(name))
                ((count, mark),) = cursor.fetchall()
                cursor.execute(_STREAMS)
                streams = {number: about for number, *about in cursor}
            with connection.cursor("week") as lines, connection.cursor() as alone:
                lines.itersize = AT_ONCE
                lines.execute(_LINES.format(name), (LONG,))

                def text(place: int, arrival: int) -> str:
                    alone.execute(_LONG_LINE.format(name), (arrival, place, place))
                    ((line,),) = alone.fetchall()
                    return str(line)

                yield Week(int(count), int(mark), _joined(lines, streams, text))
    except psycopg2.Error as error:
        raise Unavailable(f"the database was lost: {str(error).strip()}") from None


@dataclass(frozen=True)
class KnownFile:
    """Octets of a file, its lines, and those of the streams that somebody asked for."""

    size: int
    lines: int
    forgotten: int


def archived_file(dsn: str, name: str, streams: Sequence[int]) -> KnownFile:
    """Return what is known of a file. Raises Unavailable."""
    try:
        with closing(psycopg2.connect(
            dsn, connect_timeout=CONNECT_TIMEOUT, target_session_attrs="read-write"
        )) as connection, connection.cursor() as cursor:
            cursor.execute(_KNOWN, (list(streams), name))
            rows = cursor.fetchall()
    except psycopg2.Error as error:
        raise Unavailable(f"the database was lost: {str(error).strip()}") from None
    if not rows:
        raise Unavailable(f"the database knows no archived file {name}")
    ((size, lines, forgotten),) = rows
    return KnownFile(int(size), int(lines), int(forgotten))


@dataclass(frozen=True)
class KnownArchive:
    """Who the platform is, its files with their sizes, and all names that may be there.

    `known` has those that were given up, too; `begun` what names begin with that are being
    written.
    """

    platform: str
    files: list[tuple[str, int]]
    known: list[str]
    begun: list[str]


def archived_files(dsn: str) -> KnownArchive:
    """Return what is known of an archive. Raises Unavailable."""
    try:
        with closing(psycopg2.connect(dsn, connect_timeout=CONNECT_TIMEOUT)) as connection, \
                connection.cursor() as cursor:
            cursor.execute("SELECT platform::text FROM logarchiveowner")
            ((platform,),) = cursor.fetchall()
            cursor.execute("SELECT prefix FROM logarchiveattempts")
            begun = [str(prefix) for (prefix,) in cursor]
            cursor.execute("SELECT name, size, gone IS NULL FROM logarchives ORDER BY name")
            rows = cursor.fetchall()
            return KnownArchive(
                str(platform), [(str(name), int(size)) for name, size, is_read in rows if is_read],
                [str(name) for name, *_ in rows], begun,
            )
    except psycopg2.Error as error:
        raise Unavailable(f"the database does not answer: {str(error).strip()}") from None


def _joined(
    lines: Any, streams: dict[int, list[Any]], text: Callable[[int, int], str]
) -> Iterator[Line]:
    for moment, number, line, place, arrival in lines:
        about = streams.get(number)
        if about is not None:
            issuer, stream, mac = about
            whole = text(place, arrival) if line is None else line
            yield moment, issuer, stream, whole, mac, number, place, arrival
