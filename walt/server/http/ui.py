"""`/ui/`: the pages of the platform, who comes in, and the socket behind them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.util import Redirect

from walt.common.errors import Denied, Invalid
from walt.common.texts import load_json
from walt.server.domain.access.web_model import WebSession
from walt.server.http.answers import ErrorResource, answer_error
from walt.server.http.peer_limits import BoundedRequest, QuietSite
from walt.server.http.ui_policy import (
    Doorkeeper,
    cookie_name,
    from_own_page,
    key_of_socket,
    own_origin,
    seal,
)

if TYPE_CHECKING:
    from walt.server.http.tab import Tab

_log = Logger()

PROTOCOL = "walt.1"  # the subprotocol of the socket
SLOW = 2.0  # seconds until a wrong code is answered
MAX_SLOW = 20  # wrong codes that wait for their answer; those above are answered at once
LONGEST_CODE = 100
COOKIE_AGE = 30 * 86400  # seconds
DOCUMENT = "page.html"
KINDS = {
    ".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8", ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
NOT_HERE = (
    "The pages of this server were not made: run `make assets` in its sources, and start it anew."
)


@dataclass(frozen=True)
class Asset:
    """A file of the pages: plain, known by a hash, and packed when somebody asks for it."""

    kind: bytes
    plain: bytes
    tag: bytes

    @cached_property
    def packed(self) -> bytes:
        """What is sent (gzip)."""
        return gzip.compress(self.plain, 6, mtime=0)


def load_assets() -> dict[str, Asset]:
    """Read the files of the pages, by path; to be done once."""
    found: dict[str, Asset] = {}
    root = files("walt.server.http.assets")
    for name, file in (*_below(root, ""), *_below(root / "vendor", "vendor/")):
        kind = KINDS.get("." + name.rpartition(".")[2])
        if kind is not None:
            plain = file.read_bytes()
            found[name] = Asset(
                kind, plain, b'"' + sha256(plain).hexdigest()[:32].encode() + b'"',
            )
    return found


def _below(directory: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    if not directory.is_dir():
        return []
    return [(prefix + entry.name, entry) for entry in directory.iterdir() if entry.is_file()]


class _File(Resource):
    isLeaf = True

    def __init__(self, asset: Asset) -> None:
        super().__init__()
        self._asset = asset

    def render_GET(self, request: Any) -> bytes:
        asset = self._asset
        request.setHeader(b"content-type", asset.kind)
        request.setHeader(b"cache-control", b"no-cache")  # asked again, and not sent again
        request.setHeader(b"vary", b"accept-encoding")
        if request.setETag(asset.tag):
            return b""
        body = asset.plain
        if b"gzip" in (request.getHeader(b"accept-encoding") or b""):
            request.setHeader(b"content-encoding", b"gzip")
            body = asset.packed
        request.setHeader(b"content-length", b"%d" % len(body))
        return b"" if request.method == b"HEAD" else body


class _Files(Resource):
    def __init__(self, assets: dict[str, Asset]) -> None:
        super().__init__()
        self._assets = assets

    def getChild(self, path: bytes, request: Any) -> Resource:
        name = b"/".join([path, *request.postpath]).decode("ascii", "replace")
        if name in self._assets:
            request.postpath.clear()
            return _File(self._assets[name])
        return ErrorResource(404, "No such file.")


class _Login(Resource):
    """`POST /ui/login`: the code of a link becomes a cookie and a key."""

    isLeaf = True

    def __init__(self, door: Doorkeeper, clock: IReactorTime) -> None:
        super().__init__()
        self._door = door
        self._clock = clock
        self._slow = 0

    def render_POST(self, request: Any) -> Any:
        origin = from_own_page(request)
        if origin is None:
            return answer_error(request, 403, "This is for the pages of this server alone.")
        try:
            secrets = self._door.begin(request, _code(request), origin)
        except Invalid as error:
            return answer_error(request, 400, str(error))
        except Denied as error:
            return self._wrong(request, str(error))
        request.addCookie(
            cookie_name(origin).encode(), secrets.cookie.encode(), path=b"/ui", httpOnly=True,
            sameSite=b"strict", max_age=b"%d" % COOKIE_AGE,
        )
        return _json(request, {"key": secrets.key, "user": secrets.session.entry.user})

    def _wrong(self, request: Any, text: str) -> Any:
        if self._slow >= MAX_SLOW:
            return answer_error(request, 429, text)
        self._slow += 1
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer() -> None:
            self._slow -= 1
            if not gone:
                request.write(answer_error(request, 403, text))
                request.finish()

        self._clock.callLater(SLOW, answer)
        return NOT_DONE_YET


def _code(request: Any) -> str:
    if request.getHeader("content-type") != "application/json":
        raise Invalid("A code comes as JSON.")
    try:
        value = load_json(request.content.read())
    except ValueError:
        raise Invalid("This is no JSON.") from None
    code = value.get("code") if isinstance(value, dict) else None
    if not isinstance(code, str) or len(code) > LONGEST_CODE:
        raise Invalid("A code is missing.")
    return code


def _json(request: Any, value: object) -> bytes:
    body = json.dumps(value).encode()
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


class _Known(Resource):
    """`POST /ui/known`: whether the requester is in, and who it is."""

    isLeaf = True

    def __init__(self, door: Doorkeeper) -> None:
        super().__init__()
        self._door = door

    def render_POST(self, request: Any) -> bytes:
        session = self._door.session_of(request, request.getHeader("x-walt-key"))
        if session is None:
            return answer_error(request, 403, "Who is this? Type: walt web")
        return _json(request, {"user": session.entry.user})


class _Logout(Resource):
    """`POST /ui/logout`: the session ends."""

    isLeaf = True

    def __init__(self, door: Doorkeeper) -> None:
        super().__init__()
        self._door = door

    def render_POST(self, request: Any) -> bytes:
        session = self._door.session_of(request, request.getHeader("x-walt-key"))
        if session is None:
            return answer_error(request, 403, "Who is this? Type: walt web")
        self._door.sessions.end(session.cookie)
        return _json(request, {})


MakeTab = Callable[[WebSession, Callable[["Tab"], object]], "Tab"]


class _Socket(Resource):
    """`/ui/socket`: the socket of one tab."""

    isLeaf = True

    def __init__(self, door: Doorkeeper, make: MakeTab, clock: IReactorTime) -> None:
        super().__init__()
        self._door = door
        self._make = make
        self._clock = clock
        self._tabs: dict[str, set[Tab]] = {}  # by session
        door.sessions.ended.observe(self._end)

    def render_GET(self, request: Any) -> Any:
        session = self._door.session_of(request, key_of_socket(request))
        if session is None:
            return answer_error(request, 403, "Who is this? Type: walt web")
        from walt.server.http.websocket import WebSocket, upgrade

        tab = self._make(session, self._gone)
        self._tabs.setdefault(session.cookie, set()).add(tab)  # it may be over at once
        if not upgrade(request, WebSocket(tab, self._clock), PROTOCOL):
            self._gone(tab)
            return answer_error(request, 400, "A WebSocket (RFC 6455) is wanted here.")
        return NOT_DONE_YET

    def _gone(self, tab: Tab) -> None:
        tabs = self._tabs.get(tab.session.cookie, set())
        tabs.discard(tab)
        if not tabs:
            self._tabs.pop(tab.session.cookie, None)

    def _end(self, cookie: str) -> None:
        for tab in list(self._tabs.get(cookie, ())):
            tab.end()


class _Ui(Resource):
    """What is below `/ui/`. Every page is one document, which looks at its address."""

    def __init__(self, assets: dict[str, Asset]) -> None:
        super().__init__()
        complete = DOCUMENT in assets and "vendor/pages.js" in assets
        self._document = _File(assets[DOCUMENT]) if complete else ErrorResource(503, NOT_HERE)
        self.putChild(b"assets", _Files(assets))

    def getChild(self, path: bytes, request: Any) -> Resource:
        request.postpath.clear()
        return self._document

    def render_GET(self, request: Any) -> Any:
        return self._document.render(request)


class _Root(Resource):
    """The site: only for requests that name a loopback address as their host."""

    def getChildWithDefault(self, path: bytes, request: Any) -> Any:
        seal(request)
        if own_origin(request) is None:
            request.postpath.clear()
            return ErrorResource(403, "These pages are found at http://127.0.0.1 alone.")
        return super().getChildWithDefault(path, request)

    def getChild(self, path: bytes, request: IRequest) -> Resource:
        return ErrorResource(404, "No such page; they are below /ui/.")


def make_ui_site(door: Doorkeeper, make: MakeTab, clock: IReactorTime, **options: Any) -> Site:
    """Return the site of the pages; `make` gives who uses the socket of a tab."""
    root, ui = _Root(), _Ui(load_assets())
    root.putChild(b"", Redirect(b"/ui/nodes"))
    root.putChild(b"ui", ui)
    ui.putChild(b"login", _Login(door, clock))
    ui.putChild(b"known", _Known(door))
    ui.putChild(b"logout", _Logout(door))
    ui.putChild(b"socket", _Socket(door, make, clock))
    return QuietSite(root, BoundedRequest, **options)
