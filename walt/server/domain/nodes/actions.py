"""What a person does with nodes (spec server §3.9, §4.2, §4.13)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from walt.common.errors import Invalid, NotFound, Unavailable
from walt.common.names import (
    default_image,
    image_fullname,
    image_user,
    is_image_name,
    short_image_name,
)
from walt.common.sentences import enumerate_names, subject, verb
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.devices.replacing import remade
from walt.server.domain.devices.sets import parse_nodes
from walt.server.domain.events import Source
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.logs.lines import LogService, PlatformLog
from walt.server.domain.nodes.boots import BOOTS_KEPT, Boot
from walt.server.domain.nodes.interfaces import INodeLink, IPowerSaving, IProvisioning
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reboot import Outcome, Rebooter
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import unbroken
from walt.server.runtime.slicing import slices

LOOK_AGAIN = 1.0  # seconds: whether a node that is waited for can boot
FEW = 100  # nodes missing, as long as there are more of which arrivals are not told one by one
LATE_TOLD = 20  # nodes that are late, at one look
_METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]*")


class NodeService:
    """Images, reboots and waits of sets of nodes; `forgotten` tells of each device removed."""

    def __init__(
        self, registry: DeviceRegistry, images: ImageService, status: BootStatus,
        monitor: BootMonitor, rebooter: Rebooter, logs: LogService, link: INodeLink,
        platform: PlatformLog, provisioning: IProvisioning, progress: BootProgress,
        saving: IPowerSaving, clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._images = images
        self._status = status
        self._monitor = monitor
        self._rebooter = rebooter
        self._logs = logs
        self._link = link
        self._platform = platform
        self._provisioning = provisioning
        self._progress = progress
        self._saving = saving
        self._clock = clock
        self.forgotten: Source[Device] = Source()

    def parse(self, nodes: str, requester: IRequester) -> list[Device]:
        """Return the nodes of a set. Raises NotFound or Invalid."""
        return parse_nodes(self._registry, nodes, requester.username)

    async def set_image(self, nodes: str, image: str, requester: IRequester) -> None:
        """Associate nodes with an image of the requester, or `default`.

        The change takes effect in the background; a reboot waits for it.
        Raises NotFound, Invalid (set, image, or models that the image lacks).
        """
        await self._set_image(self.parse(nodes, requester), image, requester)

    async def boot(
        self, nodes: str, image: str, requester: IRequester, *, cause: str,
        client_reboots: bool = False,
    ) -> Outcome:
        """Associate nodes with an image, as above, and reboot them, as below."""
        devices = self.parse(nodes, requester)
        await self._set_image(devices, image, requester)
        current = [self._registry.get(device.mac) or device for device in devices]
        return await self._rebooter.reboot(
            current, requester=requester, hard_only=False, cause=cause,
            client_reboots=client_reboots,
        )

    @unbroken
    async def _set_image(
        self, devices: list[Device], image: str, requester: IRequester
    ) -> None:
        models = {device.model or "" for device in devices}
        wanted = {model: self._wanted(model, image, requester) for model in sorted(models)}
        self._check_models(wanted)
        same = [device for device in devices if device.image == wanted[device.model or ""]]
        others = [device for device in devices if device.image != wanted[device.model or ""]]
        changes = await remade(self._registry, others, lambda some: [
            replace(device, image=wanted.get(device.model or "", device.image)) for device in some
        ], self._clock)
        changed = [change.new for change in changes if change.new is not None]
        if changed:
            await self._registry.put(*changed)
        async for some in slices(self._clock, changes):
            for old, new in some:
                self._tell_choice(old, new, requester)
        self._tell_associations(same, changed, image, requester)

    def _tell_choice(
        self, old: Device | None, new: Device | None, requester: IRequester
    ) -> None:
        if old is not None and new is not None:
            self._platform.deed(
                "nodes", f"node {new.name}",
                f"image {_owned(new.image)} instead of {_owned(old.image)} chosen",
                requester.username,
            )

    def _wanted(self, model: str, image: str, requester: IRequester) -> str:
        if image == "default":
            fullname = default_image(model)
            if not self._images.has(fullname):
                raise NotFound(f"the server has no default image for {model} nodes")
            return fullname
        if not is_image_name(image):
            raise Invalid(f'"{image[:80]}" is not a valid image name')
        fullname = image_fullname(requester.username, image)
        if not self._images.has(fullname):
            raise NotFound(f'you have no image named "{image}"; see: walt image show')
        return fullname

    def _check_models(self, wanted: dict[str, str]) -> None:
        wrong = sorted(
            model for model, image in wanted.items() if model not in self._images.models(image)
        )
        if wrong:
            raise Invalid(
                f"this image cannot boot nodes of type {enumerate_names(wrong)};"
                " nothing was changed"
            )

    def _tell_associations(
        self, same: list[Device], changed: list[Device], image: str, requester: IRequester
    ) -> None:
        if same:
            names = [device.name for device in same]
            requester.stdout(
                f"{subject(names)} already {verb(names, 'uses', 'use')} this image."
            )
        if changed:
            names = [device.name for device in changed]
            if image == "default":
                requester.stdout(
                    f"{subject(names)} will boot {verb(names, 'its', 'their')} default image"
                    " (other users will see that as free)."
                )
            else:
                requester.stdout(f"{subject(names)} will now boot {short_image_name(image)}.")

    async def reboot(
        self, nodes: str, requester: IRequester, *, hard_only: bool, cause: str,
        client_reboots: bool = False,
    ) -> Outcome:
        """Reboot a set of nodes; return what became of them.

        With `client_reboots`, physical nodes that do not answer are left to the client.
        """
        return await self._rebooter.reboot(
            self.parse(nodes, requester), requester=requester, hard_only=hard_only, cause=cause,
            client_reboots=client_reboots,
        )

    def rebooted_by_client(
        self, outcome: Outcome, requester: IRequester, *, method: str, cause: str
    ) -> bool:
        """Take note of the nodes that a client rebooted by its own means.

        Returns whether it could reboot all of them. Raises Invalid (not the
        MAC of a node, `method` not a plain text of one line).
        """
        if not _METHOD.fullmatch(method):
            raise Invalid("the name of the method must be letters, digits, spaces, `-` and `_`")
        nodes: dict[str, Device] = {}
        for mac in outcome.rebooted | outcome.hard_errors.keys():
            device = self._registry.get(mac)
            if device is None or not device.is_node:
                raise Invalid(f"{mac[:40]!r} is not the MAC of a node")
            nodes[mac] = device
        return self._rebooter.rebooted_by_client(nodes, outcome, requester, method, cause)

    async def wait(self, nodes: str, requester: IRequester) -> None:
        """Return when every node of the set has booted.

        Raises Unavailable when one of them cannot, and that does not go by itself.
        """
        devices = self.parse(nodes, requester)
        await self._saving.wake(devices, requester)
        names = {device.mac: device.name for device in devices}

        late: set[str] = set()  # nodes whose lateness was told
        label = ""

        def progress(missing: Collection[str]) -> None:
            nonlocal label
            still = {mac: names[mac] for mac in missing}
            told = subject(still.values())
            stages = self._progress.summary(still)
            text = f"Waiting for bootup of {told[:1].lower()}{told[1:]}"
            if stages:
                text += f": {stages}" if len(still) == 1 else f" ({stages})"
            if text != label:
                label = text
                requester.busy(text)
            fresh = [
                (mac, sentence) for mac in still.keys() - late
                if (sentence := self._progress.late(mac)) is not None
            ]
            late.update(mac for mac, _ in fresh)
            for _, sentence in fresh[:LATE_TOLD]:
                requester.stderr(sentence)
            if len(fresh) > LATE_TOLD:
                requester.stderr(f"{len(fresh) - LATE_TOLD} more nodes are late.")

        def arrived(missing: Collection[str]) -> None:
            if not label or len(missing) <= FEW:
                progress(missing)

        waiting = Deferred.fromCoroutine(self._status.wait(list(names), arrived))

        def look() -> None:
            missing = {mac for mac in names if not self._status.is_booted(mac)}
            if not waiting.called:
                progress(missing)
            broken = {
                mac: reason for mac, reason in self._provisioning.lasting().items()
                if mac in missing
            }
            if broken and not waiting.called:
                told = [f"{names[mac]} cannot boot: {reason}" for mac, reason in broken.items()]
                hopeless.append("; ".join(sorted(told)))
                waiting.cancel()

        hopeless: list[str] = []
        watch = LoopingCall(look)
        watch.clock = self._clock
        if not waiting.called:
            # Many nodes are looked at less often: it takes a time that grows with their number.
            watch.start(LOOK_AGAIN * max(1.0, len(names) / 1000))
        try:
            await waiting
        except CancelledError:
            if hopeless:
                raise Unavailable(hopeless[0]) from None
            raise
        finally:
            if watch.running:
                watch.stop()

    async def boots(
        self, nodes: str, count: int, requester: IRequester, most: int | None = None
    ) -> Iterable[Boot]:
        """Return the last boots of each node of a set, `count` at most, oldest first.

        Of all those it is the last `most` ones, if told. Raises NotFound, Invalid or LimitExceeded.
        """
        for number in (count, 1 if most is None else most):
            if not 0 < number <= BOOTS_KEPT:
                raise Invalid(f"the number of boots must be between 1 and {BOOTS_KEPT}")
        return await self._progress.history(self.parse(nodes, requester), count, most)

    @unbroken
    async def blink(self, name: str, on: bool, requester: IRequester) -> None:
        """Start or stop the blinking of one node's LED. Raises Invalid or Unavailable."""
        node, ip = self.single(name, requester)
        reason = await self._link.request(ip, f"BLINK {int(on)}")
        if reason is not None:
            raise Unavailable(f"{name}: {reason}")
        deed = f"blinking {'started' if on else 'ended'}"
        self._platform.deed("nodes", f"node {node.name}", deed, requester.username)

    async def check_reachable(self, name: str, requester: IRequester) -> None:
        """Return when a node has booted, or answers. Raises Invalid or Unavailable."""
        node, ip = self.single(name, requester)
        if self._status.is_booted(node.mac):
            return
        reason = await self._link.request(ip, "PING")
        if reason is not None:
            raise Unavailable(f"node {node.name} is unreachable ({reason}); retry later")

    def single(self, name: str, requester: IRequester) -> tuple[Device, str]:
        """Return one node and its address. Raises Invalid or NotFound."""
        nodes = self.parse(name, requester)
        if len(nodes) != 1 or nodes[0].ip is None:
            raise Invalid("exactly one node with an address is expected here")
        return nodes[0], nodes[0].ip

    @unbroken
    async def forget(
        self, device: Device, *, keep_logs: bool = False, requester: IRequester | None = None
    ) -> None:
        """Remove a device and everything known about it; ports that feed it are powered again.

        Its logs go, too, or they are kept under its name.
        """
        await self._saving.let_go(device, requester)
        await self._logs.flush()
        self.forgotten.tell(device)
        await self._registry.forget(device, keep_logs=keep_logs)
        self._logs.forget(device.mac, device.name if keep_logs else None)
        self._monitor.forget(device.mac)
        self._status.forget(device.mac)
        self._progress.forget(device.mac)


def _owned(fullname: str | None) -> str:
    """Return an image as `user/name`."""
    return f"{image_user(fullname)}/{short_image_name(fullname)}" if fullname else "none"
