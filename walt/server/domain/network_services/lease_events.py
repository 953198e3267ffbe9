"""Lease events: the lines that dhcpd logs when it commits a lease (design §8).

A line is `walt-lease MAC ADDRESS FIELD [HEX]`; the bytes of MAC and HEX are in
hexadecimal with `:` between them, without leading zeros (what dhcpd's
`binary-to-ascii` gives). The line `… end KNOWN TYPE` closes an event.
"""

from __future__ import annotations

import re

from walt.common.leases import Sighting, proposed_name
from walt.server.domain.network.addresses import address_number
from walt.server.domain.network_services.dhcp import LEASE_MARK

_BYTES = r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2})*"
_LINE = re.compile(
    rf"{LEASE_MARK} ({_BYTES}) ([0-9.]{{7,15}}) (?:(vci|uci|name) ({_BYTES})?|end ([01]) ([a-z]+))"
)
_ACK = re.compile(r"DHCPACK on [0-9.]{7,15} to ([0-9a-f]{2}(?::[0-9a-f]{2}){5}) ")
_OFFER = re.compile(r"DHCPOFFER on ([0-9.]{7,15}) to ([0-9a-f]{2}(?::[0-9a-f]{2}){5}) ")
_MAX_OPEN = 64


def acknowledged(line: str) -> str | None:
    """Return the MAC of a client that got its address, as dhcpd's own line tells, else None."""
    found = _ACK.match(line)
    return found[1] if found is not None else None


def offered(line: str) -> tuple[str, str] | None:
    """Return MAC and address of a client that was offered one, as dhcpd's line tells, else None."""
    found = _OFFER.match(line)
    return (found[2], found[1]) if found is not None else None


def unhex(text: str) -> bytes:
    """Return the bytes written as hexadecimal numbers with `:` between them."""
    return bytes(int(word, 16) for word in text.split(":")) if text else b""


def client_text(raw: bytes) -> str:
    """Return what a client wrote as text: UTF-8 if it is, one character a byte if not.

    NUL bytes that end it are dropped (RFC 2132 §2 asks receivers to).
    """
    raw = raw.rstrip(b"\0")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class LeaseAssembler:
    """Turn lines of dhcpd's output into sightings, one when its last line is there."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], dict[str, str]] = {}

    def feed(self, line: str) -> Sighting | None:
        """Take one line; return the device whose lease it completes.

        Lines of another kind, or damaged ones, are ignored.
        """
        match = _LINE.fullmatch(line.rstrip())
        if match is None or address_number(match[2]) is None:
            return None
        raw = unhex(match[1])
        if len(raw) != 6:
            return None
        key = (raw.hex(":"), match[2])
        if match[3] is not None:
            if key not in self._open and len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)))
            self._open.setdefault(key, {})[match[3]] = client_text(unhex(match[4] or ""))
            return None
        fields = self._open.pop(key, {})
        return Sighting(
            *key, fields.get("vci", ""), fields.get("uci", ""),
            proposed_name(fields.get("name", ""), key[0]), match[6] if match[5] == "1" else None,
        )


def is_lease_line(line: str) -> bool:
    """Tell whether a line of dhcpd's output belongs to an event."""
    return line.startswith(LEASE_MARK + " ")
