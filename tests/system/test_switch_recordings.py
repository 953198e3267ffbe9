"""Recordings of real switches, served by snmpsim: what is read says what the record says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests import skips
from tests.contracts.test_switches import snmp
from tests.patience import patient
from tests.server.domain.switches.records import rows
from tests.server.domain.switches.test_recordings import RECORDINGS, lines
from tests.system.snmp_agents import Agents
from walt.server.adapters.snmp.switches import BY_VLAN
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.domain.switches.survey import Survey, survey
from walt.server.domain.switches.tables import Answers


class ServedTests(TestCase):
    timeout = patient(300)
    skip = skips.without_data("snmp/expected")

    async def test_all(self) -> None:
        """Neighbours, ports, power and addresses are those of the record."""
        records = {path.stem: path for path in sorted(RECORDINGS.glob("*.snmprec"))}
        agents = Agents(self, records)
        whole = [name for name in records if "@" not in name]
        switches = snmp(self, patience=20.0, limit=400.0)
        for name in whole:  # one process serves them all, a request at a time
            (one,) = await switches.read([SnmpTarget("127.0.0.1", 2, name, agents.port)])
            self.assertIsNone(one.failure, name)
            vlans = [path for other, path in records.items() if other.startswith(f"{name}@")]
            # Reading a record takes long: not in the thread of the reactor.
            await deferToThread(self.compare, name, records[name], vlans, one)

    def compare(
        self, name: str, record: Path, vlans: list[Path], told: Survey
    ) -> None:
        """Check what the rules say of what was read."""
        by_vlan = {
            row: value for path in vlans for row, value in rows(lines(path)).items()
            if any(row[:len(one)] == one for one in BY_VLAN)
        }
        right = survey(Answers({**rows(lines(record)), **by_vlan}))
        for field in fields(Survey):
            self.assertEqual(getattr(told, field.name), getattr(right, field.name), name)
