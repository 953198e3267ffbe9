"""Metrics, and the documentation as HTML."""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.util import redirectTo

from walt.server.http.answers import ErrorResource, answer_error
from walt.server.http.logo import logo
from walt.server.http.policy import HEADERS

if TYPE_CHECKING:
    from walt.server.http.markdown import HtmlPages

_TOPIC = re.compile(rb"([a-z][a-z0-9-]{0,60})\.html")
_NAME = "WalT documentation"
_STYLE = """
:root { color-scheme: light dark; --faint: #f2f2f4; --edge: #c8c8d0; --link: #0060a8; }
@media (prefers-color-scheme: dark) {
  :root { --faint: #26262c; --edge: #50505a; --link: #6cb8ff; }
}
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
a { color: var(--link); }
h1, h2, h3 { line-height: 1.25; }
h1 img { vertical-align: middle; }
code { background: var(--faint); padding: .1em .25em; border-radius: 3px; font-size: .9em; }
pre { background: var(--faint); padding: .8rem 1rem; border-radius: 5px; overflow-x: auto; }
pre code { padding: 0; }
table { border-collapse: collapse; }
th, td { border: 1px solid var(--edge); padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--edge); }
"""
# The style sheet of the page itself, known by its hash, and nothing else (CSP level 2).
_POLICY = (
    b"default-src 'none'; img-src 'self'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode()).digest()) + b"'"
)


class Metrics(Resource):
    """`/metrics`: the text format of Prometheus."""

    isLeaf = True

    def __init__(self, page: Callable[[], bytes]) -> None:
        super().__init__()
        self._page = page

    def render_GET(self, request: IRequest) -> bytes:
        """Return all metrics."""
        request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        return self._page()


class _Page(Resource):
    isLeaf = True

    def __init__(self, body: bytes, kind: bytes) -> None:
        super().__init__()
        self._body, self._kind = body, kind

    def render_GET(self, request: IRequest) -> bytes:
        for name, value in {**HEADERS, b"content-security-policy": _POLICY}.items():
            request.setHeader(name, value)
        request.setHeader(b"content-type", self._kind)
        request.setHeader(b"content-length", b"%d" % len(self._body))
        return self._body


class _Static(Resource):
    """What pages show besides their text."""

    def __init__(self) -> None:
        super().__init__()
        self.putChild(b"logo-walt.png", _Page(logo(), b"image/png"))

    def getChild(self, path: bytes, request: IRequest) -> Resource:
        return ErrorResource(404, "No such file.")

    def render_GET(self, request: IRequest) -> bytes:
        return answer_error(request, 404, "No such file.")


class Documentation(Resource):
    """`/doc/`: the pages of `walt help`; `/doc/TOPIC.html` is one of them.

    They are read when somebody asks for one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, bytes] = {}  # by topic, as they are asked for
        self.putChild(b"_static", _Static())

    @cached_property
    def _topics(self) -> dict[str, str]:
        texts = {
            path.name[:-len(".md")]: path.read_text(encoding="utf-8")
            for path in files("walt.doc").iterdir() if path.name.endswith(".md")
        }
        return dict(sorted(texts.items()))

    @cached_property
    def _pages(self) -> HtmlPages:
        from walt.server.http.markdown import HtmlPages

        return HtmlPages(self._topics)

    def render_GET(self, request: IRequest) -> bytes:
        """Lead `/doc` to `/doc/`, as the links of pages are relative."""
        return redirectTo(b"/doc/", request)

    def getChild(self, path: bytes, request: IRequest) -> Resource:
        """Return a topic, or the list of them."""
        name = None
        if path in (b"", b"index.html"):
            name = ""
        else:
            match = _TOPIC.fullmatch(path)
            if match is not None and match[1].decode() in self._topics:
                name = match[1].decode()
        if name is None:
            return ErrorResource(404, "No such page.")
        if name not in self._made:
            self._made[name] = self._topic(name) if name else self._index()
        return _Page(self._made[name], b"text/html; charset=utf-8")

    def _topic(self, name: str) -> bytes:
        text = self._topics[name]
        back = f'<nav><a href="index.html">{_NAME}</a></nav>'
        return _document(f"{_title(text)} - {_NAME}", back + self._pages.body(text))

    def _index(self) -> bytes:
        rows = "".join(
            f'<tr><td><a href="{name}.html">{name}</a></td>'
            f"<td>{html.escape(_title(text))}</td></tr>"
            for name, text in self._topics.items()
        )
        return _document(
            _NAME,
            f'<h1><img src="_static/logo-walt.png" alt="" height="52"> {_NAME}</h1>'
            f"<p>These are the pages of <code>walt help show &lt;topic&gt;</code>.</p>"
            f"<table>{rows}</table>",
        )


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ").strip()


def _document(title: str, body: str) -> bytes:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    ).encode()
