"""The pages for browsers: what they watch, on whose behalf they call, where they are."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import walt
from walt.server.api.json_calls import JsonCalls
from walt.server.assembly.api import workflow_rows
from walt.server.assembly.core import Core
from walt.server.assembly.web import disk_rows
from walt.server.domain.access.interfaces import IPeerAccounts
from walt.server.domain.access.web_model import WebSession
from walt.server.domain.nodes.live import LiveNodes
from walt.server.domain.shares import Shares
from walt.server.domain.switches.live import LiveSwitches
from walt.server.domain.topics import Rows, Topic
from walt.server.http.peer_limits import CountedSite
from walt.server.http.relayed import RelayedSite
from walt.server.http.ui import make_ui_site
from walt.server.http.ui_policy import Doorkeeper
from walt.server.runtime.metrics import Metrics
from walt.server.streams.base import Peer, RequestClass
from walt.server.streams.inside import PageStream
from walt.server.wire.connections import WEB, Connections
from walt.server.wire.peers import Identity

if TYPE_CHECKING:
    from walt.server.http.tab import Tab


def _rows(
    ask: Callable[[], Iterable[Mapping[str, Any]]], name: str
) -> Callable[[], Awaitable[Rows]]:
    """Return what gives the rows of a topic, known by one of their values."""

    async def rows() -> Rows:
        return {str(row[name]): json.dumps(row) for row in ask()}

    return rows


def _message(text: str) -> bytes:
    from walt.server.http.websocket import text_message

    return text_message(text)


def _topics(core: Core) -> dict[str, Topic]:
    """Return what there is to be watched, by name."""
    base, nodes, clock = core.base, core.nodes, core.base.reactor
    live = LiveNodes(nodes.views, nodes.switches.views.places, clock)
    images = core.images.service

    def image_rows() -> list[dict[str, Any]]:
        used = base.registry.images()
        return [image.row(image.fullname in used) for image in images.all()]

    asked: dict[str, Callable[[], Awaitable[Rows]]] = {
        "nodes": live.rows,
        "images": _rows(image_rows, "fullname"),
        "services": _rows(core.base.health.services, "name"),
        "workflows": _rows(lambda: [
            {"number": number, **row}
            for number, row in enumerate(workflow_rows(base.workflows))
        ], "number"),
        "disks": _rows(lambda: disk_rows(base.config.paths), "place"),
        "topology": LiveSwitches(nodes.switches.views, clock).rows,
        "experiments": _rows(lambda: [
            {"key": f"{row['user']}/{row['run']}", **row} for row in nodes.experiments.rows()
        ], "key"),
    }
    topics = {name: Topic(name, rows, _message, clock) for name, rows in asked.items()}
    nodes.experiments.changed.observe(topics["experiments"].changed)
    followed = topics["nodes"].changed
    base.registry.observe(followed)
    nodes.status.changed.observe(followed)
    nodes.progress.changed.observe(followed)
    return topics


def ui_sites(
    core: Core, table: Mapping[str, RequestClass], sessions: Shares, streams: Shares,
    metrics: Metrics, accounts: IPeerAccounts,
) -> tuple[CountedSite, RelayedSite]:
    """Return the site of the pages, for the loopback and for the socket of `REQ_WEB`.

    `table` has the requests of the stream port; `sessions` and `streams` limit what a user has
    open, by whatever way; `accounts` tells whose browsers of this machine are.
    """
    topics = _topics(core)

    def calls(session: WebSession, send: Callable[[str], object]) -> JsonCalls:
        entry = session.entry
        identity = Identity(
            "unix" if entry.serial is None else "certificate", account=entry.user, bound=True,
            serial=entry.serial,
        )
        return JsonCalls(
            lambda requester: core.locators(requester, identity), send, user=entry.user,
            observe=metrics.call, shares=sessions,
        )

    def stream(
        session: WebSession, send: Callable[[bytes], object], ended: Callable[[], object],
        late: Callable[[], bool],
    ) -> PageStream:
        peer = Peer(None, True, session.entry.user, True, streams)
        return PageStream(table, peer, core.base.reactor, send, ended, late)

    def tab(session: WebSession, gone: Callable[[Tab], object]) -> Tab:
        from walt.server.http.tab import Tab

        greeting = {
            "user": session.entry.user, "version": walt.__version__, "begun": session.begun,
            "time": core.base.reactor.seconds(),
        }
        return Tab(session, topics, calls, stream, greeting, gone)

    connections = Connections(WEB, core.kind)
    metrics.gauge("walt_ui_connections", "Connections of browsers to the pages, now",
                  lambda: connections.open)
    site = make_ui_site(Doorkeeper(core.certificates.web, accounts), tab, core.base.reactor)
    return CountedSite(site, connections), RelayedSite(site, connections)
