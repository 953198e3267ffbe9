"""Who is where: links that the tables of switches tell, merged with what was known before.

Pure rules. A port is an ifIndex. What a neighbour says of itself is believed where no table of
the switch says otherwise: anybody can announce the address of somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from walt.server.domain.switches.cables import cables, who
from walt.server.domain.switches.snmp_interfaces import ETHERNET
from walt.server.domain.switches.survey import Survey

End = tuple[str, int | None]  # MAC of a device, port

LLDP_BOTH, LLDP, BRIDGE, REPORT = "lldp-both", "lldp", "bridge", "report"
_SURE = (LLDP_BOTH, LLDP)
SWITCH, SERVER, UNKNOWN = "switch", "server", "unknown"
_RANKS = {LLDP_BOTH: 3, LLDP: 2, BRIDGE: 1, REPORT: 0}


class Link(NamedTuple):
    """Two ends, the smaller MAC first, with the evidence for it; `seen` in epoch seconds.

    `confirmed`: it was there at the last look.
    """

    first: End
    second: End
    evidence: str
    confirmed: bool
    seen: float

    @classmethod
    def of(
        cls, one: End, other: End, evidence: str, seen: float, confirmed: bool = True
    ) -> Link:
        """Make a link of two ends in any order."""
        first, second = (one, other) if one[0] < other[0] else (other, one)
        return cls(first, second, evidence, confirmed, seen)

    @property
    def macs(self) -> tuple[str, str]:
        """The devices."""
        return self.first[0], self.second[0]

    @property
    def ends(self) -> tuple[End, End]:
        """Both ends, which are the link whatever the evidence."""
        return self.first, self.second

    def end(self, mac: str) -> End:
        """Return the end of a device."""
        return self.first if self.first[0] == mac else self.second

    def other(self, mac: str) -> End:
        """Return the end that is not that of a device."""
        return self.second if self.first[0] == mac else self.first

    @property
    def rank(self) -> tuple[bool, int, float]:
        """How good it is: confirmed ones first, then by evidence and time."""
        return self.confirmed, _RANKS.get(self.evidence, 0), self.seen


def merge(
    surveys: Mapping[str, Survey], remembered: Mapping[str, Survey], kinds: Mapping[str, str],
    old: Sequence[Link], now: float,
) -> list[Link]:
    """Return all links after some switches were read.

    `surveys` are the switches read now, and the server, which tells LLDP alone; `remembered` is
    what was read of others before, both by MAC; `kinds` has the type of each registered device.
    Links of a switch that was read, and not seen again, are no longer confirmed, nor are those
    of the server when it was seen elsewhere; those of other devices stay as they are, and so do
    cables to switches that were not read now.
    """
    held = _held(surveys, kinds, old)
    ports = {end for link in held for end in link.ends}
    new = [link._replace(seen=now) for link in observed(surveys, remembered, kinds, ports)]
    placed = {mac for link in new for mac in link.macs}
    complete = {
        mac for mac, survey in surveys.items()
        if (survey.failure is None if kinds.get(mac) == SWITCH else mac in placed)
    }
    kept = [
        link._replace(confirmed=False) if complete & set(link.macs) and link not in held else link
        for link in old
        if link.first[0] in kinds and link.second[0] in kinds
    ]
    return _without_loops(_best([*new, *kept], kinds), kinds)


def _held(
    surveys: Mapping[str, Survey], kinds: Mapping[str, str], old: Sequence[Link]
) -> set[Link]:
    """Return the cables from switches read now to others, of which nothing says otherwise.

    The forwarding table of one switch tells nothing of who is nearer, and it need not have
    learned the other one at all.
    """
    found = set()
    for link in old:
        near = [end for end in link.ends if end[0] in surveys]
        if (
            len(near) != 1 or not link.confirmed
            or any(kinds.get(mac) != SWITCH for mac in link.macs)
        ):
            continue
        (mac, port), other = near[0], link.other(near[0][0])[0]
        survey = surveys[mac]
        if (
            port is not None
            and survey.counts.get(survey.whole(port), survey.counts.get(port, 0)) > 0
            and all(port == at for at, macs in survey.behind.items() if other in macs)
            and not any(neighbour.interface == port for neighbour in survey.neighbours)
        ):
            found.add(link)
    return found


# -- what the tables say ---------------------------------------------------


def observed(
    surveys: Mapping[str, Survey], remembered: Mapping[str, Survey], kinds: Mapping[str, str],
    beyond: Collection[End] = (),
) -> list[Link]:
    """Return the links that the switches read now tell; LLDP wins over forwarding tables.

    What they learned at the ports `beyond` may be behind another switch, which was not read.
    """
    look = _Look(surveys, remembered, kinds, beyond)
    links = [*look.cables(), *look.announced()]
    pairs = {frozenset(link.macs) for link in links}
    placed = {mac for link in links for mac in link.macs if kinds.get(mac) != SWITCH}
    return links + [
        link for link in look.bridged()
        if frozenset(link.macs) not in pairs and not placed & set(link.macs)
    ]


class _Look:
    """One look at some switches."""

    def __init__(
        self, surveys: Mapping[str, Survey], remembered: Mapping[str, Survey],
        kinds: Mapping[str, str], beyond: Collection[End],
    ) -> None:
        self.surveys = surveys
        self.beyond = beyond
        self.kinds = kinds
        # Of switches not read now the ports are known, not what they see.
        self.every = {
            **{mac: survey.kept() for mac, survey in remembered.items() if mac not in surveys},
            **surveys,
        }
        self.switches = {mac for mac in self.every if kinds.get(mac) == SWITCH}
        self.device = {
            address: mac for mac, survey in self.every.items() for address in survey.addresses
        }
        self.device.update((mac, mac) for mac in kinds)
        # The ports at which each switch has learned each device.
        self.seen: dict[str, dict[str, set[int]]] = {}
        for mac, survey in surveys.items():
            ports: dict[str, set[int]] = {}
            for port, addresses in survey.behind.items():
                for address in addresses if port in survey.ports else ():
                    device = self.device.get(address)
                    if device is not None and device != mac and device in kinds:
                        ports.setdefault(device, set()).add(port)
            self.seen[mac] = ports

    def cables(self) -> list[Link]:
        """Return the cables between switches by LLDP, parallel ones each."""
        found = []
        for cable in cables(self.every):
            (one, port), (other, there) = cable.ends
            if (cable.both and cable.named) or not (
                self.contradicted(one, port, other) or self.contradicted(other, there, one)
            ):
                evidence = LLDP_BOTH if cable.both else LLDP
                found.append(Link.of((one, port), (other, there), evidence, 0.0))
        return found

    def announced(self) -> Iterator[Link]:
        """Return the registered devices that announce themselves at a port of a switch."""
        for mac, survey in self.surveys.items():
            for neighbour in survey.neighbours:
                port = neighbour.interface
                device = self.device.get(neighbour.mac or "")
                if (
                    port not in survey.ports or neighbour.is_self or device is None
                    or device == mac or device not in self.kinds or device in self.every
                    or port is None or self.contradicted(mac, port, device)
                ):
                    continue
                yield Link.of((mac, port), (device, None), LLDP, 0.0)
            yield from self._unplaced_switches(mac, survey)

    def _unplaced_switches(self, mac: str, survey: Survey) -> Iterator[Link]:
        """Return neighbours that are explored switches, at ports of theirs nobody can tell."""
        placed = {cable.ends[0] for cable in cables(self.every)} | {
            cable.ends[1] for cable in cables(self.every)
        }
        for neighbour in survey.neighbours:
            port, other = neighbour.interface, who(neighbour, self.every)
            if (
                port in survey.ports and other != mac and not neighbour.is_self
                and neighbour.mac is not None and (mac, port) not in placed
                and other is not None and port is not None
                and not self.contradicted(mac, port, other)
            ):
                yield Link.of((mac, port), (other, None), LLDP, 0.0)

    def contradicted(self, mac: str, port: int, device: str) -> bool:
        """Tell whether a switch has learned a device at another port than it announces itself."""
        survey = self.every[mac]
        ports = self.seen.get(mac, {}).get(device, set())
        if not ports or port in ports or survey.whole(port) in ports:
            return False
        # Which cables an aggregate has, not every switch tells.
        return all(survey.ports[at].type == ETHERNET for at in ports if at in survey.ports)

    def bridged(self) -> Iterator[Link]:
        """Return the links that follow from forwarding tables alone."""
        toward = self._directions()
        yield from self._backbone(toward)
        at: dict[tuple[str, int], set[str]] = {}
        for device in sorted(self.kinds.keys() - self.switches):
            places = self._closest(device, toward)
            if len(places) == 1:
                at.setdefault(places[0], set()).add(device)
        for (mac, port), devices in sorted(at.items()):
            switches = {device for device in devices if self.kinds[device] == SWITCH}
            behind = switches if len(switches) == 1 else devices
            if len(behind) == 1:
                yield Link.of((mac, port), (min(behind), None), BRIDGE, 0.0)

    def _directions(self) -> dict[tuple[str, str], int]:
        """Return the port of each switch that leads to each other one."""
        read = self.switches & self.surveys.keys()
        found = {
            (mac, other): min(ports)
            for mac, seen in self.seen.items() for other, ports in seen.items()
            if other in read and len(ports) == 1
        }
        for cable in self.cables():
            for end, far in (cable.ends, cable.ends[::-1]):
                if end[0] in read and far[0] in read and end[1] is not None:
                    port = self.surveys[end[0]].whole(end[1])
                    found.setdefault((end[0], far[0]), port)
        for (mac, other), port in list(found.items()):
            back = self._way_back(mac, port, other)
            if back is not None:
                found.setdefault((other, mac), back)
        return found

    def _way_back(self, mac: str, port: int, other: str) -> int | None:
        """Return the port of `other` that leads to a switch which sees it at `port`.

        Switches seldom learn those that are nearer to the server: these send nothing their way.
        What the first one sees at another port, the other one sees at that which leads to it.
        """
        ways: set[int] = set()
        for device, ports in self.seen[mac].items():
            there = self.seen[other].get(device, set())
            if device != other and len(ports) == len(there) == 1 and port not in ports:
                ways |= there
        return min(ways) if len(ways) == 1 else None

    def _closest(
        self, device: str, toward: Mapping[tuple[str, str], int]
    ) -> list[tuple[str, int]]:
        """Return the ports behind which a device is, without those that lead past a switch."""
        places = [
            (mac, port) for mac, seen in self.seen.items() for port in seen.get(device, ())
        ]
        found = []
        for mac, port in places:
            for other, there in places:
                back = toward.get((other, mac))
                if (
                    other != mac and toward.get((mac, other)) == port
                    and back is not None and back != there
                ):
                    break
            else:
                if (mac, port) not in self.beyond:
                    found.append((mac, port))
        return found

    def _backbone(self, toward: Mapping[tuple[str, str], int]) -> Iterator[Link]:
        """Return pairs of switches that see each other with no other one between them."""
        for (mac, other), port in sorted(toward.items()):
            back = toward.get((other, mac))
            if back is None or mac > other:
                continue
            between = any(
                third not in (mac, other)
                and toward.get((mac, third)) == port and toward.get((other, third)) == back
                and toward.get((third, mac)) != toward.get((third, other))
                for third in self.surveys
            )
            if not between and not {(mac, port), (other, back)} & {*self.beyond}:
                yield Link.of((mac, port), (other, back), BRIDGE, 0.0)


# -- one picture -----------------------------------------------------------


def _best(links: Iterable[Link], kinds: Mapping[str, str]) -> list[Link]:
    """Keep one link for each port of a device, and one for each device that is no switch.

    Of several devices that announce themselves at a port now, as telephones do with PCs behind
    them, all are kept.
    """
    kept: list[Link] = []
    taken: dict[End, set[str]] = {}
    alone: set[str] = set()
    pairs: set[frozenset[str]] = set()
    for link in sorted(links, key=lambda link: (link.rank, repr(link.ends)), reverse=True):
        ports = {end: link.other(end[0])[0] for end in link.ends if end[1] is not None}
        used = {end: taken[end] for end in ports if end in taken}
        if used and not (
            link.confirmed and link.evidence in _SURE
            and all(ports[end] not in others for end, others in used.items())
        ):
            continue
        leaves = {mac for mac in link.macs if kinds.get(mac) != SWITCH}
        # What the server hears of an unknown device: it may be its switch.
        near = {kinds.get(mac) for mac in link.macs} == {SERVER, UNKNOWN}
        if (len(leaves) == 2 and not near) or leaves & alone:
            continue
        # Of two switches a link without a port is one that is there already, less known.
        if len(ports) < 2 and frozenset(link.macs) in pairs:
            continue
        kept.append(link)
        for end, other in ports.items():
            taken.setdefault(end, set()).add(other)
        alone |= leaves
        pairs.add(frozenset(link.macs))
    return kept


def _without_loops(links: Sequence[Link], kinds: Mapping[str, str]) -> list[Link]:
    """Leave out links that close a loop, the least certain ones.

    Cables that LLDP tells now are there, loop or not: the tree marks the way back.
    """
    group: dict[str, str] = {}

    def root(mac: str) -> str:
        while group.setdefault(mac, mac) != mac:
            mac = group[mac]
        return mac

    kept = []
    for link in links:  # the best first
        first, second = (root(mac) for mac in link.macs)
        sure = link.confirmed and link.evidence in _SURE
        if first == second and not sure:
            continue
        group[first] = second
        kept.append(link)
    return sorted(kept, key=lambda link: (link.macs, link.first[1] or 0, link.second[1] or 0))


def news(old: Iterable[Link], new: Iterable[Link]) -> list[Link]:
    """Return the links that say something that was not known: what a history has to keep."""
    known = {(link.ends, link.evidence, link.confirmed) for link in old}
    return [link for link in new if (link.ends, link.evidence, link.confirmed) not in known]


class Move(NamedTuple):
    """A device, or a port of a switch, whose cable leads elsewhere than before."""

    end: End
    before: End
    now: End


def moves(old: Iterable[Link], new: Iterable[Link], kinds: Mapping[str, str]) -> list[Move]:
    """Return what was plugged elsewhere: one for each cable, of the device that moved.

    Old links count though they were not confirmed any more; a port that was not known before
    is no move.
    """

    def key(end: End) -> End:
        return end if kinds.get(end[0]) == SWITCH else (end[0], None)

    before: dict[End, End] = {}
    for link in sorted(old, key=lambda link: link.rank):
        for end in link.ends:
            before[key(end)] = link.other(end[0])
    found = []
    for link in new if before else ():
        # First who is not a switch: a node that took the place of another one has moved.
        for end in sorted(link.ends, key=lambda end: kinds.get(end[0]) == SWITCH):
            was, now = before.get(key(end)), link.other(end[0])
            if end[1] is None and kinds.get(end[0]) == SWITCH:
                continue
            if link.confirmed and was is not None and _differ(was, now):
                found.append(Move(end, was, now))
                break
    # Where something was unplugged and something else plugged in, the latter is what moved.
    there = {move.end for move in found}
    return [move for move in found if move.now not in there or kinds.get(move.end[0]) != SWITCH]


def _differ(one: End, other: End) -> bool:
    return one[0] != other[0] or (
        one[1] is not None and other[1] is not None and one[1] != other[1]
    )
