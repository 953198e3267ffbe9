"""The rules on small switches of our own making: each odd thing that real ones do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.domain.switches.records import answers
from walt.server.domain.switches import bridge, lldp, numbering, poe, snmp_interfaces
from walt.server.domain.switches.lldp import Neighbour
from walt.server.domain.switches.poe import PowerPort
from walt.server.domain.switches.survey import Port, Survey, survey
from walt.server.domain.switches.tables import Answers, Oid, identifier, mac, words

R = "1.0.8802.1.1.2.1.4.1.1"
M = "1.0.8802.1.1.2.1.4.2.1.3"
L = "1.0.8802.1.1.2.1.3.7.1"
IF = "1.3.6.1.2.1.2.2.1"
NAME = "1.3.6.1.2.1.31.1.1.1.1"
PSE = "1.3.6.1.2.1.105.1.1.1"
BASE = "1.3.6.1.2.1.17.1.4.1.2"
Q = "1.3.6.1.2.1.17.7.1.2.2.1"
TP = "1.3.6.1.4.1.11863.6.35.1.2.2.1"


def neighbour(index: str, chassis: tuple[int, str], port: tuple[int, str], name: str = "") -> str:
    """Return the rows of a neighbour; identifiers are given in hexadecimal."""
    return "\n".join((
        f"{R}.4.{index}|2|{chassis[0]}", f"{R}.5.{index}|4x|{chassis[1]}",
        f"{R}.6.{index}|2|{port[0]}", f"{R}.7.{index}|4x|{port[1]}", f"{R}.9.{index}|4|{name}", "",
    ))


def ethernet(*named: tuple[int, str]) -> str:
    """Return the rows of Ethernet interfaces."""
    return "".join(f"{IF}.3.{n}|2|6\n{NAME}.{n}|4|{name}\n" for n, name in named)


def seen(text: str) -> list[lldp.Neighbour]:
    """Return the neighbours of a switch with this record."""
    told = answers(text)
    return lldp.neighbours(told, numbering.Numbering.of(told))


def powered(text: str) -> list[poe.PowerPort]:
    """Return the power ports of a switch with this record."""
    told = answers(text)
    return poe.power_ports(told, numbering.Numbering.of(told))


class NeighbourTests(SynchronousTestCase):
    def test_who_it_is(self) -> None:
        """The address of a device is its chassis or, else, its port; a bad one is nobody's."""
        for chassis, port, told, address in (
            ((4, "020000000001"), (5, "6530"), "02:00:00:00:00:01", "02:00:00:00:00:01"),
            ((4, "30323a30303a30303a30303a30303a3031"), (5, "6530"), "02:00:00:00:00:01",
             "02:00:00:00:00:01"),
            ((4, "000000000000"), (3, "020000000002"), "00:00:00:00:00:00", "02:00:00:00:00:02"),
            ((4, "01005e000001"), (5, "6530"), "01:00:5e:00:00:01", None),
            ((5, "010a000001"), (3, "020000000002"), "10.0.0.1", "02:00:00:00:00:02"),
            ((7, "706300"), (7, "31"), "pc", None),
            ((1, "cf"), (1, "cf"), "hex:cf", None),
            ((5, "01"), (4, ""), "hex:01", None),
            ((99, "6162"), (99, "63"), "ab", None),
            ((6, "1b5b324a"), (5, "6530"), "hex:1b5b324a", None),
        ):
            (one,) = seen(neighbour("0.3.1", chassis, port))
            self.assertEqual((one.port, one.chassis, one.mac), (3, told, address), chassis)

    def test_addresses(self) -> None:
        """Addresses with and without length, five octets, none that can be asked."""
        for index, right in (
            ("1.4.10.0.0.1", ("10.0.0.1",)), ("1.10.0.0.1", ("10.0.0.1",)),
            ("1.5.1.10.0.0.1", ("10.0.0.1",)), ("1.5.10.0.0.1.9", ()), ("1.4.0.0.0.0", ()),
            ("1.4.127.0.0.1", ()), ("1.4.224.0.0.1", ()), ("1.4.10.0.0.999", ()), ("1.4", ()),
            ("0.1.207", ()), ("2.16" + ".1" * 16, ()), ("1.4.169.254.1.1", ()),
        ):
            (one,) = seen(
                neighbour("7.3.1", (4, "020000000001"), (5, "6530")) + f"{M}.7.3.1.{index}|2|2"
            )
            self.assertEqual(one.addresses, right, index)
        (one,) = seen(
            neighbour("7.3.1", (4, "020000000001"), (5, "6530")) + f"{M}.7.3.2.1.4.10.0.0.1|2|2"
        )
        self.assertEqual(one.addresses, ())

    def test_short_index(self) -> None:
        """Agents that leave the time mark out: the port is the last number but one."""
        (one,) = seen(ethernet((7, "p7")) + neighbour("7.1", (4, "020000000b00"), (5, "7032")))
        self.assertEqual((one.port, one.interface, one.mac), (7, 7, "02:00:00:00:0b:00"))
        self.assertEqual(one.remote_port, "p2")

    def test_several_on_a_port_and_itself(self) -> None:
        """A telephone and its PC are both kept; a switch that sees itself says so."""
        got = seen(
            neighbour("0.3.1", (4, "020000000001"), (5, "6530"), "pc")
            + neighbour("0.3.2", (4, "020000000002"), (5, "6530"))
            + neighbour("9.4.1", (4, "020000000009"), (5, "34"), "itself")
            + f"{IF}.6.1|4x|020000000009"
        )
        self.assertEqual(
            [(one.port, one.name, one.is_self) for one in got],
            [(3, "pc", False), (3, "", False), (4, "itself", True)],
        )

    def test_table_of_tplink(self) -> None:
        """Texts; the standard table wins when it is filled."""
        rows = "\n".join((
            ethernet((49167, "gigabitEthernet 1/0/15")),
            f"{TP}.1.49167.1|4|1/0/15", f"{TP}.3.49167.1|4|MAC address",
            f"{TP}.4.49167.1|4|02:00:00:00:00:AB", f"{TP}.5.49167.1|4|Interface name",
            f"{TP}.6.49167.1|4|eth0", f"{TP}.9.49167.1|4|board",
            f"{TP}.4.49168.1|4|02:00:00:00:00:AC", "",
        ))
        (one,) = seen(rows)
        self.assertEqual(
            (one.port, one.interface, one.mac, one.name), (15, 49167, "02:00:00:00:00:ab", "board")
        )
        (one,) = seen(rows + neighbour("0.3.1", (4, "020000000001"), (5, "6530")))
        self.assertEqual(one.mac, "02:00:00:00:00:01")


class PortTests(SynchronousTestCase):
    def local(self, text: str, number: int = 3) -> numbering.LocalPort:
        return numbering.Numbering.of(answers(text)).local[number]

    def test_evidence(self) -> None:
        """A name before a number; of numbers the bridge's before an equal one."""
        known = ethernet((3, "lo"), (30, "Fa0/1"), (31, "Fa0/2"), (32, "x"), (33, "x"))
        for rows, interface, by in (
            (f"{L}.3.3|4|Fa0/1", 30, numbering.BY_ID),
            (f"{L}.3.3|4|a board\n{L}.4.3|4|Fa0/2", 31, numbering.BY_DESCRIPTION),
            (f"{L}.2.3|2|7\n{L}.3.3|4|31", 31, numbering.BY_LOCAL_ID),
            (f"{L}.3.3|4|31", 3, numbering.BY_NUMBER),
            (f"{L}.3.3|4|31\n{BASE}.3|2|30", 30, numbering.BY_BRIDGE),
            (f"{L}.3.3|4|x", 3, numbering.BY_NUMBER),
            (f"{L}.2.3|2|3\n{L}.3.3|4x|020000000001\n{IF}.6.31|4x|020000000001", 31,
             numbering.BY_ADDRESS),
            (f"{L}.3.3|4|31\n{BASE}.3|2|77", 3, numbering.BY_NUMBER),
        ):
            port = self.local(known + rows)
            self.assertEqual((port.interface, port.by), (interface, by), rows)
        self.assertEqual(self.local(known + f"{L}.3.3|4|Fa0/1").others, {3})
        self.assertIsNone(self.local(f"{L}.3.3|4|Fa0/1").interface)

    def test_links(self) -> None:
        """Whether ports have a link, where the switch tells it; other numbers tell nothing."""
        states = dict(enumerate((1, 2, 3, 4, 5, 6, 7, 99, -1), 1))
        text = ethernet(*((one, f"p{one}") for one in range(1, 12))) + "".join(
            f"{IF}.8.{port}|2|{state}\n" for port, state in states.items()
        ) + f"{IF}.8.10|4|up\n"
        found = {index: port.up for index, port in survey(answers(text)).ports.items()}
        self.assertEqual(found, {
            1: True, 2: False, 3: None, 4: None, 5: True, 6: False, 7: False, 8: None, 9: None,
            10: None, 11: None,
        })

    def test_surveys_of_before(self) -> None:
        """A survey that was kept when links were not asked for yet is read."""
        kept = survey(answers(ethernet((1, "p1")))).words()
        for port in kept["ports"]:
            del port["up"]
        self.assertIsNone(Survey.of_words(kept).ports[1].up)

    def test_surveys_of_a_later_release(self) -> None:
        """A server that is put back to the release before reads what it knows."""
        whole = Survey(
            ports={1: Port(1, "p1")}, power=(PowerPort((1, 2), (1, 3, 2), 1, 2, True, True),),
            neighbours=(Neighbour(1, "c", None, "p", None),),
        )
        words = whole.words()
        words["later"] = 1
        for part in ("ports", "power", "neighbours"):
            words[part][0]["later"] = 1
        self.assertEqual(Survey.of_words(words), whole)

    def test_aggregates(self) -> None:
        """Members of an aggregate; one that stands alone names itself or nothing."""
        told = answers(
            ethernet((1, "a"), (2, "b"), (3, "c"), (9, "lag"))
            + "".join(f"1.2.840.10006.300.43.1.2.1.1.13.{n}|2|{w}\n"
                      for n, w in ((1, 9), (2, 0), (3, 3)))
        )
        self.assertEqual(snmp_interfaces.aggregates(told, snmp_interfaces.interfaces(told)), {1: 9})


class PowerTests(SynchronousTestCase):
    def pse(self, *indexes: str) -> str:
        return "".join(f"{PSE}.3.{one}|2|1\n{PSE}.6.{one}|2|3\n" for one in indexes)

    def test_counting_proves_nothing(self) -> None:
        """Equal counts, contiguous numbers, plain 1, 2, 3: refused without more evidence."""
        for known in (
            ethernet((101, "a"), (102, "b")), ethernet((1, "Fa0/1"), (2, "Fa0/2")),
            ethernet((1, "up1"), (2, "up2"), (3, "p1"), (4, "p2")), "",
        ):
            for port in powered(known + self.pse("1.1", "1.2")):
                self.assertIsNone(port.interface, known)
                self.assertIn("does not tell which interface", str(port.refused))
                self.assertTrue(port.is_on and port.delivers)

    def test_numbers_of_interfaces(self) -> None:
        """Numbers that are no mere count, or that the bridge counts alike."""
        far = ethernet((1001, "1:1"), (1002, "1:2"))
        near = ethernet((1, "p1"), (2, "p2"))
        for rows in (
            far + self.pse("1.1001", "1.1002"),
            near + f"{BASE}.1|2|1\n{BASE}.2|2|2\n" + self.pse("1.1", "1.2"),
        ):
            self.assertEqual(
                [(port.interface, port.by) for port in powered(rows)],
                [(port.index[-1], poe.BY_NUMBER) for port in powered(rows)],
            )
        for rows in (
            far + f"{BASE}.1002|2|1001\n" + self.pse("1.1001", "1.1002"),
            near + f"{BASE}.1|2|2\n{BASE}.2|2|1\n" + self.pse("1.1", "1.2"),
            ethernet((1001, "1:1")) + self.pse("1.1001", "1.1002"),
            far + self.pse("1.1001", "2.1001"),
            far + f"{IF}.3.1001|2|53\n" + self.pse("1.1001", "1.1002"),
        ):
            self.assertEqual([port.interface for port in powered(rows)], [None] * 2, rows)

    def test_numbers_of_the_case(self) -> None:
        """LLDP's number that ends a name, when it ends no other port's."""
        known = ethernet((101, "gi1/0/1"), (102, "gi1/0/2"), (103, "te1/0/1"))
        named = f"{L}.3.1|4|gi1/0/1\n{L}.3.2|4|gi1/0/2\n"
        self.assertEqual(
            [port.interface for port in powered(known + named + self.pse("1.1", "1.2"))], [101, 102]
        )
        both = known + named + f"{L}.3.3|4|te1/0/1\n"
        self.assertEqual(
            [port.interface for port in powered(both + self.pse("1.1", "1.2"))], [None, 102]
        )
        shifted = known + f"{L}.3.1|4|gi1/0/2\n{L}.3.2|4|gi1/0/1\n"
        self.assertEqual(
            [port.interface for port in powered(shifted + self.pse("1.1", "1.2"))], [None, None]
        )

    def test_parts(self) -> None:
        """The interface that the switch names, unless a part has two, or two ports one."""
        part, alias = "1.3.6.1.4.1.9.9.402.1.2.1.11", "1.3.6.1.2.1.47.1.3.2.1.2"
        known = ethernet((10001, "Fa0/1"), (10002, "Fa0/2")) + self.pse("1.3", "1.4")
        named = f"{part}.1.3|2|1007\n{part}.1.4|2|1008\n"
        named += f"{alias}.1007.0|6|1.3.6.1.2.1.2.2.1.1.10001\n"
        for last, right in (
            (f"{alias}.1008.0|6|1.3.6.1.2.1.2.2.1.1.10002", [10001, 10002]),
            (f"{alias}.1008.0|6|1.3.6.1.2.1.2.2.1.1.10001", [None, None]),
            (f"{alias}.1008.0|6|1.3.6.1.2.1.2.2.1.1.777", [10001, None]),
            (f"{alias}.1007.1|6|1.3.6.1.2.1.2.2.1.1.10002", [None, None]),
        ):
            self.assertEqual([one.interface for one in powered(known + named + last)], right, last)

    def test_makers(self) -> None:
        """Juniper's numbering is for Juniper; TP-Link's table is read first."""
        known = ethernet((501, "ge-0/0/0"), (502, "ge-1/0/0")) + self.pse("1.1", "2.1")
        juniper = known + "1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.2636.1.1.1.2.31\n"
        self.assertEqual([one.interface for one in powered(juniper)], [501, 502])
        self.assertEqual([one.interface for one in powered(known)], [None, None])
        table = "1.3.6.1.4.1.11863.6.56.1.1.2.1.1"
        first, second = powered(
            juniper + f"{table}.2.1|2|1\n{table}.11.1|2|2\n{table}.2.2|2|0\n{table}.11.2|2|0\n"
        )
        self.assertEqual((first.index, first.is_on, first.delivers, first.off), ((1,), 1, 1, 0))
        self.assertEqual((second.is_on, second.delivers), (False, False))

    def test_values(self) -> None:
        """Ports whose state is no truth value are not there."""
        self.assertEqual(powered(f"{PSE}.3.1.1|2|7\n{PSE}.3.1.2|4|on\n{PSE}.3.1|2|1"), [])


class BridgeTests(SynchronousTestCase):
    def test_tables(self) -> None:
        """The table by VLAN before the older one; own addresses and port 0 are behind nothing."""
        old = "1.3.6.1.2.1.17.4.3.1"
        known = ethernet((101, "a")) + f"{BASE}.1|2|101\n"
        rows = (
            f"{old}.2.2.0.0.0.0.1|2|1\n{old}.3.2.0.0.0.0.1|2|3\n{old}.2.2.0.0.0.0.2|2|1\n"
            f"{old}.3.2.0.0.0.0.2|2|4\n{old}.2.2.0.0.0.0.3|2|0\n{old}.2.2.0.0.0.0.4|2|9\n"
            f"{old}.2.2.0.0.0.999.4|2|1\n{old}.2.1.0.0.0.0.4|2|1\n{old}.2.2.0.0.0.4|2|1\n"
        )
        told = answers(known + rows)
        self.assertEqual(
            bridge.behind(bridge.seen(told, numbering.Numbering.of(told))),
            {101: {"02:00:00:00:00:01"}},
        )
        told = answers(
            known + rows + f"{Q}.2.7.2.0.0.0.0.8|2|1\n1.3.6.1.2.1.17.7.1.4.2.1.3.0.50|2|7\n"
        )
        (one,) = bridge.seen(told, numbering.Numbering.of(told))
        self.assertEqual(
            (one.mac, one.interface, one.table, one.status), ("02:00:00:00:00:08", 101, 7, None)
        )
        self.assertEqual(bridge.tables_of_vlans(told), {50: 7})


_columns = st.sampled_from([
    *(tuple(map(int, text.split("."))) for text in (
        f"{R}.4", f"{R}.5", f"{R}.6", f"{R}.7", f"{R}.8", f"{R}.9", M, f"{L}.2", f"{L}.3",
        f"{L}.4", f"{IF}.2", f"{IF}.3", f"{IF}.6", NAME, f"{PSE}.3", f"{PSE}.6", BASE,
        f"{Q}.2", f"{Q}.3", f"{TP}.1", f"{TP}.3", f"{TP}.4", "1.3.6.1.2.1.17.4.3.1.2",
        "1.3.6.1.4.1.9.9.402.1.2.1.11", "1.3.6.1.2.1.47.1.3.2.1.2", "1.3.6.1.2.1.1.2",
        "1.3.6.1.2.1.17.7.1.4.2.1.3", "1.2.840.10006.300.43.1.2.1.1.13",
    )),
])
_small = st.integers(0, 5)
_number = st.one_of(_small, st.integers(0, 2**64))
_index: st.SearchStrategy[Oid] = st.one_of(
    st.lists(_small, max_size=4).map(tuple), st.lists(_number, max_size=12).map(tuple)
)
_value = st.one_of(
    _number, st.binary(max_size=20), st.binary(min_size=300, max_size=400), _index,
    st.integers(-(2**31), 0), st.sampled_from([b"1", b"p1", b"1.2", b"MAC address"]),
)
_rows = st.dictionaries(
    st.builds(lambda column, index: (*column, *index), _columns, _index), _value, max_size=40
)


class LogicalTests(SynchronousTestCase):
    def test_units(self) -> None:
        """What Juniper's logical interfaces see is at the port that is powered."""
        told = (
            ethernet((501, "ge-0/0/0"), (502, "ge-0/0/1"))
            + f"{NAME}.531|4|ge-0/0/0.0\n{IF}.3.531|2|53\n{NAME}.532|4|ge-0/0/0.7\n"
            f"{IF}.3.532|2|53\n{NAME}.540|4|ge-0/0/9.0\n{IF}.3.540|2|53\n"
            f"{BASE}.528|2|531\n{BASE}.529|2|532\n{BASE}.530|2|540\n"
            + neighbour("0.531.1", (4, "020000000b00"), (5, "7032"))
            + "".join(
                f"1.3.6.1.2.1.17.4.3.1.{column}.2.0.0.0.11.{octet}|2|{value}\n"
                for octet, port in ((1, 528), (2, 529), (3, 530))
                for column, value in ((2, port), (3, 3))
            ) + PowerTests().pse("1.1", "1.2")
        )
        maker = "1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.2636.1.1.1.2.31\n"
        found = survey(answers(told + maker))
        self.assertEqual({index: len(macs) for index, macs in found.behind.items()},
                         {501: 2, 540: 1})
        self.assertEqual(sorted(found.ports), [501, 502, 540])
        self.assertEqual([one.interface for one in found.neighbours], [501])
        self.assertEqual(found.numbers(501), "ifIndex 501, bridge 528, PoE 1.1")
        self.assertEqual(sorted(survey(answers(told)).behind), [531, 532, 540])


class HostileTests(SynchronousTestCase):
    @given(_rows)
    def test_any_rows(self, rows: dict[Oid, int | bytes | Oid]) -> None:
        """Whatever a switch answers, the rules say something that may be shown and used."""
        told = Answers(rows)
        numbers = numbering.Numbering.of(told)
        for one in lldp.neighbours(told, numbers):
            for text in (one.chassis, one.remote_port, one.remote_description, one.name):
                self.assertTrue(text.isprintable())
                self.assertLessEqual(len(text), 600)
            self.assertIn(one.interface, {None, *numbers.interfaces})
        power = poe.power_ports(told, numbers)
        proved = [port.interface for port in power if port.interface is not None]
        self.assertEqual(len(proved), len(set(proved)))
        for port in power:
            self.assertEqual(port.interface is None, port.refused is not None)
            self.assertIn(port.interface, {None, *numbers.interfaces})
        bridge.behind(bridge.seen(told, numbers))
        bridge.tables_of_vlans(told)
        snmp_interfaces.aggregates(told, numbers.interfaces)
        snmp_interfaces.own_addresses(told)

    @given(st.binary(max_size=400))
    def test_octets(self, octets: bytes) -> None:
        """Identifiers, names and addresses of any octets are one line."""
        self.assertTrue(identifier(octets).isprintable())
        self.assertTrue(words(octets).isprintable())
        address = mac(octets)
        self.assertTrue(address is None or len(address) == 17)
