"""Log lines and queries, as values (spec server §2.5, §10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from walt.common.errors import Invalid
from walt.server.domain.logs.ere import Expression

StreamMode = Literal["line", "chunk"]

TEN_YEARS = 10 * 365.25 * 86400


class LogLine(NamedTuple):
    """One record: epoch seconds, issuer, name of the stream, text.

    The issuer is a MAC, or the name of a forgotten device whose lines were kept.
    """

    timestamp: float
    issuer: str
    stream: str
    line: str


class StreamKey(NamedTuple):
    """What identifies a stream."""

    issuer: str
    name: str


class LogBlock(NamedTuple):
    """Lines of one stream that arrived together.

    `text` holds them, separated by newlines. `stamps` are their epoch seconds;
    None: they all have `moment`, the time of their reception. `places` are the epoch seconds
    that they have in the order of all lines; None: their times.
    """

    key: StreamKey
    mode: StreamMode
    moment: float
    stamps: Sequence[float] | None
    text: str
    line_count: int
    places: Sequence[float] | None = None


class KnownStream(NamedTuple):
    """A stream in the store: its id, and the place of its last line (-inf without lines)."""

    number: int
    last: float


@dataclass(frozen=True)
class LogQuery:
    """Filters of stored and live lines.

    `issuers` are MACs, and names of forgotten devices (None: all); bounds are epoch seconds,
    exclusive, None when open; expressions are POSIX extended, searched anywhere. Raises Invalid
    for one that is not: PostgreSQL, which does not bound their time, must never see it.
    `reader` is who asks, for shares of what is scarce.
    """

    issuers: frozenset[str] | None = None
    streams: str | None = None
    lines: str | None = None
    start: float | None = None
    end: float | None = None
    exclude_consoles: bool = False
    reader: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        self.matcher()

    def matcher(self) -> LogMatcher:
        """Return the same filters, ready for live lines. Raises Invalid."""
        return LogMatcher(self)


class LogMatcher:
    """Decide whether live lines match a query."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._streams = Expression(query.streams) if query.streams is not None else None
        self._lines = Expression(query.lines) if query.lines is not None else None

    def matches(self, record: LogLine) -> bool:
        """Tell whether one live record is wanted; bounds do not apply to live lines."""
        return self.wants(record.issuer, record.stream) and self.found_in(record.line)

    def wants(self, issuer: str, stream: str) -> bool:
        """Tell whether lines of a stream are wanted."""
        query = self._query
        if query.issuers is not None and issuer not in query.issuers:
            return False
        if query.exclude_consoles and stream.endswith("console"):
            return False
        return self._streams is None or self._streams.found_in(stream)

    def found_in(self, line: str) -> bool:
        """Tell whether the text of a line is wanted."""
        return self._lines is None or self._lines.found_in(line)


def all_corrected(timestamps: Sequence[float], now: float) -> Sequence[float]:
    """Return `now` in place of each timestamp older than 10 years or 1 s in the future."""
    first, last = now - TEN_YEARS, now + 1.0
    # The comparison is false for NaN, too.
    return [timestamp if first <= timestamp <= last else now for timestamp in timestamps]


def clean_text(raw: bytes) -> str:
    """Return log bytes as text: bad UTF-8 and NUL bytes appear as \\xNN."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def storable(text: str) -> str:
    """Return a text that a database takes: NUL and lone surrogates appear as escapes.

    Surrogates stand for bytes in the names of files (PEP 383), which errors may tell.
    """
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        text = text.encode(errors="backslashreplace").decode()
    return text


def parse_query(value: Any, issuers: frozenset[str] | None) -> LogQuery:
    """Check the JSON object of a client and return the query it asks for."""
    if not isinstance(value, Mapping):
        raise Invalid("a log query must be an object")

    def text(key: str) -> str | None:
        found = value.get(key)
        if found is None:
            return None
        if not isinstance(found, str) or len(found) > 10_000 or "\0" in found:
            raise Invalid(f"{key} must be a text of at most 10,000 characters")
        return found

    def moment(key: str) -> float | None:
        found = value.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not (
            abs(found) <= 1e11  # false for NaN too
        ):
            raise Invalid(f"{key} must be a number of epoch seconds")
        return float(found)

    return LogQuery(
        issuers, text("streams"), text("lines"), moment("start"), moment("end"),
        value.get("exclude_consoles") is True,
    )
