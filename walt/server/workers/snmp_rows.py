"""How much is kept of what switches tell: bounds for each table, each switch and all of them."""

from __future__ import annotations

from walt.server.domain.switches.tables import Oid, Value

MAX_ROWS, MAX_BYTES = 200_000, 96 << 20  # of one switch; bytes as Python keeps them
MAX_ALL_BYTES = 96 << 20  # of all switches that are being read
MAX_TABLE = 10_000  # rows of a table about ports
MAX_ADDRESSES = 70_000  # rows of a forwarding table
MAX_NAME = 128  # numbers of an identifier (RFC 2578 §3.5)
MAX_SURVEY = 1 << 20  # characters of what the rules make of one switch: the reactor reads them

TOO_MUCH = "it tells more than the server keeps of one switch"
TOO_MUCH_OF_ALL = "it tells more than the server has room for beside the other switches"
TOO_MANY_PORTS = "a table of its ports has no end"
TOO_MANY_ADDRESSES = "its forwarding table has no end"
_ROW, _NUMBER, _LARGE, _SMALLEST_LARGE = 220, 8, 32, 257  # bytes; what Python does not share


class TooMuch(Exception):
    """Why nothing more is kept of a switch."""


class Room:
    """What the rows of all switches that are being read may take together.

    `share` bytes are sure for each one: above it a switch gets more as long as there is room.
    """

    def __init__(self, share: int, limit: int = MAX_ALL_BYTES) -> None:
        self._share, self._limit = share, limit
        self.used = 0

    def take(self, size: int, whole: int) -> None:
        """Count `size` bytes more for a switch that then has `whole`. Raises TooMuch."""
        if self.used + size > self._limit and whole > self._share:
            raise TooMuch(TOO_MUCH_OF_ALL)
        self.used += size

    def give_back(self, whole: int) -> None:
        """Forget the bytes of a switch."""
        self.used -= whole


class Rows:
    """What one switch told, whichever community or context was asked."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.values: dict[Oid, Value] = {}
        self.answers = 0
        self._size = 0

    def add(self, name: Oid, value: Value | None) -> None:
        """Keep a row; one that cannot be one is left out. Raises TooMuch."""
        if value is None or len(name) > MAX_NAME:
            return
        size = _size(name, value)
        if len(self.values) >= MAX_ROWS or self._size + size > MAX_BYTES:
            raise TooMuch(TOO_MUCH)
        self._room.take(size, self._size + size)
        self._size += size
        self.values[name] = value

    def close(self) -> None:
        """Drop everything."""
        self._room.give_back(self._size)
        self._size = 0
        self.values = {}

    @property
    def progress(self) -> int:
        """What shows that a reading gets on: answers and rows so far."""
        return self.answers + len(self.values)


def _size(name: Oid, value: Value) -> int:
    size = _ROW + _NUMBER * len(name) + sum(_LARGE for number in name if number >= _SMALLEST_LARGE)
    if isinstance(value, int):
        return size + _LARGE
    return size + (len(value) if isinstance(value, bytes) else (_NUMBER + _LARGE) * len(value))
