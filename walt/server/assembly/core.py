"""Builds the parts of a server and joins them (no start, no stop)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from walt.server.adapters.postgres.checkpoints import PostgresCheckpoints
from walt.server.adapters.tftpd.boot_files import BootFiles
from walt.server.api.context import Context
from walt.server.assembly.access import Certificates
from walt.server.assembly.base import Base, build_base
from walt.server.assembly.client_package import ClientPackage
from walt.server.assembly.daemons import Daemons, build_daemons
from walt.server.assembly.images import ImageLife, Images, build_images, image_life
from walt.server.assembly.nodes import Nodes, build_nodes
from walt.server.config.model import ServerConfig
from walt.server.domain.nodes.announcements import Announcements
from walt.server.domain.nodes.changes import NodeChanges
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.image_users import ImageUsers
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.nodes.plans import OpenSessions, Plans
from walt.server.domain.nodes.remote_paths import RemotePaths
from walt.server.domain.platform import Operations
from walt.server.runtime.process import Launcher
from walt.server.runtime.workflow import Workflows


@dataclass(frozen=True)
class Core:
    """The parts of one server, joined; `context` is what calls of clients and nodes work on."""

    base: Base
    daemons: Daemons
    images: Images
    nodes: Nodes
    image_life: ImageLife
    certificates: Certificates
    boot_files: BootFiles
    context: Context


def build(
    reactor: Any, config: ServerConfig, launcher: Launcher,
    host_network: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Core:
    """Build every object; nothing is started and nothing outside is touched.

    `host_network` gives a context in which sockets are opened in the host's network.
    """
    base = build_base(reactor, config, launcher)
    daemons = build_daemons(base)
    images = build_images(base)
    nodes = build_nodes(base, daemons, images, host_network)
    life = image_life(
        base, images, ImageUsers(base.registry, nodes.rebooter, nodes.provisioning.update)
    )
    certificates = Certificates(base.reactor, config, base.database, base.platform)
    return Core(
        base=base, daemons=daemons, images=images, nodes=nodes, image_life=life,
        certificates=certificates, boot_files=BootFiles(config.paths.state),
        context=_context(base, daemons, images, nodes, life, certificates),
    )


def _context(
    base: Base, daemons: Daemons, images: Images, nodes: Nodes, life: ImageLife,
    certificates: Certificates,
) -> Context:
    registry, platform, operations = base.registry, base.platform, life.operations
    checkpoints = PostgresCheckpoints(base.database)
    exploration = nodes.switches.exploration
    open_sessions = OpenSessions(base.reactor)
    reports = NeighbourReports(registry, exploration, platform)
    reports.labelled, reports.look_again = exploration.labelled, exploration.look_again
    return Context(
        registry=registry, nodes=nodes.service, configuration=nodes.configuration,
        completion=Completion(
            registry, images.service, operations.places, checkpoints,
            RemotePaths(registry, images.service, nodes.files, life.files, base.reactor),
            base.logs.former,
        ),
        registration=nodes.registration,
        announcements=Announcements(
            registry, nodes.registration, daemons.leases.book, str(base.config.server_ip),
            base.reactor,
        ),
        status=nodes.status, views=nodes.views, reservations=nodes.reservations,
        images=images.service, image_operations=operations, files=nodes.files,
        changes=NodeChanges(nodes.service, nodes.files, nodes.shell, operations.sessions),
        logs=base.logs, platform=platform, issuers=LogIssuers(registry, base.logs.former),
        checkpoints=checkpoints,
        virtual=nodes.virtual,
        operations=Operations(daemons.health.services, lambda: workflow_rows(base.workflows)),
        neighbours=reports, exploration=exploration, network=nodes.switches.views,
        access=certificates.access, keys=nodes.keys, open_sessions=open_sessions,
        plans=Plans(nodes.status, nodes.reservations, open_sessions), host=certificates.names[0],
        reachable=base.config.namespace is None,
        client_package=ClientPackage(base.runner, base.config.paths.cache).piece,
        server_ip=str(base.config.server_ip), clock=base.reactor, now=time.time,
    )


def workflow_rows(workflows: Workflows) -> list[dict[str, Any]]:
    """Return one row for each running workflow, ages in seconds."""
    return [
        {
            "name": one.name, "step": one.step, "age": round(one.age, 1),
            "step_age": round(one.step_age, 1), "remaining": list(one.remaining),
        }
        for one in workflows.running()
    ]
