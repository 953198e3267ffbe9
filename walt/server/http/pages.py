"""Metrics, and the documentation as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from importlib.resources import files

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from walt.server.http.answers import ErrorResource

_TOPIC = re.compile(rb"([a-z][a-z0-9-]{0,60})\.html")


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


class _Topic(Resource):
    isLeaf = True

    def __init__(self, title: str, body: str) -> None:
        super().__init__()
        self._page = (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"</head><body>{body}</body></html>\n"
        ).encode()

    def render_GET(self, request: IRequest) -> bytes:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return self._page


class Documentation(Resource):
    """`/doc/`: the pages of `walt help`; `/doc/TOPIC.html` is one of them."""

    def __init__(self) -> None:
        super().__init__()
        self._topics = {
            one.name[:-len(".md")]: one.read_text()
            for one in files("walt.doc").iterdir() if one.name.endswith(".md")
        }

    def getChild(self, path: bytes, request: IRequest) -> Resource:
        """Return a topic, or the list of them."""
        if path in (b"", b"index.html"):
            links = "".join(
                f'<li><a href="{name}.html">{name}</a></li>' for name in sorted(self._topics)
            )
            return _Topic("WalT documentation", f"<h1>WalT documentation</h1><ul>{links}</ul>")
        match = _TOPIC.fullmatch(path)
        text = self._topics.get(match[1].decode()) if match is not None else None
        if match is None or text is None:
            return ErrorResource(404, "No such page.")
        return _Topic(
            match[1].decode(),
            f'<p><a href="index.html">Documentation</a></p><pre>{html.escape(text)}</pre>',
        )
