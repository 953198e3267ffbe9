"""Switches, their ports and the network as programs get them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from walt.common.errors import NotFound
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.power import SwitchPower
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.topology import Link
from walt.server.domain.switches.tree import HIDDEN, Branch, root_of, tree

LINKS = {True: "up", False: "down", None: "unknown"}


class SwitchViews:
    """Rows of `walt device tree`, `port-config` and `show`; `now` returns epoch seconds."""

    def __init__(
        self, registry: DeviceRegistry, exploration: Exploration, power: SwitchPower,
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._exploration = exploration
        self._power = power
        self._now = now
        self._places: dict[str, tuple[str, str | None]] = {}
        self._placed: object = None  # at which revision
        self._named = 0  # another one since devices have other names, or came, or are switches
        registry.observe(self._on_devices)

    def _on_devices(self, changes: Sequence[Change]) -> None:
        self._named += any(map(_tells, changes))

    @property
    def revision(self) -> object:
        """What is equal as long as the map is the same."""
        return self._exploration.revision, self._power.revision, self._named

    def where(self, mac: str) -> dict[str, Any]:
        """Return at which port of which switch a device is; nulls when that is not known."""
        place = self._exploration.place(mac)
        if place is None:
            return {"switch": None, "port": None, "evidence": None}
        switch, port, link = place
        return {
            "switch": switch.name, "port": self._exploration.port_name(switch.mac, port),
            "evidence": link.evidence if link.confirmed else "old",
        }

    def places(self) -> Mapping[str, tuple[str, str | None]]:
        """Return switch and port of each device, by MAC; the same object until some changed."""
        if self._placed != self.revision:
            self._placed = self.revision
            self._places = {}
            for mac in self._exploration.links.devices():
                place = self._exploration.place(mac)
                if place is not None:
                    switch, port, _ = place
                    self._places[mac] = switch.name, self._exploration.port_name(switch.mac, port)
        return self._places

    # -- tree ------------------------------------------------------------

    def tree(self, *, show_all: bool) -> dict[str, Any]:
        """Return the tree: its root, its branches, and how long ago switches were last read.

        Branches are made while they are asked for. Raises NotFound, with what to do, when no
        switch is known to be next to the server.
        """
        links = list(self._exploration.links)
        kinds = {device.mac: device.type for device in self._registry.all()}
        server = self._registry.server
        if not links:
            raise NotFound(
                "the network was not explored yet: tell the server how to ask the switch it is"
                " connected to (walt help show switches), then run: walt device rescan"
            )
        root, unknown = root_of(links, kinds, server.mac) if server is not None else (None, [])
        if root is None:
            names = [self._name(mac) for mac in unknown]
            hint = (
                f" If {names[0]} is one, run: walt device config {names[0]} type=switch"
                if names else ""
            )
            raise NotFound(
                "no switch is known that the server is connected to; run: walt device rescan."
                + hint
            )
        moments = self._exploration.moments.values()
        return {
            "root": self._name(root),
            "age": max(0.0, self._now() - max(moments)) if moments else None,
            "branches": (
                self._branch(branch, root)
                for branch in tree(links, kinds, root, show_all=show_all)
            ),
        }

    def _name(self, mac: str) -> str:
        device = self._registry.get(mac)
        return device.name if device is not None else mac

    def _branch(self, branch: Branch, root: str) -> dict[str, Any]:
        device = self._registry.get(branch.mac)
        link = branch.link
        above = link.other(branch.mac)[0]
        switch = self._registry.get(above)
        poe = None
        if switch is not None and branch.port is not None and switch.type == "switch":
            poe = self._power.state(switch, branch.port)
        reason = self._power.port_off(above, branch.port) if branch.port is not None else None
        hidden = branch.kind == HIDDEN
        return {
            "depth": branch.depth, "name": self._name(branch.mac),
            "mac": branch.mac, "kind": branch.kind,
            "above": None if hidden else self._name(above),
            "port": None if hidden else self._exploration.port_name(above, branch.port),
            "port_number": branch.port,
            "far_port": self._exploration.port_name(branch.mac, link.end(branch.mac)[1]),
            "evidence": link.evidence, "confirmed": link.confirmed, "seen": link.seen,
            "cables": self._cables(branch, above), "poe": poe, "poe_reason": reason,
            "explorable": bool(device is not None and device.conf.get("lldp.explore")),
        }

    def _cables(self, branch: Branch, above: str) -> list[str]:
        """Return the ports of parallel cables, `ours - theirs`; none when there is one."""
        if len(branch.cables) < 2:
            return []
        return [self._cable(cable, above, branch.mac) for cable in sorted(
            branch.cables, key=lambda cable: cable.end(above)[1] or 0
        )]

    def _cable(self, link: Link, above: str, below: str) -> str:
        ends = ((above, link.end(above)[1]), (below, link.end(below)[1]))
        return " - ".join(self._exploration.port_name(*end) or "?" for end in ends)

    # -- map -------------------------------------------------------------

    def map(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each switch: its ports in their order, when it was read, what failed."""
        for switch in self._registry.all():
            if switch.type != "switch":
                continue
            survey = self._exploration.surveys.get(switch.mac)
            yield {
                "mac": switch.mac, "name": switch.name, "ip": switch.ip, "model": switch.model,
                "read": self._exploration.moments.get(switch.mac),
                "failure": survey.failure if survey is not None else None,
                "ports": self._ports(switch, survey, sorted(survey.ports)) if survey else [],
            }

    # -- ports -----------------------------------------------------------

    def ports(self, name: str, port: str | None) -> list[dict[str, Any]]:
        """Return the ports of a switch; Raises NotFound, Invalid."""
        switch = self._exploration.explored_switch(name)
        survey = self._exploration.surveys.get(switch.mac)
        if survey is None:
            raise NotFound(
                f"nothing is known of the ports of {name} yet; run: walt device rescan {name}"
            )
        chosen = (
            sorted(survey.ports) if port is None
            else [self._exploration.port_number(switch, port)]
        )
        return self._ports(switch, survey, chosen)

    def _ports(
        self, switch: Device, survey: Survey, chosen: list[int]
    ) -> list[dict[str, Any]]:
        peers: dict[int, list[Link]] = {}
        for link in self._exploration.links.of(switch.mac):
            number = link.end(switch.mac)[1]
            if number is not None:
                peers.setdefault(number, []).append(link)
        rows = []
        for number in chosen:
            peer = peers[number][0] if number in peers else None
            given = self._exploration.names.get((switch.mac, number))
            rows.append({
                "port": number,
                "name": given or str(number), "interface": survey.ports[number].name,
                "numbers": survey.numbers(number), "link": LINKS[survey.ports[number].up],
                "poe": self._power.state(switch, number),
                "poe_reason": self._power.port_off(switch.mac, number),
                "peer": self._name(peer.other(switch.mac)[0]) if peer is not None else None,
                "evidence": peer.evidence if peer is not None else None,
                "confirmed": peer.confirmed if peer is not None else None,
            })
        return rows


def _tells(change: Change) -> bool:
    """Tell whether a map or a table may name a device otherwise than before."""
    old, new = change
    return old is None or new is None or old.name != new.name or "switch" in (old.type, new.type)
