"""Cables between switches, seen from their ends."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests import skips
from tests.server.domain.switches.records import answers, rows
from tests.server.domain.switches.test_recordings import RECORDINGS, lines
from tests.server.domain.switches.test_rules import IF, ethernet, neighbour
from walt.server.domain.switches.cables import Cable, cables
from walt.server.domain.switches.survey import Survey, survey
from walt.server.domain.switches.tables import Answers

A, B = "020000000a00", "020000000b00"
NAME = "1.0.8802.1.1.2.1.3.3.0"


def switch(name: str, address: str, *neighbours: str) -> Survey:
    """Return a switch with ports 1, `p1`, and 2, `p2`."""
    return survey(answers(
        ethernet((1, "p1"), (2, "p2")) + f"{IF}.6.1|4x|{address}\n{NAME}|4|{name}\n"
        + "".join(neighbours)
    ))


def hexed(text: str) -> str:
    """Return a text as records have octets."""
    return text.encode().hex()


class CableTests(SynchronousTestCase):
    def test_both_ends(self) -> None:
        """One cable of two reports; parallel ones are two; one end alone says so."""
        found = cables({
            "a": switch("sa", A, neighbour("0.1.1", (4, B), (5, hexed("p2"))),
                        neighbour("0.2.1", (4, B), (5, hexed("p1")))),
            "b": switch("sb", B, neighbour("0.2.1", (4, A), (5, hexed("p1")))),
        })
        self.assertEqual(found, [
            Cable((("a", 1), ("b", 2)), True), Cable((("a", 2), ("b", 1)), False),
        ])

    def test_names(self) -> None:
        """A name tells who it is when the address does not, and when it is one switch's."""
        strange = neighbour("0.1.1", (4, "0200000000ff"), (5, hexed("p1")), "sb")
        one = {"a": switch("sa", A, strange), "b": switch("sb", B)}
        self.assertEqual(cables(one), [Cable((("a", 1), ("b", 1)), False)])
        self.assertEqual(cables({**one, "c": switch("sb", "020000000c00")}), [])

    def test_ports_without_names(self) -> None:
        """Who sees each other at one port each has a cable there, whatever the ports are called."""
        same = (3, "020000000b00")
        a = switch("sa", A, neighbour("0.1.1", (4, B), same))
        b = switch("sb", B, neighbour("0.2.1", (4, A), (5, hexed("x"))))
        ends = (("a", 1), ("b", 2))
        self.assertEqual(cables({"a": a, "b": b}), [Cable(ends, True, named=False)])
        telling = switch("sb", B, neighbour("0.2.1", (4, A), (5, hexed("p1"))))
        self.assertEqual(cables({"a": a, "b": telling}), [Cable(ends, True)])
        other = switch("sb", B, neighbour("0.2.1", (4, A), (5, hexed("p2"))))
        self.assertEqual(
            cables({"a": a, "b": other}), [Cable((("a", 2), ("b", 2)), False)]
        )
        twice = switch(
            "sb", B, *(neighbour(f"0.{n}.1", (4, A), (5, hexed("x"))) for n in (1, 2))
        )
        self.assertEqual(cables({"a": a, "b": twice}), [])
        self.assertEqual(cables({"a": a, "b": switch("sb", B)}), [])

    def test_labels(self) -> None:
        """What the other switch says that it announces tells its port, though it is no name."""
        label = "1.0.8802.1.1.2.1.3.7.1"
        one = {
            "a": switch("sa", A, neighbour("0.1.1", (4, B), (7, hexed("502")))),
            "b": switch("sb", B, f"{label}.2.7|2|7\n{label}.3.7|4|502\n{label}.4.7|4|p2\n"),
        }
        self.assertEqual(cables(one), [Cable((("a", 1), ("b", 2)), False)])

    def test_bridge_before_a_name(self) -> None:
        """`bridge/p2`, as RouterOS tells, is p2; a number after a stroke is no name."""
        for text, found in (
            ("bridge/p2", [Cable((("a", 1), ("b", 2)), False)]), ("1/2", []), ("bridge/", []),
        ):
            self.assertEqual(cables({
                "a": switch("sa", A, neighbour("0.1.1", (4, B), (5, hexed(text)))),
                "b": survey(answers(
                    ethernet((1, "2"), (2, "p2")) + f"{IF}.6.1|4x|{B}\n{NAME}|4|sb\n"
                )),
            }), found, text)

    def test_none(self) -> None:
        """Strangers, itself, ports that cannot be told."""
        self.assertEqual(cables({
            "a": switch(
                "sa", A, neighbour("0.1.1", (4, "0200000000ff"), (5, hexed("p1"))),
                neighbour("0.2.1", (4, A), (5, hexed("p1"))),
                neighbour("0.2.2", (4, B), (5, hexed("p7"))),
                neighbour("0.9.1", (4, B), (5, hexed("p1"))),
            ),
            "b": switch("sb", B),
        }), [])


class RecordedCableTests(SynchronousTestCase):
    skip = skips.without_data("snmp/expected")

    def test_a_network(self) -> None:
        """Six cables between three real switches, each seen from both ends."""
        expected = json.loads((RECORDINGS / "expected/links-topo-a.json").read_text())["links"]
        switches = {
            path.stem: survey(Answers(rows(lines(path))))
            for path in RECORDINGS.glob("topo-a-*.snmprec")
        }
        self.assertEqual(
            {
                frozenset((key, switches[key].ports[port].name)
                          for key, port in cable.ends)
                for cable in cables(switches) if cable.both
            },
            {frozenset(map(tuple, link["ends"])) for link in expected},
        )
