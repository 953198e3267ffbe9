"""What `walt web` prints: a link to the pages, which it may carry a browser to."""

from __future__ import annotations

import asyncio
import sys

from walt.client import settings
from walt.client.operations import web
from walt.client.operations.exposing import parse_port, serve
from walt.client.session import Session

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
    listening = web.listen(port)
    _tell(_link(listening.getsockname()[1]), json)
    print(
        "The pages are there as long as this command runs. Type ctrl-C to stop.", file=sys.stderr
    )
    sys.stdout.flush()
    asyncio.run(serve(listening, "REQ_WEB", {}, _told))
    return 0


def _told(text: str, wrong: bool) -> None:
    if wrong:
        print(text, file=sys.stderr, flush=True)


def _tell(values: dict[str, Any], json: bool) -> None:
    if json:
        from walt.client.output import print_json

        print_json(values)
    else:
        print(values["link"])


def _link(port: int | None) -> dict[str, Any]:
    session = Session()
    values = web.link(session, port)
    session.close()
    return values


def log_out(json: bool) -> int:
    """End all sessions of this user at the pages."""
    count = web.leave(Session())
    if json:
        from walt.client.output import print_json

        print_json({"ended": count})
    else:
        print("No session was open." if not count else f"Sessions that were ended: {count}.")
    return 0
