"""Records of switches (`OID|type|value` a line, of snmpsim) as the rules get them."""

from __future__ import annotations

from collections.abc import Iterable

from walt.server.domain.switches.tables import Answers, Oid, Value, oid


def rows(lines: Iterable[str]) -> dict[Oid, Value]:
    """Return the rows of a record: whole numbers, octets (also of addresses), identifiers."""
    found: dict[Oid, Value] = {}
    for line in lines:
        name, kind, text = line.strip("\n").split("|", 2)
        if kind.endswith("x"):
            found[oid(name)] = bytes.fromhex(text)
        elif kind in ("4", "64"):
            found[oid(name)] = text.encode("latin-1")
        elif kind == "6":
            found[oid(name)] = oid(text)
        else:
            found[oid(name)] = int(text)
    return found


def answers(text: str) -> Answers:
    """Return what a switch answers whose record is `text`, indented or not."""
    return Answers(rows(line.strip() for line in text.splitlines() if line.strip()))
