"""`walt web`: a link to the web pages, and what carries a browser of this machine to them."""

from __future__ import annotations

import asyncio
import socket
import sys

from walt.client import settings
from walt.client.errors import Failure
from walt.client.expose import serve
from walt.client.session import Session

PORT = 12381  # where a browser of this machine finds the pages, if it is free


def open_pages(port: int | None) -> int:
    """Print a link for this user. From another machine, or with a `port`, stay: a port of the
    loopback of this machine leads to the pages until ctrl-C.
    """
    if port is None and settings.rpc_target().path is not None:
        print(_link(None))
        return 0
    listening = _listen(port)
    print(_link(listening.getsockname()[1]))
    print(
        "The pages are there as long as this command runs. Type ctrl-C to stop.", file=sys.stderr
    )
    sys.stdout.flush()
    asyncio.run(serve(listening, "REQ_WEB", {}, told=False))
    return 0


def _link(port: int | None) -> str:
    session = Session()
    values = {} if port is None else {"port": port}
    answer = session.call("cs.web.invite", **values)
    session.close()
    return f"{answer[b'origin'].decode()}/ui/#code={answer[b'code'].decode()}"


def _listen(port: int | None) -> socket.socket:
    """Listen on the loopback alone: at a port, else at the usual one, else at a free one."""
    reason = ""
    for one in (PORT, 0) if port is None else (port,):
        try:
            return socket.create_server(("127.0.0.1", one), backlog=128)
        except OSError as error:
            reason = error.strerror or str(error)
    raise Failure(f"cannot listen on port {port} of 127.0.0.1: {reason}")


def log_out() -> int:
    """End all sessions of this user at the pages."""
    count = int(Session().call("cs.web.leave")[b"count"])
    print("No session was open." if not count else f"Sessions that were ended: {count}.")
    return 0
