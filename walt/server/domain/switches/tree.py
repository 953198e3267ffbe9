"""The network as a tree, as `walt device tree` shows it (spec server §6.7). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from walt.server.domain.switches.topology import Link

SWITCH, NODE, UNKNOWN, SERVER, BACK, HIDDEN = (
    "switch", "node", "unknown", "server", "back", "hidden"
)


class Branch(NamedTuple):
    """One line: a device at a port of the one above it.

    `cables` are the links to it: several where they are parallel. Of a BACK branch nothing is
    below: the device is shown elsewhere; HIDDEN stands for what is left out of a switch.
    """

    depth: int
    mac: str
    kind: str
    port: int | None
    cables: tuple[Link, ...] = ()

    @property
    def link(self) -> Link:
        """The best link to the device."""
        return self.cables[0]


@dataclass
class _Tree:
    kinds: Mapping[str, str]
    by_mac: Mapping[str, Sequence[Link]]
    show_all: bool
    shown: set[str] = field(default_factory=set)

    def children(self, mac: str, parent: str | None) -> list[tuple[str, tuple[Link, ...]]]:
        """Return the devices at the ports of one, parallel links together."""
        groups: dict[str, list[Link]] = {}
        for link in self.by_mac.get(mac, ()):
            other = link.other(mac)[0]
            if other != parent and other in self.kinds:
                groups.setdefault(other, []).append(link)
        found = [
            (other, tuple(sorted(links, key=lambda link: link.rank, reverse=True)))
            for other, links in groups.items()
        ]
        return sorted(found, key=lambda child: (
            min(link.end(mac)[1] or 0 for link in child[1]), child[0]
        ))

    def holds_node(self, mac: str, parent: str | None) -> bool:
        """Tell whether there is a node below a device."""
        waiting, met = [(mac, parent)], {mac}
        while waiting:
            at, before = waiting.pop()
            if self.kinds.get(at) == NODE:
                return True
            for other, _ in self.children(at, before):
                if other not in met:
                    met.add(other)
                    waiting.append((other, at))
        return False

    def draw(self, root: str) -> Iterator[Branch]:
        """Yield the lines below the root, each before those below it."""
        self.shown.add(root)
        # Depth first without recursion: a chain of switches may be long.
        stack: list[tuple[int, str, str | None, tuple[Link, ...]]] = []

        def push(depth: int, mac: str, parent: str | None) -> None:
            for other, links in reversed(self.children(mac, parent)):
                if self.show_all or self.kinds[other] != UNKNOWN:
                    stack.append((depth, other, mac, links))

        push(0, root, None)
        while stack:
            depth, mac, parent, links = stack.pop()
            assert parent is not None
            port = links[0].end(parent)[1]
            if mac in self.shown:
                yield Branch(depth, mac, BACK, port, links)
                continue
            self.shown.add(mac)
            kind = self.kinds[mac]
            yield Branch(depth, mac, kind, port, links)
            if kind != SWITCH:
                continue
            if not self.show_all and not self.holds_node(mac, parent):
                yield Branch(depth + 1, mac, HIDDEN, None, links)
            else:
                push(depth + 1, mac, parent)


def root_of(
    links: Sequence[Link], kinds: Mapping[str, str], server: str
) -> tuple[str | None, list[str]]:
    """Return the switch that the server is connected to; else None, and what may be one."""
    near = sorted(
        (link for link in links if server in link.macs), key=lambda link: link.rank, reverse=True
    )
    others = [link.other(server)[0] for link in near]
    for mac in others:
        if kinds.get(mac) == SWITCH:
            return mac, []
    return None, [mac for mac in others if kinds.get(mac) == UNKNOWN]


def tree(
    links: Sequence[Link], kinds: Mapping[str, str], root: str, *, show_all: bool
) -> Iterator[Branch]:
    """Yield the lines below `root`; `kinds` has the types of devices by MAC."""
    by_mac: dict[str, list[Link]] = {}
    for link in links:
        for mac in link.macs:
            by_mac.setdefault(mac, []).append(link)
    return _Tree(kinds, by_mac, show_all).draw(root)
