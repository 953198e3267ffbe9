"""Which requests of browsers are those of our own pages (docs/security.md).

Pages are found on the loopback of a machine, whose ports belong to anybody: a cookie alone,
which browsers send to every port, shows nothing.
"""

from __future__ import annotations

import re

from twisted.internet.address import IPv4Address
from twisted.web.iweb import IRequest

from walt.server.domain.access.interfaces import IPeerAccounts
from walt.server.domain.access.web_model import Secrets, WebSession, origin_of
from walt.server.domain.access.web_sessions import WebSessions
from walt.server.http.relayed import way_of

_HOST = re.compile(r"127\.0\.0\.1(?::([1-9][0-9]{0,4}))?")
_SECRET = re.compile(r"[0-9a-f]{32}")
KEY = "key."  # what begins the subprotocol that carries the key

UI_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        b" require-trusted-types-for 'script'; trusted-types 'none'"
    ),
}


def own_origin(request: IRequest) -> str | None:
    """Return the origin that a request names as its host, None for one that is not of pages.

    Only 127.0.0.1 in digits: no name of another site leads here; and no port but the one at which
    the request came, unless `walt web` carried it.
    """
    match = _HOST.fullmatch(request.getHeader("host") or "")
    if match is None:
        return None
    port, reached = int(match[1] or 80), request.getHost()
    if isinstance(reached, IPv4Address) and reached.port != port:
        return None  # it claims a port that is somebody else's
    return origin_of(port)


def from_own_page(request: IRequest) -> str | None:
    """Return the origin of a request that a page of ours makes, else None."""
    origin = own_origin(request)
    if origin is None or request.getHeader("origin") != origin:
        return None
    # Browsers tell it of all requests but, some of them, of WebSockets.
    site = request.getHeader("sec-fetch-site")
    if site != "same-origin" and (site is not None or request.method != b"GET"):
        return None
    return origin


def cookie_name(origin: str) -> str:
    """Return the name of the cookie of an origin: browsers share cookies between ports."""
    return f"walt-{origin.rpartition(':')[2]}"


class Doorkeeper:
    """Tells whose requests these are."""

    def __init__(self, sessions: WebSessions, accounts: IPeerAccounts) -> None:
        self.sessions = sessions
        self._accounts = accounts

    def begin(self, request: IRequest, code: str, origin: str) -> Secrets:
        """Let the browser in that sent a request with the code of a link. Raises Denied."""
        return self.sessions.begin(code, origin, way_of(request), self._uid_of(request))

    def _uid_of(self, request: IRequest) -> int | None:
        own, peer = request.getHost(), request.getClientAddress()
        if not isinstance(own, IPv4Address) or not isinstance(peer, IPv4Address):
            return None
        uid: int | None = self._accounts.uid_of(peer.port, own.port)
        return uid

    def session_of(self, request: IRequest, key: str | None) -> WebSession | None:
        """Return the session of a request of our own page, None when it has none."""
        origin = from_own_page(request)
        if origin is None or key is None or not _SECRET.fullmatch(key):
            return None
        cookie = request.getCookie(cookie_name(origin).encode())
        if cookie is None:
            return None
        text = cookie.decode("ascii", "replace")
        if not _SECRET.fullmatch(text):
            return None
        return self.sessions.find(text, key, origin, way_of(request), self._uid_of(request))


def key_of_socket(request: IRequest) -> str | None:
    """Return the key that a page put beside the subprotocol: sockets have no headers of its own."""
    for word in (request.getHeader("sec-websocket-protocol") or "").split(","):
        if word.strip().startswith(KEY):
            return word.strip()[len(KEY):]
    return None


def seal(request: IRequest) -> None:
    """Put on an answer what keeps a browser from anything but our own pages."""
    for name, value in UI_HEADERS.items():
        request.setHeader(name, value)
