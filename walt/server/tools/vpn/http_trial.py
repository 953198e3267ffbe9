"""Whether an HTTP entry point leads to this server (spec server §8.2)."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

TRIES, PAUSE = 3, 2.0  # seconds between two, and for an answer
PATH = "/walt-vpn/server"
LONGEST = 1024  # bytes of an answer
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # boards have no proxy


@contextmanager
def answering(name: str, port: int) -> Iterator[None]:
    """Answer meanwhile as the server does, unless it runs and has the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.partition("?")[0] == PATH
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(f"{name}\n".encode() if known else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a person is being asked on this terminal."""

    try:
        server = HTTPServer(("", port), Handler)
    except OSError:
        yield
        return
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def try_http(
    host: str, name: str, *, own_port: int = 80, port: int = 80, pause: float = PAUSE
) -> str | None:
    """Return why boards would not find this server by an entry point, None if they would.

    `name` is the full name of this server; `own_port` is that of its web pages. A server that
    does not run is answered for meanwhile.
    """
    with answering(name, own_port):
        return ask_http(host, name, port=port, pause=pause)


def ask_http(host: str, name: str, *, port: int = 80, pause: float = PAUSE) -> str | None:
    """Return the same of a server that runs."""
    wrong = ""
    for number in range(TRIES):
        if number:
            time.sleep(pause)
        try:
            with _OPENER.open(f"http://{host}:{port}{PATH}", timeout=pause) as answer:
                found = answer.read(LONGEST).decode(errors="replace").strip()
        except (OSError, ValueError, HTTPException) as error:
            wrong = f"http://{host}{PATH}: {getattr(error, 'reason', None) or error}"
            continue
        if found == name:
            return None
        wrong = f"http://{host}{PATH} answers {found[:80]!r}, not {name}"
    return wrong
