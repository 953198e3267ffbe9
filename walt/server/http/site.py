"""The web pages of the platform: what is where (spec server §1.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.util import Redirect

from walt.server.domain.network_services.interfaces import IBootFiles
from walt.server.http.answers import ErrorResource
from walt.server.http.boot import BootResource, Prepare, Watch
from walt.server.http.peer_limits import BoundedRequest, QuietSite
from walt.server.http.policy import OWN_MACHINE, Readers

INDEX = b"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>WalT server</title></head>
<body>
<h1>WalT server HTTP service</h1>
<ul>
<li><a href="/doc/">Documentation</a></li>
<li><a href="/api/">Web API</a></li>
<li><a href="/metrics">Metrics</a></li>
</ul>
</body>
</html>
"""


class _Index(Resource):
    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        request.setHeader(b"content-length", b"%d" % len(INDEX))
        return INDEX


class _Root(Resource):
    def getChild(self, path: bytes, request: IRequest) -> Resource:
        return ErrorResource(404, "No such page.")


def make_site(
    files: IBootFiles, pages: Mapping[str, IResource] | None = None,
    readers: Readers = OWN_MACHINE,
    watch: Watch = lambda node, path, found: None,
    prepare: Prepare = lambda node: None,
    vpn: Callable[[BootResource], IResource] | None = None, **options: Any,
) -> Site:
    """Return the site of the server.

    `files` provides IBootFiles; `pages` adds resources by the first part of
    their path (`api`, `metrics`, `doc`), a KleinResource for
    instance; `readers` may see the boot files of any node; `watch` gets what
    nodes ask for; `prepare` is called with the address of a node before it gets a file (see
    BootResource); `vpn` makes the pages of the VPN with what sends boot files; `options` go to
    twisted.web's Site.
    """
    root = _Root()
    root.putChild(b"", _Index())
    root.putChild(b"index.html", _Index())
    root.putChild(b"favicon.ico", Redirect(b"/doc/_static/logo-walt.png"))
    boot = BootResource(files, readers, watch, prepare)
    root.putChild(b"boot", boot)
    if vpn is not None:
        root.putChild(b"walt-vpn", vpn(boot))
    for name, page in (pages or {}).items():
        root.putChild(name.encode(), page)
    return QuietSite(root, BoundedRequest, **options)
