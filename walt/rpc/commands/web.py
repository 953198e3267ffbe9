"""Links to the web pages, and their end."""

from __future__ import annotations

from walt.rpc.arguments import Float, Integer, Text
from walt.rpc.base import WaltCommand


class InviteToWeb(WaltCommand):
    """A code for a link to the web pages, for the caller: it works once, for two minutes.

    The link is `ORIGIN/ui/#code=CODE`. Without `port` the origin is that of the server's own
    loopback; with it, that of a port of the machine of the caller, who relays what a browser
    sends there by the stream request `REQ_WEB`. UNAVAILABLE when the server listens at no port.
    """

    commandName = b"cs.web.invite"
    side = "cs"
    arguments = [(b"port", Integer(optional=True))]
    response = [(b"code", Text(64)), (b"origin", Text(64)), (b"expires", Float())]


class LeaveWeb(WaltCommand):
    """End all sessions of the caller at the web pages; `count` tells how many these were."""

    commandName = b"cs.web.leave"
    side = "cs"
    response = [(b"count", Integer())]
