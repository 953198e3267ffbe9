"""The rules on recordings of real switches, which lie beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import skips
from tests.server.domain.switches.records import rows
from walt.server.domain.switches.bridge import LEARNED, behind, seen, tables_of_vlans
from walt.server.domain.switches.lldp import neighbours
from walt.server.domain.switches.numbering import Numbering
from walt.server.domain.switches.poe import power_ports
from walt.server.domain.switches.snmp_interfaces import own_addresses
from walt.server.domain.switches.tables import Answers

RECORDINGS = skips.BESIDE / "snmp"


def lines(path: Path) -> list[str]:
    """Return the lines of a recording, whose octets are those of Latin 1."""
    return path.read_text(encoding="latin-1").removesuffix("\n").split("\n")


class RecordingTests(SynchronousTestCase):
    """Exactly the right answers of `expected/NAME.json`, for every recording."""

    skip = skips.without_data("snmp/expected")

    def each(self) -> list[tuple[str, dict[str, Any], Answers, Numbering]]:
        found = []
        for path in sorted(RECORDINGS.glob("*.snmprec")):
            expected = json.loads((RECORDINGS / "expected" / f"{path.stem}.json").read_text())
            answers = Answers(rows(lines(path)))
            found.append((path.stem, expected, answers, Numbering.of(answers)))
        self.assertGreater(len(found), 10)
        return found

    def test_neighbours(self) -> None:
        """All rows, with identifiers of every type, names, addresses and local interfaces."""
        for name, expected, answers, numbering in self.each():
            got = neighbours(answers, numbering)
            if not expected["neighbours"]:
                self.assertEqual(
                    [{"port": one.port, "mac": one.mac, "name": one.name} for one in got],
                    expected["tplink_walt"], name,
                )
                continue
            self.assertEqual(
                [(
                    one.port, one.interface, one.chassis_type, one.chassis, one.remote_port_type,
                    one.remote_port, one.remote_description, one.name, one.mac,
                    list(one.addresses), one.is_self,
                ) for one in got],
                [tuple(row[key] for key in (
                    "localPort", "localIfIndex", "chassisSubtype", "chassisId", "portSubtype",
                    "portId", "portDesc", "sysName", "mac", "ipv4", "self",
                )) for row in expected["neighbours"]],
                name,
            )

    def test_ports(self) -> None:
        """LLDP's and the bridge's numbers of ports, and what weaker evidence would say."""
        for name, expected, answers, numbering in self.each():
            for number, right in expected["lldp_local_ports"].items():
                self.assertEqual(numbering.of_lldp(int(number)), right["ifIndex"], (name, number))
                if right["id"] is None:
                    continue
                port = numbering.local[int(number)]
                self.assertEqual(
                    (port.id, port.subtype, sorted(port.others)),
                    (right["id"], right["subtype"], sorted(right["disagree"])), (name, number),
                )
            self.assertEqual(
                {str(port): index for port, index in numbering.bridge.items()},
                expected["bridge_port_ifindex"], name,
            )
            self.assertEqual(sorted(own_addresses(answers)), expected["secondary_macs"], name)
            self.assertEqual(
                {str(vlan): table for vlan, table in tables_of_vlans(answers).items()},
                expected["vlan_fid"], name,
            )

    def test_power(self) -> None:
        """Each port of a power supply on its true interface."""
        for name, expected, answers, numbering in self.each():
            got = power_ports(answers, numbering)
            right = expected["poe"].get("standard", expected["poe"].get("tplink", []))
            self.assertEqual(len(got), len(right), name)
            for port, row in zip(got, right, strict=True):
                self.assertEqual(port.index[-1], row["port"], name)
                self.assertEqual(port.is_on, row.get("admin", row.get("status")) == "on", name)
                self.assertEqual(port.delivers, row["delivering"], (name, port.index))
                assert port.interface is not None, (name, port)
                interface = numbering.interfaces[port.interface]
                if "ifIndex" in row:
                    self.assertEqual(port.interface, row["ifIndex"], (name, port.index))
                else:
                    self.assertTrue(interface.name.endswith(f"/{row['port']}"), interface)

    def test_addresses(self) -> None:
        """Every row of the forwarding tables; learned ones by port."""
        for name, expected, answers, numbering in self.each():
            got = seen(answers, numbering)
            right = expected["fdb_q"] or [[None, *row] for row in expected["fdb_d"]]
            self.assertEqual(
                [(one.table, one.mac, one.port, one.status) for one in got],
                [(table, mac, port, status) for table, mac, port, _, status in right], name,
            )
            for one, row in zip(got, right, strict=True):
                if row[3] in numbering.interfaces:
                    self.assertEqual(one.interface, row[3], name)
            found = behind(got)
            for mac, ports in expected["mac_port_walt"].items():
                for port in ports:
                    self.assertIn(mac, found[numbering.bridge[port]], name)
            self.assertEqual(
                sum(map(len, found.values())),
                len({(one.interface, one.mac) for one in got
                     if one.interface and one.port and one.status in (None, LEARNED)}), name,
            )
