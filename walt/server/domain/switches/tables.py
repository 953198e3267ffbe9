"""What a switch answered: rows of SNMP tables, by object identifier.

Nothing here trusts a row: a column is read as the type that its MIB gives it, and what has
another type or another length of index is left out, as if the switch had not told it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

Oid = tuple[int, ...]
Value = int | bytes | Oid

MAX_TEXT = 255  # octets of an identifier or a name (IEEE 802.1AB-2016 §8.5)
# Nobody's address; first octet odd: an address of a group (IEEE 802-2014 §8.2).
_NOBODY = (bytes(6), b"\xff" * 6)


def oid(text: str) -> Oid:
    """Return `1.3.6` as numbers."""
    return tuple(int(number) for number in text.split("."))


class Answers:
    """Rows of one switch; any mapping of identifiers to values is fit."""

    def __init__(self, rows: Mapping[Oid, Value]) -> None:
        self._rows = rows
        self._sorted = sorted(rows)

    def column(self, prefix: Oid) -> Iterator[tuple[Oid, Value]]:
        """Yield index and value of each row below `prefix`, in the order of a walk."""
        size = len(prefix)
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            found = self._sorted[at]
            if found[:size] != prefix:
                return
            if len(found) > size:
                yield found[size:], self._rows[found]

    def numbers(self, prefix: Oid, length: int | None = None) -> dict[Oid, int]:
        """Return the whole numbers of a column, of indexes with `length` numbers."""
        return {
            index: value for index, value in self.column(prefix)
            if isinstance(value, int) and length in (None, len(index))
        }

    def octets(self, prefix: Oid, length: int | None = None) -> dict[Oid, bytes]:
        """Return the strings of octets of a column, of indexes with `length` numbers."""
        return {
            index: value for index, value in self.column(prefix)
            if isinstance(value, bytes) and length in (None, len(index))
        }

    def oids(self, prefix: Oid, length: int | None = None) -> dict[Oid, Oid]:
        """Return the object identifiers of a column, of indexes with `length` numbers."""
        return {
            index: value for index, value in self.column(prefix)
            if isinstance(value, tuple) and length in (None, len(index))
        }

    def get(self, name: Oid) -> Value | None:
        """Return the value of one object, None when it was not told."""
        return self._rows.get(name)


def mac(value: Value | None) -> str | None:
    """Return the address of a device as `aa:bb:cc:dd:ee:ff`; None if it is nobody's or none.

    Six octets (MacAddress of RFC 2579), or the text that some agents give in their place.
    """
    if not isinstance(value, bytes):
        return None
    if len(value) in (12, 14, 17):
        digits = value.translate(None, b":-. ")
        try:
            value = bytes.fromhex(digits.decode("ascii")) if len(digits) == 12 else value
        except ValueError:
            return None
    if len(value) != 6 or value in _NOBODY or value[0] & 1:
        return None
    return value.hex(":")


def mac_of_index(index: Oid) -> str | None:
    """Return the address that six numbers of an index are."""
    if len(index) != 6 or max(index) > 255:
        return None
    return mac(bytes(index))


def identifier(value: bytes) -> str:
    """Return an identifier as text, or as `hex:…` when it is none that can be shown."""
    try:
        text = value[:MAX_TEXT].rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return f"hex:{value[:MAX_TEXT].hex()}"
    return text.strip() if text.isprintable() else f"hex:{value[:MAX_TEXT].hex()}"


def words(value: Value | None) -> str:
    """Return a name or description in one line that a terminal shows as it is."""
    if not isinstance(value, bytes):
        return ""
    text = value[:MAX_TEXT].rstrip(b"\0").decode(errors="replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
