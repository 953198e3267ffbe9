"""dhcpd's leases file: which leases exist (dhcpd.leases(5)).

Read at start, so that a device whose event was lost in a crash is registered
all the same (design §8, lease lines).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from walt.common.leases import Sighting, proposed_name
from walt.common.names import is_mac
from walt.server.domain.network.addresses import address_number
from walt.server.domain.network_services.lease_events import client_text

_TOKEN = re.compile(r'"((?:[^"\\\n]|\\.)*)"|([{};=])|([^\s"{};=]+)')
_ESCAPE = re.compile(r"\\([0-7]{1,3}|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b"}


def _unescape(match: re.Match[str]) -> str:
    text = match[1]
    return chr(int(text, 8) & 0xFF) if text.isdigit() else _NAMED.get(text, text)


def unquote(text: str) -> str:
    """Return a quoted string of dhcpd (without its quotes) as the client sent it."""
    return client_text(_ESCAPE.sub(_unescape, text).encode("latin-1", "replace"))


def _statements(body: str) -> Iterable[list[str]]:
    words: list[str] = []
    for match in _TOKEN.finditer(body):
        if match[2] == ";":
            yield words
            words = []
        elif match[1] is not None:
            words.append(unquote(match[1]))
        else:
            words.append(match[2] or match[3])


def _fields(body: str) -> dict[str, str]:
    found = {"vci": "", "uci": "", "client-hostname": "", "mac": "", "state": ""}
    for words in _statements(body):
        if words[:2] == ["binding", "state"] and len(words) == 3:
            found["state"] = words[2]
        elif words[:2] == ["hardware", "ethernet"] and len(words) == 3:
            found["mac"] = words[2].lower()
        elif words[:1] == ["client-hostname"] and len(words) == 2:
            found["client-hostname"] = words[1]
        elif len(words) == 4 and words[0] == "set" and words[1] in ("vci", "uci"):
            found[words[1]] = words[3]
    return found


def _holder(ip: str, found: dict[str, str]) -> Sighting | None:
    """Return the device that has a lease, None if it does not hold any more."""
    if found["state"] != "active":
        return None
    name = proposed_name(found["client-hostname"], found["mac"])
    return Sighting(found["mac"], ip, found["vci"], found["uci"], name)


# A closing brace alone on its line ends a block: strings never hold a line feed.
_LEASE = re.compile(r"^lease ([0-9.]+) \{\n((?:.+\n)*?)\}$", re.MULTILINE)


def parse_leases(text: str) -> list[Sighting]:
    """Return who holds leases by a file; of several blocks of one address the last one counts.

    Unreadable blocks are left out: a crash may have cut the last one.
    """
    latest: dict[str, Sighting | None] = {}
    for match in _LEASE.finditer(text):
        ip, found = match[1], _fields(match[2])
        if is_mac(found["mac"]) and address_number(ip) is not None:
            latest[ip] = _holder(ip, found)
    return [holder for holder in latest.values() if holder is not None]
