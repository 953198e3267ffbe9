"""dhcpd's leases file: which leases exist (dhcpd.leases(5)).

Read at start, so that a device whose event was lost in a crash is registered
all the same (design §8, lease lines).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from walt.common.names import is_mac
from walt.server.domain.devices.leases import Lease
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


def _lease(ip: str, body: str) -> Lease | None:
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
    if not is_mac(found["mac"]) or address_number(ip) is None:
        return None
    return Lease(
        found["mac"], ip, found["vci"], found["uci"], found["client-hostname"],
        active=found["state"] == "active",
    )


# A closing brace alone on its line ends a block: strings never hold a line feed.
_LEASE = re.compile(r"^lease ([0-9.]+) \{\n((?:.+\n)*?)\}$", re.MULTILINE)


def parse_leases(text: str) -> list[Lease]:
    """Return the leases of a file; of several blocks of one address the last one counts.

    Unreadable blocks are left out: a crash may have cut the last one.
    """
    latest: dict[str, Lease] = {}
    for match in _LEASE.finditer(text):
        lease = _lease(match[1], match[2])
        if lease is not None:
            latest[lease.ip] = lease
    return list(latest.values())


def unregistered(leases: Iterable[Lease], known_macs: Container[str]) -> list[Lease]:
    """Return the active leases of devices that are not recorded."""
    return [lease for lease in leases if lease.active and lease.mac not in known_macs]
