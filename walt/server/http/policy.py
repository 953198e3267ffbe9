"""Who may read which page (docs/security.md).

Boot files and documentation are for everybody who reaches the port: nodes need
them. What tells about people's work (`/api`, `/metrics`) is for the server's
own machine, and for the networks of `security.web-clients`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from walt.server.domain.network.addresses import parse_address
from walt.server.http.answers import ErrorResource

_LOOPBACK = IPv4Network("127.0.0.0/8")
# Nothing of ours is framed, sniffed, or loads anything from elsewhere.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; img-src 'self'",
}


class Readers(NamedTuple):
    """Who may read the pages about people's work.

    `names` are the server's: a page of another site that points at this
    server under a name of its own gets nothing.
    """

    names: frozenset[str]
    networks: tuple[IPv4Network, ...] = ()
    everybody: bool = False

    def refusal(self, request: IRequest) -> str | None:
        """Return why a request is refused, None when it is not."""
        peer: Any = request.getClientAddress()
        address = parse_address(str(getattr(peer, "host", "")))
        own: Any = request.getHost()
        # What this machine sends to an address of its own comes from that address.
        local = address == parse_address(str(getattr(own, "host", "")))
        if not (self.everybody or local or self._known(address)):
            return (
                "This page is for the server's machine; security.web-clients of server.conf"
                " lists the networks that may read it too."
            )
        host = request.getRequestHostname().decode("ascii", "replace").lower()
        if host not in self.names and parse_address(host) is None:
            return "The request names another host than this server (see security.names)."
        return None

    def _known(self, address: IPv4Address | None) -> bool:
        return address is not None and (
            address in _LOOPBACK or any(address in network for network in self.networks)
        )


OWN_MACHINE = Readers(frozenset())


class Guarded(Resource):
    """A page, and those below it, for readers only."""

    def __init__(self, readers: Readers, page: Resource) -> None:
        super().__init__()
        self._readers = readers
        self._page = page
        self.isLeaf = page.isLeaf

    def _checked(self, request: IRequest) -> Any:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        refusal = self._readers.refusal(request)
        return self._page if refusal is None else ErrorResource(403, refusal)

    def getChild(self, path: bytes, request: IRequest) -> Any:
        """Return a page below this one."""
        page = self._checked(request)
        if page is not self._page:
            return page
        return self._page.getChildWithDefault(path, request)

    def render(self, request: IRequest) -> Any:
        """Answer with the page, or with the refusal."""
        return self._checked(request).render(request)
