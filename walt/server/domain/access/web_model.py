"""People at the web pages: a link leads in once, then a cookie and a key show who it is."""

from __future__ import annotations

import json
from typing import NamedTuple

from walt.common.names import is_user_name
from walt.common.texts import load_json

LOOPBACK = "http://127.0.0.1:"  # what every origin of the pages begins with


def origin_of(port: int) -> str:
    """Return the origin (RFC 6454) of pages that a browser finds at a port of its machine."""
    return f"{LOOPBACK}{port}"


class Way(NamedTuple):
    """Who carries what a browser sends: a user, by the `REQ_WEB` of `walt web`, and the serial of
    their certificate (None: a unix socket).
    """

    user: str
    serial: str | None


def way_line(way: Way) -> bytes:
    """Return the line with which a relay begins: it tells the pages on whose behalf it speaks."""
    return json.dumps([way.user, way.serial]).encode() + b"\n"


def way_of_line(line: bytes) -> Way | None:
    """Return what a line of `way_line` tells; None when it is none."""
    try:
        value = load_json(line)
    except ValueError:
        return None
    if not isinstance(value, list) or len(value) != 2:
        return None
    user, serial = value
    if not isinstance(user, str) or not is_user_name(user):
        return None
    return Way(user, serial) if serial is None or isinstance(serial, str) else None


class Entry(NamedTuple):
    """Who asked for a link: a user, the serial of their certificate (None: a unix socket), the
    origin at which their browser will find the pages, and whether `walt web` carries it there.
    """

    user: str
    serial: str | None
    origin: str
    relayed: bool = False

    @property
    def way(self) -> Way | None:
        """The one way by which the browser comes; None: by the server's own loopback."""
        return Way(self.user, self.serial) if self.relayed else None


class WebSession(NamedTuple):
    """A browser that came in; times are epoch seconds. Of cookie and key only SHA-256 is kept.

    `uid` is the account of the server's machine from which it came; None: from another machine.
    """

    cookie: str
    key: str
    entry: Entry
    begun: float
    used: float
    uid: int | None = None


class Secrets(NamedTuple):
    """What a browser gets, once: a cookie and a key, which are worth something together alone."""

    cookie: str
    key: str
    session: WebSession
