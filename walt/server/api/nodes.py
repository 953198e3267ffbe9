"""Commands about nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from walt.common.names import image_fullname, is_image_name
from walt.rpc.commands import nodes as commands
from walt.server.api.context import Context
from walt.server.domain.devices.sets import ownership, parse_devices
from walt.server.domain.nodes.deeds import note_on_others
from walt.server.domain.nodes.reboot import Outcome
from walt.server.domain.nodes.views import record
from walt.server.domain.requester import IRequester


class NodesApi(amp.CommandLocator):
    """Translates commands to calls of the node and virtual node services."""

    def __init__(self, context: Context, requester: IRequester) -> None:
        self._context = context
        self._requester = requester
        self._typed: set[str] = set()  # nodes on whose consoles this requester typed

    @commands.ShowNodes.responder
    def show(self, all: bool, brief: bool | None = None) -> dict[str, Any]:
        """Return the rows of `walt node show`, by table."""
        context = self._context
        tables = context.views.tables(self._requester.username, show_all=all, brief=bool(brief))
        return {"tables": {**tables, "total": context.registry.count("node")}}

    @commands.ExpandNodes.responder
    def expand(self, nodes: str) -> dict[str, Any]:
        """Return the names of a set of nodes, keywords replaced, sorted."""
        found = self._context.nodes.parse(nodes, self._requester)
        return {"names": [node.name for node in found]}

    @commands.NodeOwnership.responder
    def ownership(self, nodes: str) -> dict[str, Any]:
        """Return whose the nodes of a set are, and what in it is no node."""
        user = self._requester.username
        devices = parse_devices(self._context.registry, nodes, user)
        reserved = [(one, self._context.reservations.get(one.mac)) for one in devices]
        return {**vars(ownership(devices, user)), "reservations": [
            {"node": device.name, "user": one.user, "until": one.until}
            for device, one in reserved if one is not None and one.user != user
        ]}

    @commands.ReserveNodes.responder
    def reserve(
        self, nodes: str, model: str, count: int, seconds: float, holder: str
    ) -> dict[str, Any]:
        """Reserve nodes for the caller."""
        taken = self._context.reservations.take(
            self._context.nodes.parse(nodes, self._requester), model, count, seconds,
            user=self._requester.username, holder=holder,
        )
        return {"names": [node.name for node in taken]}

    @commands.KeepReserved.responder
    def keep_reserved(self, holder: str) -> dict[str, Any]:
        """Note that the holder of a reservation is there."""
        self._context.reservations.heard(self._requester.username, holder)
        return {}

    @commands.FreeReserved.responder
    def free_reserved(self, holder: str) -> dict[str, Any]:
        """End a reservation."""
        self._context.reservations.free(self._requester.username, holder)
        return {}

    @commands.PlanWork.responder
    def plan(
        self, devices: str | None = None, image: str | None = None,
        settings: list[str] | None = None, nodes_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return whom work on devices, or a change of an image, would disturb."""
        context, user = self._context, self._requester.username
        found = [] if devices is None else parse_devices(context.registry, devices, user)
        if image is not None and is_image_name(image):
            fullname = image_fullname(user, image)
            known = {one.mac for one in found}
            found += [
                one for one in context.registry.nodes()
                if one.image == fullname and one.mac not in known
            ]
        reboot = True
        if devices is not None and settings is not None:
            reboot = context.configuration.check(
                devices, settings, self._requester, nodes_only=bool(nodes_only)
            )
        return {"rows": context.plans.rows(found, user), "reboot": reboot}

    @commands.GetNodes.responder
    def get(self, nodes: str) -> dict[str, Any]:
        """Return the records of a set of nodes."""
        context = self._context
        return {
            "nodes": [
                record(node, context.registry, context.status.is_booted, context.server_ip)
                for node in context.nodes.parse(nodes, self._requester)
            ]
        }

    @commands.ListBoots.responder
    def boots(self, nodes: str, count: int) -> Deferred[dict[str, Any]]:
        """Return the records of the last boots of a set of nodes."""

        async def work() -> dict[str, Any]:
            found = await self._context.nodes.boots(nodes, count, self._requester)
            return {"boots": [boot.row() for boot in found]}

        return Deferred.fromCoroutine(work())

    @commands.CreateNode.responder
    def create(self, name: str) -> Deferred[dict[str, Any]]:
        """Make a virtual node for the caller, and start it."""
        return _done(self._context.virtual.create(name, self._requester))

    @commands.RemoveNode.responder
    def remove(
        self, name: str, force: bool | None = None, keep_logs: bool | None = None
    ) -> Deferred[dict[str, Any]]:
        """Remove a virtual node, its disks and its settings."""
        return _done(self._context.virtual.remove(
            name, self._requester, force=bool(force), keep_logs=bool(keep_logs)
        ))

    @commands.SetNodesImage.responder
    def set_image(self, nodes: str, image: str) -> Deferred[dict[str, Any]]:
        """Have nodes boot an image of the caller from their next reboot on."""
        return _done(self._context.nodes.set_image(nodes, image, self._requester))

    @commands.RebootNodes.responder
    def reboot(
        self, nodes: str, hard_only: bool, cause: str, client_reboots: bool | None = None
    ) -> Deferred[dict[str, Any]]:
        """Reboot nodes: by their own service, else by their machine or the power of their port."""

        async def work() -> dict[str, Any]:
            outcome = await self._context.nodes.reboot(
                nodes, self._requester, hard_only=hard_only, cause=cause,
                client_reboots=bool(client_reboots),
            )
            return {"ok": outcome.ok, "left": outcome.left_rows() if client_reboots else None}

        return Deferred.fromCoroutine(work())

    @commands.HardRebooted.responder
    def hard_rebooted(
        self, method: str, cause: str, rebooted: list[str], errors: dict[str, str],
        reasons: dict[str, str],
    ) -> dict[str, Any]:
        """What the client did by its own means."""
        ok = self._context.nodes.rebooted_by_client(
            Outcome(set(rebooted), reasons, errors), self._requester, method=method, cause=cause
        )
        return {"ok": ok}

    @commands.WaitNodes.responder
    def wait(self, nodes: str) -> Deferred[dict[str, Any]]:
        """Answer when all nodes of a set are booted."""
        return _done(self._context.nodes.wait(nodes, self._requester))

    @commands.AcquireNodes.responder
    def acquire(self, nodes: str) -> Deferred[dict[str, Any]]:
        """Have free nodes boot the caller's copies of their default images."""
        return _done(self._context.configuration.acquire(nodes, self._requester))

    @commands.BlinkNode.responder
    def blink(self, node: str, on: bool) -> Deferred[dict[str, Any]]:
        """Have a node blink, or stop it."""
        return _done(self._context.nodes.blink(node, on, self._requester))

    @commands.ConsoleInput.responder
    def console_input(self, node: str, data: bytes) -> dict[str, Any]:
        """Type bytes on the console of a virtual node."""
        self._context.virtual.console_input(node, data)
        if node not in self._typed:
            self._typed.add(node)
            device = self._context.registry.named(node)
            note_on_others(
                self._context.platform, device, "console used", self._requester.username
            )
        return {}

    @commands.CheckNodeReachable.responder
    def check_reachable(self, node: str) -> Deferred[dict[str, Any]]:
        """Answer when a node is booted and answers; Unavailable."""
        return _done(self._context.nodes.check_reachable(node, self._requester))

    @commands.GetPathKinds.responder
    def path_kinds(self, node: str, path: str) -> Deferred[dict[str, Any]]:
        """Return what a path of a node is, and what its directory is."""

        async def work() -> dict[str, Any]:
            return {"kinds": list(await self._context.files.kinds(node, path, self._requester))}

        return Deferred.fromCoroutine(work())

    @commands.CheckSave.responder
    def check_save(self, node: str, image: str) -> dict[str, Any]:
        """Return what to confirm before `save`: which image is replaced; empty: nothing."""
        return {"warning": self._context.changes.check_save(node, image, self._requester)}

    @commands.SaveNode.responder
    def save(self, node: str, image: str) -> Deferred[dict[str, Any]]:
        """Make an image of what a node boots and of the files changed on it."""
        return _ok(self._context.changes.save(node, image, self._requester))

    @commands.CheckBootedImage.responder
    def check_booted_image(self, node: str) -> dict[str, Any]:
        """Return what to confirm before a copy into the image that a node boots."""
        return {"warning": self._context.changes.check_booted_image(node, self._requester)}

    @commands.CopyToBootedImage.responder
    def cp_to_booted_image(self, node: str, path: str) -> Deferred[dict[str, Any]]:
        """Copy a path of a node into the image that it boots; its nodes reboot."""
        return _ok(self._context.changes.copy_to_booted_image(node, path, self._requester))


def _ok(coroutine: Any) -> Deferred[dict[str, Any]]:
    """Run a coroutine whose result tells whether reboots succeeded."""
    running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    return running.addCallback(lambda ok: {"ok": ok})


def _done(coroutine: Any) -> Deferred[dict[str, Any]]:
    """Run a coroutine whose result is that it ended."""
    running: Deferred[Any] = Deferred.fromCoroutine(coroutine)
    return running.addCallback(lambda _: {})
