"""Links to the web pages, and what carries a browser of this machine to them."""

from __future__ import annotations

import socket

from walt.client.errors import Failure
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls

PORT = 12381  # where a browser of this machine finds the pages, if it is free


def link(calls: Calls, port: int | None) -> dict[str, Any]:
    """Return a link for the caller, and until when it opens (epoch seconds).

    A `port` of the loopback of this machine leads to the pages, if one is given.
    """
    values = {} if port is None else {"port": port}
    answer = calls.call("cs.web.invite", **values)
    url = f"{answer[b'origin'].decode()}/ui/#code={answer[b'code'].decode()}"
    return {"link": url, "expires": float(answer[b"expires"])}


def listen(port: int | None) -> socket.socket:
    """Listen on the loopback alone: at a port, else at the usual one, else at a free one."""
    reason = ""
    for number in (PORT, 0) if port is None else (port,):
        try:
            return socket.create_server(("127.0.0.1", number), backlog=128)
        except OSError as error:
            reason = in_words(error)
    raise Failure(f"cannot listen on port {port} of 127.0.0.1: {reason}")


def leave(calls: Calls) -> int:
    """End all sessions of the caller at the pages; return how many there were."""
    return int(calls.call("cs.web.leave")[b"count"])
