"""Who asks for pages of the VPN, and in whose name (spec node-protocols §9.2)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple

from twisted.web.iweb import IRequest

from walt.server.domain.network.addresses import parse_address
from walt.server.http.boot import peer_address

KEY_HEADER = b"x-walt-requester-key"
# What proxies add: such a request comes from somebody else than its sender (RFC 7239, 9110).
FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip")
# What browsers add for a page that asks (Fetch Standard; Fetch Metadata Request Headers).
OF_PAGES = (b"origin", b"sec-fetch-site")


class Requesters(NamedTuple):
    """Tells boards from those who pose as them.

    `server` is the server's address in walt-net, `names` are the hosts by which boards ask it, in
    lower case; `key` returns what root of the server's machine knows, nothing as long as there
    is none.
    """

    server: str
    names: frozenset[str]
    key: Callable[[], str]

    def refusal(self, request: IRequest) -> str | None:
        """Return why a request is refused, None when it is not: no web page asks for boards."""
        if any(request.getHeader(name) is not None for name in OF_PAGES):
            return "This is for boards; pages of web browsers may not ask for it."
        host = request.getRequestHostname().decode("ascii", "replace").lower()
        if host not in self.names and parse_address(host) is None:
            return "The request names another host than this server (see security.names)."
        return None

    def of(self, request: IRequest) -> tuple[str, bool]:
        """Return who asks, and whether root of the server's machine asks on its behalf.

        `?fake_requester_ip=` is for tests on the server itself, by who has the key; from
        elsewhere, without it, or through a proxy of the server, it means nothing.
        """
        peer = peer_address(request)
        given = request.args.get(b"fake_requester_ip", [])
        if (
            not given or peer != self.server or not self._has_key(request)
            or any(request.getHeader(name) is not None for name in FORWARDED)
        ):
            return peer, False
        address = parse_address(given[-1].decode("ascii", "replace"))
        return (peer, False) if address is None else (str(address), True)

    def _has_key(self, request: IRequest) -> bool:
        known, shown = self.key(), request.getHeader(KEY_HEADER)
        return bool(known and shown) and hmac.compare_digest(known.encode(), shown)
