"""The servers that a libpq connection string names, each as a connection string of its own.

libpq tries several hosts itself, but gives up none that does not answer while the reactor is
to go on: `PQconnectPoll` knows no time limit (PostgreSQL manual, "Database Connection Control
Functions"). So one is tried after the other here.
"""

from __future__ import annotations

import socket

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from walt.common.errors import Unavailable

# Of a machine that is gone nothing is heard: the kernel tells within about five seconds.
LOST_AFTER = {
    "keepalives_idle": "2", "keepalives_interval": "1", "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}


def places(dsn: str) -> list[str]:
    """Return a connection string for each server; of several, the one that writes is wanted.

    Raises Unavailable for a string that is none.
    """
    values = parsed(dsn)
    addresses = _list(values, "host")
    numbers = _list(values, "hostaddr")
    count = max(len(addresses), len(numbers), 1)
    ports = _list(values, "port")
    if len(ports) < 2:
        ports = ports * count
    for name, found in (("host", addresses), ("hostaddr", numbers), ("port", ports)):
        if found and len(found) != count:
            raise Unavailable(
                f"database.dsn: {len(found)} values of {name} for {count} servers; write one for"
                " each" + (", or one for all" if name == "port" else "")
            )
    made = []
    for number in range(count):
        own = {
            name: found[number]
            for name, found in (("host", addresses), ("hostaddr", numbers), ("port", ports))
            if found and found[number]
        }
        rest = {name: value for name, value in values.items() if name not in own}
        for name in ("host", "hostaddr", "port"):
            rest.pop(name, None)
        if not own.get("host", "/").startswith("/") or "hostaddr" in own:
            rest = {**LOST_AFTER, **rest}
        made.append(make_dsn(**rest, **own))
    return made


def parsed(dsn: str) -> dict[str, str]:
    """Return the parameters of a connection string. Raises Unavailable for one that is none."""
    try:
        values: dict[str, str] = parse_dsn(dsn)
    except psycopg2.Error:
        # What libpq says of it may hold a part of a password.
        raise Unavailable(
            "database.dsn is no connection string of libpq: key=value pairs, values with spaces in"
            " single quotes, or postgresql://user@host/name with odd characters as %XX"
        ) from None
    if "," in values.get("host", "") + values.get("hostaddr", ""):
        values.setdefault("target_session_attrs", "read-write")
    return values


def _list(values: dict[str, str], name: str) -> list[str]:
    text = values.get(name, "")
    return text.split(",") if text else []


def unresolved(place: str) -> str | None:
    """Return the host name whose addresses are not known yet, None when none is needed."""
    values = parsed(place)
    name = values.get("host", "")
    if not name or name.startswith(("/", "@")) or "hostaddr" in values:
        return None
    return name


def addresses_of(name: str) -> list[str]:
    """Return the addresses of a host, in the order of preference. Blocking. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def with_addresses(place: str, addresses: list[str]) -> list[str]:
    """Return the connection strings of one server by its addresses; its name stays, for TLS."""
    return [make_dsn(place, hostaddr=address) for address in addresses]
