"""Links to the web pages."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.common.errors import Invalid, Unavailable
from walt.rpc.commands import web as commands
from walt.server.domain.access.web_model import Entry, origin_of
from walt.server.domain.access.web_sessions import WebSessions
from walt.server.domain.requester import IRequester


class WebAccessApi(amp.CommandLocator):
    """Who comes to the pages: `serial` is that of the caller's certificate, `port` where the
    server itself listens, if it does.
    """

    def __init__(
        self, requester: IRequester, sessions: WebSessions, serial: str | None, port: int | None
    ) -> None:
        self._requester = requester
        self._sessions = sessions
        self._serial = serial
        self._port = port

    @commands.InviteToWeb.responder
    def invite(self, port: int | None = None) -> dict[str, Any]:
        """Make a code for a link."""
        if port is not None and not 0 < port < 65536:
            raise Invalid("a port is a number from 1 to 65535")
        relayed, port = port is not None, port or self._port
        if port is None:
            raise Unavailable(
                "the server has no port for browsers of its machine (services.http.ui-port of"
                " server.conf)"
            )
        entry = Entry(self._requester.username, self._serial, origin_of(port), relayed)
        code, expires = self._sessions.invite(entry)
        return {"code": code, "origin": entry.origin, "expires": expires}

    @commands.LeaveWeb.responder
    def leave(self) -> dict[str, Any]:
        """End the sessions of the caller."""
        return {"count": self._sessions.end_all(self._requester.username)}
