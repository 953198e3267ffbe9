"""The reboot workflow (spec server §4.3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, FirstError, TimeoutError, gatherResults
from twisted.internet.task import deferLater

from walt.common.errors import Unavailable
from walt.common.sentences import subject
from walt.server.domain.devices.model import Device
from walt.server.domain.events import Source
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import (
    INodeLink,
    INodePower,
    IProvisioning,
    IVirtualMachines,
)
from walt.server.domain.nodes.monitor import LATE_BOOT, BootMonitor
from walt.server.domain.nodes.status import BootStatus
from walt.server.domain.requester import IRequester
from walt.server.runtime.coroutines import shielded, spawn
from walt.server.runtime.slicing import Turnstile, slices
from walt.server.runtime.workflow import Workflow, Workflows, step

POE_OFF_TIME = 2.0  # seconds without power
PARALLEL_REQUESTS = 500
BEGUN_AT_ONCE = 64  # connections made in one turn of the reactor
PREPARED_WITHIN = 120.0  # seconds until what a few nodes boot is mounted and exported
PREPARED_EACH = 0.06  # more for each: ganesha takes its exports, and gives the former ones back
REQUEST_LIMIT = 60.0  # seconds for so many: to connect, and to get an answer
POWER_LIMIT = 300.0  # seconds to switch ports: their switches are read first


@dataclass
class Outcome:
    """What became of each node, by MAC; `left` are those that the client reboots itself.

    `troubles` tells why nodes cannot boot at present, however they were rebooted.
    """

    rebooted: set[str] = field(default_factory=set)
    soft_errors: dict[str, str] = field(default_factory=dict)
    hard_errors: dict[str, str] = field(default_factory=dict)
    left: dict[str, Device] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every node was rebooted, and can boot."""
        return not self.hard_errors and not self.troubles

    def left_rows(self) -> list[dict[str, str | None]]:
        """Return name, MAC and reason of the nodes left to the client."""
        return [
            {"name": node.name, "mac": mac, "reason": self.soft_errors.get(mac)}
            for mac, node in self.left.items()
        ]


async def _power_again(
    wf: Workflow, power: INodePower, to_power: set[str], **env: Any
) -> None:
    """Whatever failed since the ports were off: they are powered again."""
    await power.on(to_power)


class Rebooter:
    """Reboots nodes: softly if they answer, else by their power or their machine.

    `used` tells of the MACs of nodes that somebody reboots; `parallel` nodes are asked at a time,
    `begun_at_once` of them in one turn of the reactor.
    """

    def __init__(
        self, workflows: Workflows, status: BootStatus, link: INodeLink, power: INodePower,
        machines: IVirtualMachines, provisioning: IProvisioning, monitor: BootMonitor,
        platform: PlatformLog, parallel: int = PARALLEL_REQUESTS,
        begun_at_once: int = BEGUN_AT_ONCE,
    ) -> None:
        self._parallel, self._begun_at_once = parallel, begun_at_once
        self._workflows = workflows
        self._status = status
        self._link = link
        self._power = power
        self._machines = machines
        self._provisioning = provisioning
        self._platform = platform
        self._left: dict[str, int] = {}  # boots so far of nodes left to a client, by MAC
        self._monitor = monitor
        self.used: Source[Collection[str]] = Source()

    async def reboot(
        self, nodes: Collection[Device], *, requester: IRequester | None, hard_only: bool,
        cause: str, reset_retries: bool = True, client_reboots: bool = False,
    ) -> Outcome:
        """Reboot nodes and report to the requester, or to `platform.nodes`.

        With `client_reboots`, the power of nodes is left alone: see `Outcome.left`. Raises
        Unavailable when it takes too long.
        """
        outcome = Outcome()
        workflow = self._workflows.create(
            "reboot",
            [
                self.wf_tell, self.wf_prepare, self.wf_soft_reboot, self.wf_reboot_virtual,
                self.wf_power_cycle, self.wf_report,
            ],
            nodes={node.mac: node for node in nodes}, todo={node.mac for node in nodes},
            outcome=outcome, requester=requester, hard_only=hard_only, cause=cause,
            reset_retries=reset_retries, client_reboots=client_reboots, parallel=self._parallel,
        )
        # Texts stop with the requester, the reboots do not (spec server §4).
        try:
            await shielded(workflow.run())
        except TimeoutError:
            raise Unavailable(
                f"{subject(node.name for node in nodes)}: not all were rebooted, as it takes too"
                " long to export what they boot, or to ask them; try again later"
            ) from None
        return outcome

    def reboot_late(self, nodes: Collection[Device]) -> None:
        """Reboot nodes that did not boot in time."""
        spawn(
            self.reboot(
                nodes, requester=None, hard_only=True, cause=LATE_BOOT, reset_retries=False
            ),
            "rebooting late nodes",
        )

    def rebooted_by_client(
        self, nodes: dict[str, Device], outcome: Outcome, requester: IRequester, method: str,
        cause: str,
    ) -> bool:
        """Note what a client did to nodes left to it; report; return whether all restarted."""
        for mac in outcome.rebooted:
            boots = self._status.boots(mac)
            if self._left.pop(mac, boots) < boots:
                continue  # up again before the client told us
            self._status.down(mac, f"cause: {cause}, method: {method}", cause)
            self._monitor.started(nodes[mac], cause)
        tell(report(nodes, outcome, False, method), requester)
        return outcome.ok

    async def wf_tell(
        self, wf: Workflow, nodes: dict[str, Device], requester: IRequester | None, cause: str,
        **env: Any
    ) -> None:
        """Log who wants it."""
        if requester is None:
            return
        async for some in slices(self._workflows.clock, [*nodes.values()]):
            for node in some:
                self._platform.deed("nodes", f"node {node.name}", cause, requester.username)

    @step(limit=lambda nodes, **env: PREPARED_WITHIN + PREPARED_EACH * len(nodes))
    async def wf_prepare(
        self, wf: Workflow, nodes: dict[str, Device], outcome: Outcome, reset_retries: bool,
        **env: Any
    ) -> None:
        """Let pending image changes take effect, so that nodes boot the new one."""
        await self._provisioning.settled()
        self.used.tell(nodes.keys())
        troubles = self._provisioning.troubles
        outcome.troubles = {mac: troubles[mac] for mac in nodes if mac in troubles}
        if reset_retries:
            for node in nodes.values():
                self._monitor.reset_retries(node)

    @step(limit=lambda nodes, parallel, **env: REQUEST_LIMIT * (1 + len(nodes) / parallel))
    async def wf_soft_reboot(
        self, wf: Workflow, nodes: dict[str, Device], todo: set[str], outcome: Outcome,
        hard_only: bool, cause: str, parallel: int, **env: Any
    ) -> None:
        """Ask the nodes themselves."""
        if hard_only:
            return
        waiting = iter([
            (node, node.ip) for node in nodes.values()
            if node.ip and self._power.is_off(node.mac) is None
        ])

        answered = Turnstile(self._workflows.clock)

        async def ask(number: int) -> None:
            for _ in range(number // self._begun_at_once):
                await deferLater(self._workflows.clock, 0)
            for node, ip in waiting:
                error = await self._link.request(ip, "REBOOT")
                if len(nodes) > self._begun_at_once:  # they may all answer at once
                    await answered.passed()
                if error is not None:
                    outcome.soft_errors[node.mac] = error
                    continue
                # Now, not when all have answered: it may be up again before the slowest one.
                self._done(node, todo, outcome, cause, "soft-reboot")

        try:
            await gatherResults([
                Deferred.fromCoroutine(ask(number))
                for number in range(min(parallel, len(nodes)))
            ], consumeErrors=True)
        except FirstError as failed:
            failed.subFailure.raiseException()

    def wf_reboot_virtual(
        self, wf: Workflow, nodes: dict[str, Device], todo: set[str], outcome: Outcome,
        cause: str, **env: Any
    ) -> None:
        """End the machines of virtual nodes: they start again."""
        for mac in list(todo):
            if nodes[mac].virtual and self._machines.kill(mac):
                self._done(nodes[mac], todo, outcome, cause, "vnode hard-reboot")

    def wf_power_cycle(
        self, wf: Workflow, nodes: dict[str, Device], todo: set[str], outcome: Outcome,
        client_reboots: bool, **env: Any
    ) -> None:
        """Have the power of the remaining nodes cut for two seconds."""
        if client_reboots:
            # Those that the server itself switched off are no business of the client.
            outcome.left = {mac: nodes[mac] for mac in todo if self._power.is_off(mac) is None}
            self._left.update({mac: self._status.boots(mac) for mac in outcome.left})
            todo = todo - outcome.left.keys()
        if todo:
            wf.update_env(to_power=set(todo), power=self._power)
            wf.insert_steps([self.wf_power_off, self.wf_without_power, self.wf_power_on])

    @step(limit=POWER_LIMIT, undo=_power_again)
    async def wf_power_off(
        self, wf: Workflow, nodes: dict[str, Device], to_power: set[str], outcome: Outcome,
        cause: str, **env: Any
    ) -> None:
        """Switch off the ports that are on; what fails is powered again by the port itself."""
        to_cut = {mac for mac in to_power if self._power.is_off(mac) is None}
        outcome.hard_errors.update(await self._power.off(to_cut, "hard-reboot"))
        for mac in to_cut - outcome.hard_errors.keys():
            self._status.down(mac, f"cause: {cause}, method: PoE hard-reboot", cause)
        to_power.difference_update(outcome.hard_errors)

    async def wf_without_power(self, wf: Workflow, to_power: set[str], **env: Any) -> None:
        """Leave the nodes without power as long as they need to lose it."""
        if to_power:
            await deferLater(self._workflows.clock, POE_OFF_TIME, lambda: None)

    @step(limit=POWER_LIMIT)
    async def wf_power_on(
        self, wf: Workflow, nodes: dict[str, Device], to_power: set[str], outcome: Outcome,
        cause: str, **env: Any
    ) -> None:
        """Power the ports again: the nodes boot."""
        if to_power:
            outcome.hard_errors.update(await self._power.on(to_power))
        for mac in to_power - outcome.hard_errors.keys():
            outcome.rebooted.add(mac)
            self._monitor.started(nodes[mac], cause)

    def wf_report(
        self, wf: Workflow, nodes: dict[str, Device], outcome: Outcome,
        requester: IRequester | None, hard_only: bool, **env: Any
    ) -> None:
        """One line for what was rebooted, one for each distinct failure."""
        lines = report(nodes, outcome, hard_only)
        if requester is not None:
            tell(lines, requester)
            return
        for text, is_error in lines:
            self._platform.write("nodes", text, error=is_error)

    def _done(
        self, node: Device, todo: set[str], outcome: Outcome, cause: str, method: str
    ) -> None:
        todo.discard(node.mac)
        outcome.rebooted.add(node.mac)
        self._status.down(node.mac, f"cause: {cause}, method: {method}", cause)
        self._monitor.started(node, cause)


def tell(lines: Iterable[tuple[str, bool]], requester: IRequester) -> None:
    """Write lines of a report to the requester, errors to its error output."""
    for text, is_error in lines:
        if is_error:
            requester.stderr(text)
        else:
            requester.stdout(text)


def report(
    nodes: dict[str, Device], outcome: Outcome, hard_only: bool, method: str = "poe-reboot"
) -> Iterable[tuple[str, bool]]:
    """Return the lines of the report, each with whether it is an error.

    `method` is the name of the hard reboot.
    """
    lines: list[tuple[str, bool]] = []
    if outcome.rebooted:
        names = [nodes[mac].name for mac in outcome.rebooted]
        lines.append((f"{subject(names)}: rebooted ok.", False))
    failures: dict[str, list[str]] = {}
    for mac, hard in outcome.hard_errors.items():
        soft = outcome.soft_errors.get(mac)
        text = f"failed {method} ({hard})"
        if soft is not None and not hard_only:
            text = f"failed soft-reboot ({soft.lower()}) and {method} ({hard})"
        failures.setdefault(text, []).append(nodes[mac].name)
    for mac, reason in outcome.troubles.items():
        text = f"cannot boot now ({reason}); the server goes on trying"
        failures.setdefault(text, []).append(nodes[mac].name)
    for text, names in sorted(failures.items()):
        lines.append((f"{subject(names)}: {text}", True))
    return lines
