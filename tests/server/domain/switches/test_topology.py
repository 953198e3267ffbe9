"""Links from the tables of switches, on networks that are made up and known in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.switches.lldp import Neighbour
from walt.server.domain.switches.survey import Port, Survey
from walt.server.domain.switches.topology import (
    BRIDGE,
    LLDP,
    LLDP_BOTH,
    REPORT,
    Link,
    Move,
    merge,
    moves,
    news,
)
from walt.server.domain.switches.tree import BACK, HIDDEN, root_of, tree

NOW = 5000.0


def mac(kind: int, number: int) -> str:
    """Return an address."""
    return f"02:00:00:00:{kind:02x}:{number:02x}"


def switch(number: int) -> str:
    """Return the address of a switch."""
    return mac(0xa, number)


def node(number: int) -> str:
    """Return the address of a node."""
    return mac(0xb, number)


def port(index: int, **values: int) -> Port:
    """Return a port."""
    return Port(index, f"p{index}", type=6, **values)  # type: ignore[arg-type]


def told(
    key: str, ports: int, behind: Mapping[int, set[str]],
    neighbours: tuple[Neighbour, ...] = (),
) -> Survey:
    """Return a survey."""
    return Survey(
        f"name-{key[-2:]}", frozenset({key}), {n: port(n) for n in range(1, ports + 1)},
        neighbours, {n: frozenset(macs) for n, macs in behind.items()},
        {n: len(macs) for n, macs in behind.items()}, has_lldp=bool(neighbours), has_bridge=True,
    )


def hears(at: int, who: str, there: str) -> Neighbour:
    """Return a neighbour by LLDP."""
    return Neighbour(at, who, "macAddress", there, "interfaceName", at, mac=who)


@some.composite
def networks(draw: some.DrawFn) -> tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]]:
    """Make a tree of switches with nodes; some cables are told by LLDP, the rest by addresses."""
    count = draw(some.integers(1, 6))
    used = dict.fromkeys(range(count), 0)
    # cables: switch, port, switch, port
    cables = []

    def next_port(one: int) -> int:
        used[one] += 1
        return used[one]

    for child in range(1, count):
        parent = draw(some.integers(0, child - 1))
        cables.append((parent, next_port(parent), child, next_port(child)))
    nodes = [
        (number, place, next_port(place))
        for number, place in enumerate(draw(some.lists(some.integers(0, count - 1), max_size=8)))
    ]
    near: dict[int, dict[int, int]] = {one: {} for one in range(count)}
    for one, at, other, there in cables:
        near[one][at], near[other][there] = other, one

    def below(start: int, came: int) -> set[str]:
        found, waiting = set(), [(start, came)]
        while waiting:
            one, before = waiting.pop()
            found.add(switch(one))
            found |= {node(number) for number, place, _ in nodes if place == one}
            waiting += [(far, one) for far in near[one].values() if far != before]
        return found

    behind: dict[int, dict[int, set[str]]] = {
        one: {at: below(far, one) for at, far in near[one].items()} for one in range(count)
    }
    for number, place, at in nodes:
        behind[place][at] = {node(number)}
    heard: dict[int, list[Neighbour]] = {one: [] for one in range(count)}
    for one, at, other, there in cables:
        if draw(some.booleans()):
            heard[one].append(hears(at, switch(other), f"p{there}"))
        if draw(some.booleans()):
            heard[other].append(hears(there, switch(one), f"p{at}"))
    surveys = {
        switch(one): told(switch(one), used[one], behind[one], tuple(heard[one]))
        for one in range(count)
    }
    kinds = {**dict.fromkeys(surveys, "switch"), **{node(n): "node" for n, _, _ in nodes}}
    right = {frozenset({switch(one), switch(other)}) for one, _, other, _ in cables}
    right |= {frozenset({node(number), switch(place)}) for number, place, _ in nodes}
    return surveys, kinds, right


def quiet(
    surveys: dict[str, Survey], kinds: dict[str, str], right: set[frozenset[str]]
) -> tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]]:
    """Take LLDP away, and what switches learn of others that are nearer to the server.

    It is at the first switch; what others send to it is learned on the way alone.
    """
    server, root = mac(0xc, 0), switch(0)
    kinds, right = {**kinds, server: "server"}, {*right, frozenset({server, root})}
    found = {}
    for key, one in surveys.items():
        # Where the server is: the port that leads to the root, a new one at the root.
        way = next((at for at, macs in one.behind.items() if root in macs), len(one.ports) + 1)
        heard = {
            at: {mac for mac in macs if at != way or kinds[mac] != "switch"}
            for at, macs in one.behind.items()
        }
        heard.setdefault(way, set()).add(server)
        found[key] = told(key, len(one.ports) + 1, heard)
    return found, kinds, right


class MergeTests(SynchronousTestCase):
    @given(networks())
    @settings(deadline=None, max_examples=200)
    def test_exact(self, made: tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]]) \
            -> None:
        """All cables and places are found, nothing else; again gives the same, in any order."""
        surveys, kinds, right = made
        links = merge(surveys, {}, kinds, [], NOW)
        self.assertEqual({frozenset(one.macs) for one in links}, right)
        self.assertEqual(len(links), len(right))
        for one in links:
            for end in one.ends:
                if kinds[end[0]] == "switch":
                    self.assertIsNotNone(end[1], one)
        backwards = dict(reversed(surveys.items()))
        self.assertEqual(merge(backwards, {}, kinds, links, NOW), links)
        self.assertEqual(news(links, merge(surveys, {}, kinds, links, NOW + 1)), [])

    @given(networks())
    @settings(deadline=None, max_examples=100)
    def test_quiet(self, made: tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]]) \
            -> None:
        """Without LLDP, and switches that answer the server alone: others do not learn them."""
        surveys, kinds, right = quiet(*made)
        links = merge(surveys, {}, kinds, [], NOW)
        self.assertEqual({frozenset(one.macs) for one in links}, right)
        for one in links:
            self.assertNotIn(None, [end[1] for end in one.ends if kinds[end[0]] == "switch"])

    @given(networks(), some.data(), some.booleans())
    @settings(deadline=None, max_examples=200)
    def test_some_again(
        self, made: tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]],
        data: some.DataObject, is_quiet: bool,
    ) -> None:
        """Where nothing changed, reading some switches again moves nothing."""
        surveys, kinds, _ = quiet(*made) if is_quiet else made
        links = merge(surveys, {}, kinds, [], NOW)
        names = data.draw(some.sets(some.sampled_from(sorted(surveys)), min_size=1))
        again = merge(
            {name: surveys[name] for name in names}, surveys, kinds, links, NOW + 1
        )
        self.assertEqual(moves(links, again, kinds), [])
        self.assertEqual(
            {(one.ends, one.confirmed) for one in again},
            {(one.ends, one.confirmed) for one in links},
        )

    @given(networks(), some.data())
    @settings(deadline=None, max_examples=100)
    def test_parts(self, made: tuple[dict[str, Survey], dict[str, str], set[frozenset[str]]],
                   data: some.DataObject) -> None:
        """With some switches alone no loop comes out, and no node has two places."""
        surveys, kinds, _ = made
        names = data.draw(some.sets(some.sampled_from(sorted(surveys))))
        some_of_them = {name: surveys[name] for name in names}
        links = merge(some_of_them, surveys, kinds, merge(surveys, {}, kinds, [], NOW), NOW + 1)
        met: list[str] = [mac for one in links for mac in one.macs if kinds[mac] == "node"]
        self.assertEqual(len(met), len(set(met)))
        ends = [end for one in links for end in one.ends if end[1] is not None]
        self.assertEqual(len(ends), len(set(ends)))

    def test_evidence(self) -> None:
        """LLDP from both ends, from one, bridge tables; it says so, and the best wins."""
        kinds = {switch(1): "switch", switch(2): "switch", node(1): "node"}
        one = told(switch(1), 3, {1: {switch(2)}, 2: {node(1)}}, (hears(1, switch(2), "p1"),))
        two = told(switch(2), 3, {1: {switch(1), node(1)}}, (hears(1, switch(1), "p1"),))
        cable = Link((switch(1), 1), (switch(2), 1), LLDP_BOTH, True, NOW)
        place = Link((switch(1), 2), (node(1), None), BRIDGE, True, NOW)
        both = {switch(1): one, switch(2): two}
        self.assertEqual(merge(both, {}, kinds, [], NOW), [cable, place])
        deaf = {switch(1): one, switch(2): replace(two, neighbours=())}
        self.assertEqual(
            merge(deaf, {}, kinds, [], NOW), [cable._replace(evidence=LLDP), place]
        )
        self.assertEqual(
            merge({mac: replace(one, neighbours=()) for mac, one in deaf.items()},
                  {}, kinds, [], NOW),
            [cable._replace(evidence=BRIDGE), place],
        )

    def test_claims(self) -> None:
        """What a neighbour says of itself is nothing where the table says otherwise."""
        kinds = {switch(1): "switch", node(1): "node", node(2): "node"}
        liar = told(
            switch(1), 4, {2: {node(1)}, 3: {node(2)}}, (hears(3, node(1), "eth0"),)
        )
        self.assertEqual(
            {one.macs: one.end(switch(1))[1] for one in
             merge({switch(1): liar}, {}, kinds, [], NOW)},
            {(switch(1), node(1)): 2, (switch(1), node(2)): 3},
        )

    def test_several_at_a_port(self) -> None:
        """A telephone and the PC behind it, both by LLDP; the power of such a port is nobody's."""
        kinds = {switch(1): "switch", node(1): "node", mac(0xc, 1): "unknown"}
        survey = told(
            switch(1), 2, {1: {node(1), mac(0xc, 1)}},
            (hears(1, mac(0xc, 1), "WAN"), hears(1, node(1), "eth0")),
        )
        links = merge({switch(1): survey}, {}, kinds, [], NOW)
        self.assertEqual(
            {(one.macs, one.evidence) for one in links},
            {((switch(1), node(1)), LLDP), ((switch(1), mac(0xc, 1)), LLDP)},
        )

    def test_old(self) -> None:
        """Not seen again: no longer confirmed; not looked at: as it was; taken: gone."""
        kinds = {switch(1): "switch", switch(2): "switch", **{node(n): "node" for n in range(4)}}
        old = [
            Link.of((switch(1), 1), (node(0), None), BRIDGE, 10.0),
            Link.of((switch(1), 2), (node(1), None), BRIDGE, 10.0),
            Link.of((switch(2), 2), (node(2), None), REPORT, 10.0),
            Link.of((switch(2), 3), (mac(9, 9), None), BRIDGE, 10.0),
        ]
        survey = told(switch(1), 4, {2: {node(3)}})
        links = merge({switch(1): survey}, {}, kinds, old, NOW)
        self.assertEqual(links, [
            old[0]._replace(confirmed=False),
            Link.of((switch(1), 2), (node(3), None), BRIDGE, NOW),
            old[2],
        ])
        broken = replace(survey, failure="it stopped answering")
        self.assertIn(old[0], merge({switch(1): broken}, {}, kinds, old, NOW))
        # What was there before does not close a loop.
        triangle = {switch(n): "switch" for n in (1, 2, 3)}
        cables = [
            Link.of((switch(1), 1), (switch(2), 1), LLDP, NOW),
            Link.of((switch(2), 2), (switch(3), 1), LLDP, NOW),
            Link.of((switch(1), 2), (switch(3), 2), BRIDGE, 1.0, confirmed=False),
        ]
        self.assertEqual(merge({}, {}, triangle, cables, NOW), cables[:2])
        sure = [*cables[:2], cables[2]._replace(evidence=LLDP, confirmed=True)]
        self.assertEqual(
            {one.ends for one in merge({}, {}, triangle, sure, NOW)}, {one.ends for one in sure}
        )


    def test_server(self) -> None:
        """What the server hears itself: another end of its cable, or an unknown device."""
        server, raw, stranger = mac(0xf, 1), mac(0xf, 2), mac(0xc, 1)
        kinds = {
            switch(1): "switch", switch(2): "switch", server: "server", stranger: "unknown",
        }
        own = Survey(
            "box", frozenset({server, raw}), {5: Port(5, "eth1", mac=raw, type=6)},
            (hears(5, switch(1), "p3"),), has_lldp=True,
        )
        one = told(switch(1), 3, {3: {server}}, (hears(3, raw, "eth1"),))
        two = told(switch(2), 3, {1: {server}})
        surveys = {switch(1): one, switch(2): two, server: own}
        cable = Link.of((switch(1), 3), (server, 5), LLDP_BOTH, NOW)
        self.assertIn(cable, merge(surveys, {}, kinds, [], NOW))
        # By the table alone, as if it heard nothing; what is read of it alone takes nothing away.
        deaf = {**surveys, server: replace(own, neighbours=()), switch(1): replace(
            one, neighbours=()
        )}
        table = Link.of((switch(1), 3), (server, None), BRIDGE, NOW)
        del deaf[switch(2)]
        self.assertEqual(merge(deaf, {}, kinds, [], NOW), [table])
        self.assertEqual(merge({server: deaf[server]}, deaf, kinds, [table], NOW + 1), [table])
        # It was plugged elsewhere: at once, though the switch of before is not read.
        near = replace(own, neighbours=(hears(5, switch(2), "p2"),))
        links = merge({server: near}, {switch(1): one, switch(2): two}, kinds, [cable], NOW + 1)
        self.assertEqual(links, [Link.of((switch(2), 2), (server, 5), LLDP, NOW + 1)])
        self.assertEqual(
            moves([cable], links, kinds), [Move((server, 5), (switch(1), 3), (switch(2), 2))]
        )
        # Of an unknown device people are told that it may be the switch.
        lost = replace(own, neighbours=(hears(5, stranger, "1"),))
        links = merge({server: lost}, {}, kinds, [], NOW)
        self.assertEqual(root_of(links, kinds, server), (None, [stranger]))
        # A liar with the address of the server is not its switch's port.
        liar = told(switch(2), 3, {1: {server}}, (hears(2, server, "eth1"),))
        links = merge({**surveys, switch(2): liar}, {}, kinds, [], NOW)
        self.assertEqual([link for link in links if server in link.macs], [cable])

    def test_moves(self) -> None:
        """Nodes and cables that are elsewhere; not what is better known, new or gone."""
        kinds = {
            **{switch(n): "switch" for n in (1, 2, 3)}, **{node(n): "node" for n in range(4)},
        }
        old = [
            Link.of((switch(1), 1), (switch(2), 1), LLDP_BOTH, 1.0),
            Link.of((switch(2), 2), (switch(3), 1), LLDP_BOTH, 1.0),
            Link.of((switch(2), 3), (node(1), None), BRIDGE, 1.0),
            Link.of((switch(2), 4), (node(2), None), BRIDGE, 1.0, confirmed=False),
        ]
        self.assertEqual(moves(old, old, kinds), [])
        self.assertEqual(moves([], old, kinds), [])
        new = [
            old[0],
            Link.of((switch(1), 3), (switch(3), 1), LLDP_BOTH, 2.0),
            Link.of((switch(3), 3), (node(1), None), BRIDGE, 2.0),
            Link.of((switch(2), 2), (node(2), None), REPORT, 2.0),
            Link.of((switch(2), 9), (node(3), None), BRIDGE, 2.0),
        ]
        self.assertEqual(moves(old, new, kinds), [
            Move((switch(3), 1), (switch(2), 2), (switch(1), 3)),
            Move((node(1), None), (switch(2), 3), (switch(3), 3)),
            Move((node(2), None), (switch(2), 4), (switch(2), 2)),
        ])
        swapped = [
            Link.of((switch(2), 4), (node(1), None), BRIDGE, 2.0),
            Link.of((switch(2), 3), (node(2), None), BRIDGE, 2.0),
        ]
        self.assertEqual({one.end[0] for one in moves(old, swapped, kinds)}, {node(1), node(2)})


class TreeTests(SynchronousTestCase):
    def test_branches(self) -> None:
        """Order by port, what is hidden, ways back, the root."""
        server = mac(0xf, 1)
        kinds = {
            **{switch(n): "switch" for n in range(1, 5)}, server: "server", node(1): "node",
            mac(0xc, 1): "unknown",
        }
        links = [
            Link.of((switch(1), 9), (server, None), BRIDGE, NOW),
            Link.of((switch(1), 10), (switch(2), 1), LLDP, NOW),
            Link.of((switch(1), 2), (switch(3), 1), LLDP, NOW),
            Link.of((switch(2), 7), (node(1), None), BRIDGE, NOW),
            Link.of((switch(2), 8), (switch(4), 1), LLDP, NOW),
            Link.of((switch(1), 3), (switch(4), 2), LLDP, NOW),
            Link.of((switch(1), 4), (mac(0xc, 1), None), BRIDGE, NOW),
        ]
        self.assertEqual(root_of(links, kinds, server), (switch(1), []))
        self.assertEqual(root_of([], kinds, server), (None, []))
        unknown = [Link.of((mac(0xc, 1), None), (server, None), LLDP, NOW)]
        self.assertEqual(root_of(unknown, kinds, server), (None, [mac(0xc, 1)]))
        drawn = [
            (one.depth, one.mac, one.kind, one.port)
            for one in tree(links, kinds, switch(1), show_all=False)
        ]
        self.assertEqual(drawn, [
            (0, switch(3), "switch", 2), (1, switch(3), HIDDEN, None),
            (0, switch(4), "switch", 3),
            (1, switch(2), "switch", 1), (2, switch(1), BACK, 1), (2, node(1), "node", 7),
            (0, server, "server", 9), (0, switch(2), BACK, 10),
        ])
        everything = list(tree(links, kinds, switch(1), show_all=True))
        self.assertIn(mac(0xc, 1), {one.mac for one in everything})
        self.assertNotIn(HIDDEN, {one.kind for one in everything})
        self.assertLessEqual(set(kinds), {one.mac for one in everything} | {switch(1)})
