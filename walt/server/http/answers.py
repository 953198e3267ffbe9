"""Errors in the form that the requester prefers (spec node-protocols §3.6)."""

from __future__ import annotations

import html
import json

from twisted.web.http import RESPONSES
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource


def preferred_format(prefer: str | None) -> str:
    """Return `text-only`, `json` or `html` from a header `Prefer: errors=…`."""
    for word in (prefer or "").replace(";", ",").split(","):
        name, _, value = word.strip().partition("=")
        if name.strip().lower() == "errors":
            wanted = value.strip().strip('"').lower()
            if wanted in ("text-only", "json"):
                return wanted
    return "html"


def answer_error(request: IRequest, status: int, text: str) -> bytes:
    """Set status and type of an error answer, and return its body.

    `text` is a sentence for people; with `errors=json` the body is
    `{"error", "status_code"}`.
    """
    request.setResponseCode(status)
    form = preferred_format(request.getHeader("prefer"))
    if form == "json":
        kind, body = "application/json", json.dumps({"error": text, "status_code": status})
    elif form == "text-only":
        kind, body = "text/plain; charset=utf-8", text + "\n"
    else:
        title = RESPONSES.get(status, b"Error").decode()
        body = (
            f"<!DOCTYPE html>\n<html><head><title>{status} {title}</title></head>"
            f"<body><h1>{title}</h1><p>{html.escape(text)}</p></body></html>\n"
        )
        kind = "text/html; charset=utf-8"
    raw = body.encode()
    request.setHeader(b"content-type", kind.encode())
    request.setHeader(b"content-length", b"%d" % len(raw))
    return b"" if request.method == b"HEAD" else raw


class ErrorResource(Resource):
    """Answers every request with one error."""

    isLeaf = True

    def __init__(self, status: int, text: str) -> None:
        super().__init__()
        self._status, self._text = status, text

    def render(self, request: IRequest) -> bytes:
        """Return the error in the preferred form."""
        return answer_error(request, self._status, self._text)
