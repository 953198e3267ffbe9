"""The pages by the relays of `walt web`: each connection begins with a line that tells whose it is.

Only `REQ_WEB` reaches their socket, and it knows its client by the certificate or the unix socket.
"""

from __future__ import annotations

from typing import Any

from twisted.web.iweb import IRequest

from walt.rpc.base import abort
from walt.server.domain.access.web_model import Way, way_of_line
from walt.server.http.peer_limits import Counted, CountedSite

MAX_LINE = 1024  # bytes


class Relayed(Counted):
    """One connection of a relay."""

    way: Way | None = None
    _head = b""

    def dataReceived(self, data: bytes) -> None:
        if self.way is not None:
            super().dataReceived(data)
            return
        self._head += data
        line, newline, rest = self._head.partition(b"\n")
        if newline:
            self.way, self._head = way_of_line(line), b""
        if (newline and self.way is None) or len(line) > MAX_LINE:
            abort(self.transport)
        elif rest:
            super().dataReceived(rest)


class RelayedSite(CountedSite):
    """A site for relays."""

    protocol = Relayed


def way_of(request: IRequest) -> Way | None:
    """Return by whose relay a request came; None: by the server's own loopback."""
    channel: Any = request.channel  # type: ignore[attr-defined]
    return channel.transport.way if isinstance(channel.transport, Relayed) else None
