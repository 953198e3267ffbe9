"""The web pages of a server, and what its metrics show."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.web.resource import IResource

from walt.server.adapters.tftpd.boot_files import open_inside
from walt.server.api.session import MAX_CALLS
from walt.server.assembly.core import Core
from walt.server.config.model import Paths
from walt.server.domain.shares import MAX_SESSIONS, MAX_STREAMS
from walt.server.http.api import Api, WebApi
from walt.server.http.loaders import Loaders
from walt.server.http.pages import Documentation, Metrics
from walt.server.http.peer_limits import CountedSite
from walt.server.http.policy import Guarded, Readers
from walt.server.http.site import make_site
from walt.server.http.vpn import vpn_pages
from walt.server.http.vpn_requesters import Requesters
from walt.server.runtime.metrics import Metrics as Counters
from walt.server.wire.connections import DOORS, WEB, Connections, Kind


def metrics_of(core: Core, connections: Connections) -> Counters:
    """Return the counters of a server, which read its state when asked."""
    found = Counters()
    registry, status = core.base.registry, core.nodes.status
    found.gauge("walt_connections", "Connections of ports 12345 and 12347, now",
                lambda: connections.open)
    found.gauge("walt_connections_refused", "Connections refused since the start, above a limit",
                lambda: connections.refused)
    found.gauges("walt_limit", "Limits of docs/limits.md", "name", lambda: {
        "connections": DOORS.together, "connections_of_node": DOORS.shares[Kind.NODE].each,
        "connections_of_other": DOORS.shares[Kind.ELSEWHERE].each,
        "web_connections": WEB.together,
        "web_connections_of_address": WEB.shares[Kind.NODE].each, "sessions_of_user": MAX_SESSIONS,
        "streams_of_user": MAX_STREAMS, "calls_of_connection": MAX_CALLS,
    })
    found.gauges("walt_devices", "Known devices, by type", "type", lambda: {
        kind: registry.count(kind) for kind in ("node", "switch", "unknown")
    })
    found.gauge("walt_nodes_booted", "Nodes that are booted", lambda: status.count)
    found.gauge("walt_images", "Names in the image store", lambda: len(core.images.service.all()))
    found.gauge("walt_log_lines_accepted", "Log lines since the start",
                lambda: core.base.logs.accepted)
    archive = core.base.log_archive
    if archive is not None:
        moving = archive.archiving
        found.gauge("walt_log_lines_archived", "Log lines archived since the start",
                    lambda: moving.moved)
    found.gauge("walt_log_archive_trouble", "1 if log lines could not be archived",
                lambda: int(archive is not None and archive.archiving.problem is not None))
    found.gauge("walt_workflows", "Workflows that run now",
                lambda: len(core.base.workflows.running()))
    found.gauges("walt_service_up", "1 if a daemon runs and answers", "service", lambda: {
        # One that is not wanted (yet) is not down: ganesha starts with the first image.
        str(row["name"]): float(row["state"] == "running")
        for row in core.base.health.services() if row["state"] != "stopped"
    })
    found.gauges("walt_service_restarts", "Restarts of a daemon", "service", lambda: {
        str(row["name"]): row["restarts"] for row in core.base.health.services()
    })
    places = _places(core.base.config.paths)
    found.gauges("walt_disk_free_bytes", "Free space of file systems", "place", lambda: {
        name: space.f_bavail * space.f_frsize for name, space in _spaces(places)
    })
    found.gauges("walt_disk_size_bytes", "Size of file systems", "place", lambda: {
        name: space.f_blocks * space.f_frsize for name, space in _spaces(places)
    })
    started = time.time()
    found.gauge("walt_start_time_seconds", "When this server was started, epoch seconds",
                lambda: started)
    return found


def _places(paths: Paths) -> dict[str, Path]:
    return {"state": paths.state, "images": paths.images}


def disk_rows(paths: Paths) -> list[dict[str, Any]]:
    """Return size and free space of the file systems of the server, in bytes."""
    return [
        {
            "place": name, "path": str(_places(paths)[name]),
            "size": space.f_blocks * space.f_frsize, "free": space.f_bavail * space.f_frsize,
        }
        for name, space in _spaces(_places(paths))
    ]


def _spaces(places: Mapping[str, Path]) -> Iterator[tuple[str, os.statvfs_result]]:
    """Yield what the kernel tells of the file systems that can be asked."""
    for name, path in places.items():
        try:
            yield name, os.statvfs(path)
        except OSError:
            continue


def web_site(core: Core, counters: Counters) -> CountedSite:
    """Return the site of the web port."""
    connections = Connections(WEB, core.kind)
    config = core.base.config
    readers = Readers(
        frozenset(name.lower() for name in core.certificates.names), config.web_clients,
        config.remote_clients == "open",
    )
    counters.gauge("walt_web_connections", "Connections of the web port, now",
                   lambda: connections.open)
    pages = _pages(core, counters, readers)

    def watch(ip: str, path: str, found: bool) -> None:
        (core.nodes.progress.boot_file if found else core.nodes.virtual.no_boot_file)(ip, path)

    requesters = Requesters(
        str(config.server_ip),
        readers.names | {"server", "server.walt", (config.vpn.http_entrypoint or "server").lower()},
        lambda: core.vpn.requester_key,
    )
    site = make_site(
        core.boot_files, pages, readers, watch, core.nodes.provisioning.begins_at,
        lambda boot: vpn_pages(
            core.vpn.nodes, core.boot_files, boot, core.vpn.signatures,
            requesters=requesters, name=core.vpn.name, seconds=core.base.reactor.seconds,
        ),
    )
    return CountedSite(site, connections)


def _pages(core: Core, counters: Counters, readers: Readers) -> dict[str, IResource]:
    """Return the pages besides the index and boot files, by the start of their path."""
    api = WebApi(
        core.base.registry, core.nodes.views, core.images.service, core.base.logs,
        core.base.health.services, core.base.reactor,
    )
    return {
        "api": Guarded(readers, Api(api)),
        "metrics": Guarded(readers, Metrics(counters.page)),
        "doc": Documentation(),
        "pxe": Loaders(partial(open_inside, core.base.config.paths.state / "pxe", ())),
    }
