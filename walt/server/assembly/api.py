"""What answers calls of clients, nodes and tools."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.protocols.amp import CommandLocator

from walt.server.adapters.postgres.changes import PostgresChanges
from walt.server.adapters.postgres.checkpoints import PostgresCheckpoints
from walt.server.api.access import AccessApi
from walt.server.api.devices import (
    AnnouncementsApi,
    ChangesApi,
    DevicesApi,
    NeighboursApi,
    RegistrationApi,
    SwitchesApi,
)
from walt.server.api.experiments import ExperimentsApi
from walt.server.api.images import ImagesApi
from walt.server.api.keys import KeysApi
from walt.server.api.logs import LogsApi
from walt.server.api.nodes import (
    NodeFilesApi,
    NodeRecordsApi,
    NodesApi,
    NodeTablesApi,
    PlansApi,
    ReservationsApi,
    VirtualNodesApi,
)
from walt.server.api.registries import RegistriesApi
from walt.server.api.server import ClockApi, DatabaseApi, ServerApi
from walt.server.api.vpn import VpnApi
from walt.server.api.web import WebAccessApi
from walt.server.assembly.access import Certificates
from walt.server.assembly.base import Base
from walt.server.assembly.client_package import ClientPackage
from walt.server.assembly.daemons import Daemons
from walt.server.assembly.images import ImageLife, Images
from walt.server.assembly.nodes import Nodes
from walt.server.assembly.vpn import Vpn
from walt.server.domain.nodes.announcements import Announcements
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.nodes.plans import Plans
from walt.server.domain.nodes.remote_paths import RemotePaths
from walt.server.domain.nodes.saving import NodeChanges
from walt.server.domain.platform import Operations
from walt.server.domain.requester import IRequester
from walt.server.runtime.workflow import Workflows
from walt.server.wire.old_nodes import OldNodes
from walt.server.wire.peers import Identity

Locators = Callable[[IRequester, Identity], list[CommandLocator]]


def build_api(
    base: Base, daemons: Daemons, images: Images, nodes: Nodes, vpn: Vpn, life: ImageLife,
    certificates: Certificates, issuers: LogIssuers, ui_port: int | None,
) -> tuple[Locators, OldNodes]:
    """Return what makes the responders of a connection, and what answers nodes of WalT 10."""
    registry, operations, switches = base.registry, life.operations, nodes.switches
    clock, now = base.reactor, time.time
    server_ip = str(base.config.server_ip)
    checkpoints = PostgresCheckpoints(base.database)
    recorded = PostgresChanges(base.database)
    reports = NeighbourReports(
        registry, switches.exploration, base.platform,
        convert=base.config.reported_switches == "convert",
    )
    views = DeviceViews(
        registry, nodes.status.is_booted, switches.views.where, server_ip, base.reactor
    )
    announcements = Announcements(
        registry, nodes.registration, nodes.leases, server_ip, base.reactor
    )
    completion = Completion(
        registry, images.service, operations.places, checkpoints,
        RemotePaths(registry, images.service, nodes.files, life.files, base.reactor),
        base.logs.former,
    )
    changes = NodeChanges(nodes.service, nodes.files, nodes.shell, operations.sessions)
    plans = Plans(registry, nodes.status, nodes.reservations, nodes.open_sessions)
    health = Operations(base.health.services, lambda: workflow_rows(base.workflows))
    package = ClientPackage(base.runner, base.config.paths.cache)

    def locators(requester: IRequester, identity: Identity) -> list[CommandLocator]:
        return [
            NodeTablesApi(requester, nodes.views),
            NodeRecordsApi(requester, nodes.service, views, clock),
            NodesApi(requester, nodes.service), VirtualNodesApi(requester, nodes.virtual),
            ReservationsApi(
                requester, registry, nodes.service, nodes.reservations, images.service
            ),
            ExperimentsApi(requester, nodes.experiments),
            NodeFilesApi(requester, nodes.files, changes), KeysApi(requester, nodes.keys),
            PlansApi(requester, nodes.configuration, plans, clock),
            DevicesApi(requester, views, nodes.configuration),
            ChangesApi(recorded, registry),
            SwitchesApi(
                requester, switches.exploration, switches.power, switches.views, clock
            ),
            RegistrationApi(nodes.registration, announcements),
            AnnouncementsApi(announcements, views, identity.ip),
            NeighboursApi(reports, identity.ip),
            ImagesApi(requester, images.service, operations),
            RegistriesApi(requester, operations),
            LogsApi(requester, base.logs, issuers, checkpoints, now),
            ClockApi(clock, now), ServerApi(requester, completion, health, package.piece),
            DatabaseApi(identity.account, base.database.variables),
            VpnApi(vpn.nodes, vpn.settings),
            AccessApi(
                certificates.access, nodes.keys, certificates.names[0],
                reachable=base.config.namespace is None, serial=identity.serial,
                peer=identity.ip or identity.origin,
            ),
            WebAccessApi(requester, certificates.web, identity.serial, ui_port),
        ]

    return locators, OldNodes(
        registry, announcements, reports, views, nodes.keys, vpn.nodes, clock, now
    )


def workflow_rows(workflows: Workflows) -> list[dict[str, Any]]:
    """Return one row for each running workflow, ages in seconds."""
    return [
        {
            "name": workflow.name, "step": workflow.step, "age": round(workflow.age, 1),
            "step_age": round(workflow.step_age, 1), "remaining": list(workflow.remaining),
        }
        for workflow in workflows.running()
    ]
