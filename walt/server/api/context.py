"""The domain services that responders translate to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from walt.server.domain.access.service import Access
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images.operations import ImageOperations
from walt.server.domain.images.service import ImageService
from walt.server.domain.logs.ports import ICheckpoints
from walt.server.domain.logs.service import LogService, PlatformLog
from walt.server.domain.nodes.announcements import Announcements
from walt.server.domain.nodes.changes import NodeChanges
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.files import NodeFiles
from walt.server.domain.nodes.issuers import LogIssuers
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.nodes.neighbours import NeighbourReports
from walt.server.domain.nodes.plans import OpenSessions, Plans
from walt.server.domain.nodes.registration import Registration
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.service import NodeService
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.platform import Operations
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.views import SwitchViews
from walt.server.domain.virtual.service import VirtualNodes


@dataclass(frozen=True)
class Context:
    """Everything the API reaches; `now` returns epoch seconds.

    `host` is the name under which other machines reach this server, `reachable` whether
    they can; `client_package` returns the name and the size of the wheel of this release, and
    so many bytes of it from an offset on.
    """

    registry: DeviceRegistry
    nodes: NodeService
    configuration: Configuration
    completion: Completion
    registration: Registration
    announcements: Announcements
    status: BootStatus
    views: NodeViews
    reservations: Reservations
    images: ImageService
    image_operations: ImageOperations
    files: NodeFiles
    changes: NodeChanges
    logs: LogService
    platform: PlatformLog
    issuers: LogIssuers
    checkpoints: ICheckpoints
    virtual: VirtualNodes
    operations: Operations
    neighbours: NeighbourReports
    exploration: Exploration
    network: SwitchViews
    access: Access
    keys: UserKeys
    open_sessions: OpenSessions
    plans: Plans
    host: str
    reachable: bool
    client_package: Callable[[int, int], Awaitable[tuple[str, int, bytes]]]
    server_ip: str
    clock: IReactorTime
    now: Callable[[], float]
