"""People at the web pages: a link leads in once, then a cookie and a key show who it is."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "http://127.0.0.1:"  # what every origin of the pages begins with


def origin_of(port: int) -> str:
    """Return the origin (RFC 6454) of pages that a browser finds at a port of its machine."""
    return f"{LOOPBACK}{port}"


@dataclass(frozen=True)
class Entry:
    """Who asked for a link: a user, the serial of their certificate (None: a unix socket), and
    the origin at which their browser will find the pages.
    """

    user: str
    serial: str | None
    origin: str


@dataclass(frozen=True)
class WebSession:
    """A browser that came in; times are epoch seconds. Of cookie and key only SHA-256 is kept."""

    cookie: str
    key: str
    entry: Entry
    begun: float
    used: float


@dataclass(frozen=True)
class Secrets:
    """What a browser gets, once: a cookie and a key, which are worth something together alone."""

    cookie: str
    key: str
    session: WebSession
