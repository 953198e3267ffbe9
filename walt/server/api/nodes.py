"""Commands about nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.protocols import amp

from walt.rpc.arguments import Written
from walt.rpc.commands import nodes as commands
from walt.server.api.many import written
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.sets import parse_devices
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.files import NodeFiles
from walt.server.domain.nodes.plans import Plans
from walt.server.domain.nodes.reboot import Outcome
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.saving import NodeChanges
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.requester import IRequester
from walt.server.domain.virtual.machines import VirtualNodes


class NodeTablesApi(amp.CommandLocator):
    """Tables of nodes."""

    def __init__(self, requester: IRequester, views: NodeViews) -> None:
        self._requester = requester
        self._views = views

    @commands.ShowNodes.responder
    async def show(self, all: bool) -> dict[str, Any]:
        """Return the rows of `walt node show --json`, by table."""
        user = self._requester.username
        return {"tables": Written(*await self._views.tables(user, show_all=all))}

    @commands.ListNodes.responder
    async def listed(self, all: bool) -> dict[str, Any]:
        """Return what the tables of `walt node show` show."""
        user = self._requester.username
        return {"tables": Written(*await self._views.listed(user, show_all=all))}


class NodeRecordsApi(amp.CommandLocator):
    """Which nodes a set has, what they are, how they booted."""

    def __init__(
        self, requester: IRequester, nodes: NodeService, devices: DeviceViews, clock: IReactorTime
    ) -> None:
        self._requester = requester
        self._nodes = nodes
        self._devices = devices
        self._clock = clock

    @commands.ExpandNodes.responder
    def expand(self, nodes: str) -> dict[str, Any]:
        """Return the names of a set of nodes, keywords replaced, sorted."""
        found = self._nodes.parse(nodes, self._requester)
        return {"names": [node.name for node in found]}

    @commands.GetNodes.responder
    async def get(self, nodes: str) -> dict[str, Any]:
        """Return the records of a set of nodes."""
        found = self._nodes.parse(nodes, self._requester)
        return {"nodes": await written(map(self._devices.record, found), self._clock)}

    @commands.ListBoots.responder
    async def boots(self, nodes: str, count: int, most: int | None = None) -> dict[str, Any]:
        """Return the records of the last boots of a set of nodes."""
        found = await self._nodes.boots(nodes, count, self._requester, most)
        return {"boots": await written((boot.row() for boot in found), self._clock)}


class NodesApi(amp.CommandLocator):
    """What nodes boot, and when."""

    def __init__(self, requester: IRequester, nodes: NodeService) -> None:
        self._requester = requester
        self._nodes = nodes

    @commands.SetNodesImage.responder
    async def set_image(self, nodes: str, image: str) -> dict[str, Any]:
        """Have nodes boot an image of the caller from their next reboot on."""
        await self._nodes.set_image(nodes, image, self._requester)
        return {}

    @commands.BootNodes.responder
    async def boot(
        self, nodes: str, image: str, cause: str, client_reboots: bool | None = None
    ) -> dict[str, Any]:
        """Have nodes boot an image of the caller, now."""
        outcome = await self._nodes.boot(
            nodes, image, self._requester, cause=cause, client_reboots=bool(client_reboots)
        )
        return _rebooted(outcome, client_reboots)

    @commands.RebootNodes.responder
    async def reboot(
        self, nodes: str, hard_only: bool, cause: str, client_reboots: bool | None = None
    ) -> dict[str, Any]:
        """Reboot nodes: by their own service, else by their machine or the power of their port."""
        outcome = await self._nodes.reboot(
            nodes, self._requester, hard_only=hard_only, cause=cause,
            client_reboots=bool(client_reboots),
        )
        return _rebooted(outcome, client_reboots)

    @commands.HardRebooted.responder
    def hard_rebooted(
        self, method: str, cause: str, rebooted: list[str], errors: dict[str, str],
        reasons: dict[str, str],
    ) -> dict[str, Any]:
        """What the client did by its own means."""
        ok = self._nodes.rebooted_by_client(
            Outcome(set(rebooted), reasons, errors), self._requester, method=method, cause=cause
        )
        return {"ok": ok}

    @commands.WaitNodes.responder
    async def wait(self, nodes: str) -> dict[str, Any]:
        """Answer when all nodes of a set are booted."""
        await self._nodes.wait(nodes, self._requester)
        return {}

    @commands.BlinkNode.responder
    async def blink(self, node: str, on: bool) -> dict[str, Any]:
        """Have a node blink, or stop it."""
        await self._nodes.blink(node, on, self._requester)
        return {}

    @commands.CheckNodeReachable.responder
    async def check_reachable(self, node: str) -> dict[str, Any]:
        """Answer when a node is booted and answers; Unavailable."""
        await self._nodes.check_reachable(node, self._requester)
        return {}


class VirtualNodesApi(amp.CommandLocator):
    """Virtual nodes: they come and go; their consoles."""

    def __init__(self, requester: IRequester, virtual: VirtualNodes) -> None:
        self._requester = requester
        self._virtual = virtual
        self._typed: set[str] = set()  # nodes on whose consoles this requester typed

    @commands.CreateNode.responder
    async def create(self, name: str) -> dict[str, Any]:
        """Make a virtual node for the caller, and start it."""
        await self._virtual.create(name, self._requester)
        return {}

    @commands.RemoveNode.responder
    async def remove(
        self, name: str, force: bool | None = None, keep_logs: bool | None = None
    ) -> dict[str, Any]:
        """Remove a virtual node, its disks and its settings."""
        await self._virtual.remove(
            name, self._requester, force=bool(force), keep_logs=bool(keep_logs)
        )
        return {}

    @commands.ConsoleInput.responder
    def console_input(self, node: str, data: bytes) -> dict[str, Any]:
        """Type bytes on the console of a virtual node."""
        self._virtual.console_input(node, data)
        if node not in self._typed:
            self._typed.add(node)
            self._virtual.console_used(node, self._requester)
        return {}


class ReservationsApi(amp.CommandLocator):
    """Whose nodes are, for good and for a while."""

    def __init__(
        self, requester: IRequester, registry: DeviceRegistry, nodes: NodeService,
        reservations: Reservations, images: ImageService,
    ) -> None:
        self._images = images
        self._requester = requester
        self._registry = registry
        self._nodes = nodes
        self._reservations = reservations

    @commands.NodeOwnership.responder
    async def ownership(self, nodes: str, image: str | None = None) -> dict[str, Any]:
        """Return whose the nodes of a set are, and what in it is no node."""
        if image is not None:
            await self._images.check(image, self._requester, default_allowed=True)
        user = self._requester.username
        devices = parse_devices(self._registry, nodes, user)  # by name
        found, reserved = await self._reservations.whose(devices, user)
        names = [device.name for device in devices if device.is_node]
        return {"names": names, **vars(found), "reservations": reserved}

    @commands.ReserveNodes.responder
    def reserve(
        self, nodes: str, model: str, count: int, seconds: float, holder: str
    ) -> dict[str, Any]:
        """Reserve nodes for the caller."""
        taken = self._reservations.take(
            self._nodes.parse(nodes, self._requester), model, count, seconds,
            user=self._requester.username, holder=holder,
        )
        return {"names": [node.name for node in taken]}

    @commands.KeepReserved.responder
    def keep_reserved(self, holder: str) -> dict[str, Any]:
        """Note that the holder of a reservation is there."""
        self._reservations.heard(self._requester.username, holder)
        return {}

    @commands.FreeReserved.responder
    def free_reserved(self, holder: str) -> dict[str, Any]:
        """End a reservation."""
        self._reservations.free(self._requester.username, holder)
        return {}


class PlansApi(amp.CommandLocator):
    """Whom work would disturb."""

    def __init__(
        self, requester: IRequester, configuration: Configuration, plans: Plans,
        clock: IReactorTime,
    ) -> None:
        self._requester = requester
        self._configuration = configuration
        self._plans = plans
        self._clock = clock

    @commands.PlanWork.responder
    async def plan(
        self, devices: str | None = None, image: str | None = None,
        settings: list[str] | None = None, nodes_only: bool | None = None,
        default_images: bool | None = None,
    ) -> dict[str, Any]:
        """Return whom work on devices, or a change of images, would disturb."""
        user = self._requester.username
        found = self._plans.concerned(devices, image, user, default_images=bool(default_images))
        reboot = True
        if devices is not None and settings is not None:
            reboot = await self._configuration.check(
                devices, settings, self._requester, nodes_only=bool(nodes_only)
            )
        rows = await written(self._plans.rows(found, user), self._clock)
        return {"rows": rows, "reboot": reboot}


class NodeFilesApi(amp.CommandLocator):
    """Files of nodes, and images made of them."""

    def __init__(self, requester: IRequester, files: NodeFiles, changes: NodeChanges) -> None:
        self._requester = requester
        self._files = files
        self._changes = changes

    @commands.GetPathKinds.responder
    async def path_kinds(self, node: str, path: str) -> dict[str, Any]:
        """Return what a path of a node is, and what its directory is."""
        return {"kinds": list(await self._files.kinds(node, path, self._requester))}

    @commands.CheckSave.responder
    def check_save(self, node: str, image: str) -> dict[str, Any]:
        """Return what to confirm before `save`: which image is replaced; empty: nothing."""
        return {"warning": self._changes.check_save(node, image, self._requester)}

    @commands.SaveNode.responder
    async def save(self, node: str, image: str) -> dict[str, Any]:
        """Make an image of what a node boots and of the files changed on it."""
        return {"ok": await self._changes.save(node, image, self._requester)}

    @commands.CheckBootedImage.responder
    def check_booted_image(self, node: str) -> dict[str, Any]:
        """Return what to confirm before a copy into the image that a node boots."""
        return {"warning": self._changes.check_booted_image(node, self._requester)}

    @commands.CopyToBootedImage.responder
    async def cp_to_booted_image(self, node: str, path: str) -> dict[str, Any]:
        """Copy a path of a node into the image that it boots; its nodes reboot."""
        return {"ok": await self._changes.copy_to_booted_image(node, path, self._requester)}


def _rebooted(outcome: Outcome, client_reboots: bool | None) -> dict[str, Any]:
    return {"ok": outcome.ok, "left": outcome.left_rows() if client_reboots else None}
