"""`walt web`: a link to the web pages, and what carries a browser of this machine to them."""

from __future__ import annotations

import asyncio
import socket
import sys

from walt.client import settings
from walt.client.errors import Failure
from walt.client.expose import parse_port, serve
from walt.client.session import Session
from walt.common.errors import in_words

PORT = 12381  # where a browser of this machine finds the pages, if it is free


TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any


def open_pages(stated: str | None, json: bool) -> int:
    """Print a link for this user. From another machine, or with a `port`, stay: a port of the
    loopback of this machine leads to the pages until ctrl-C.
    """
    port = None if stated is None else parse_port(stated)
    if port is None and settings.rpc_target().path is not None:
        _tell(_link(None), json)
        return 0
    listening = _listen(port)
    _tell(_link(listening.getsockname()[1]), json)
    print(
        "The pages are there as long as this command runs. Type ctrl-C to stop.", file=sys.stderr
    )
    sys.stdout.flush()
    asyncio.run(serve(listening, "REQ_WEB", {}, told=False))
    return 0


def _tell(values: dict[str, Any], json: bool) -> None:
    if json:
        from walt.client.output import print_json

        print_json(values)
    else:
        print(values["link"])


def _link(port: int | None) -> dict[str, Any]:
    session = Session()
    values = {} if port is None else {"port": port}
    answer = session.call("cs.web.invite", **values)
    session.close()
    link = f"{answer[b'origin'].decode()}/ui/#code={answer[b'code'].decode()}"
    return {"link": link, "expires": float(answer[b"expires"])}


def _listen(port: int | None) -> socket.socket:
    """Listen on the loopback alone: at a port, else at the usual one, else at a free one."""
    reason = ""
    for one in (PORT, 0) if port is None else (port,):
        try:
            return socket.create_server(("127.0.0.1", one), backlog=128)
        except OSError as error:
            reason = in_words(error)
    raise Failure(f"cannot listen on port {port} of 127.0.0.1: {reason}")


def log_out(json: bool) -> int:
    """End all sessions of this user at the pages."""
    count = int(Session().call("cs.web.leave")[b"count"])
    if json:
        from walt.client.output import print_json

        print_json({"ended": count})
    else:
        print("No session was open." if not count else f"Sessions that were ended: {count}.")
    return 0
