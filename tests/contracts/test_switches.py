"""What every ISwitches does: the fake, and SNMP to simulated switches over UDP."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.switches import FakeSwitches
from tests.server.domain.switches.records import rows
from tests.system.snmp_agents import NAMELESS, Agents, free_port
from walt.common.errors import Unavailable
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.switches.interfaces import ISwitches, SnmpTarget, SnmpUser
from walt.server.domain.switches.survey import survey
from walt.server.domain.switches.tables import Answers, oid
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool

IF = "1.3.6.1.2.1.2.2.1"
POWER, OTHER = "1.3.6.1.2.1.105.1.1.1.3.1.1", "1.3.6.1.2.1.105.1.1.1.3.1.2"
SYSTEM = "1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.9.1"
ROWS = [
    SYSTEM, *(f"{IF}.2.{n}|4|port {n}" for n in range(1, 60)), f"{IF}.6.1|4x|0200000000ff",
    *(f"{IF}.3.{n}|2|6" for n in range(1, 60)),
    f"{OTHER}|2|2",
]
QUICK = {"patience": 2.0, "retries": 1, "set_patience": 4.0, "effect": 4.0}


def pool(case: TestCase) -> WorkerPool:
    """Return workers that the test ends."""
    from twisted.internet import reactor

    workers = WorkerPool(reactor, Launcher(), size=1, network="host", unprivileged=["snmp"])

    case.addCleanup(workers.stop)
    return workers


def snmp(case: TestCase, **limits: float) -> SnmpSwitches:
    """Return what asks by SNMP, in a worker of its own."""

    return SnmpSwitches(pool(case), **limits)


class SwitchesContract(Contract):
    """`make` returns an ISwitches and the target `lab`, with ROWS and POWER, on, writable."""

    @abstractmethod
    async def make(self) -> tuple[Any, SnmpTarget]:
        """Given by each implementation; the class tells what."""

    async def test_reading(self) -> None:
        """All rows of each that answers; why there are none of others."""
        switches, lab = await self.make()
        verifyObject(ISwitches, switches)
        stranger = SnmpTarget(lab.host, 2, "no-such", lab.port)
        old = SnmpTarget(lab.host, 1, lab.community, lab.port)
        done: list[int] = []
        found = await switches.read(
            [lab, stranger, old], (), lambda place, one: done.append(place)
        )
        right = survey(Answers(rows([*ROWS, f"{POWER}|2|1"])))
        self.assertEqual(len(right.ports), 59)
        self.assertEqual(sorted(done), [0, 1, 2])
        for one in (found[0], found[2]):
            self.assertEqual(one, right)
        self.assertTrue(found[1].is_empty)
        self.assertEqual(found[1].ports, {})
        self.assertIn("no answer", found[1].failure)
        self.assertNotIn("no-such", found[1].failure)
        self.assertEqual(await switches.read([]), [])

    async def test_writing(self) -> None:
        """What is set is read back; what cannot be set is refused."""
        switches, lab = await self.make()
        for value in (2, 1, 1):
            self.assertEqual(await switches.set(lab, oid(POWER), value), value)
            (one,) = await switches.read([lab])
            self.assertIn((oid(POWER), value == 1), [(p.control, p.is_on) for p in one.power])
        for target, name in (
            (lab, OTHER), (SnmpTarget(lab.host, 2, "no-such", lab.port), POWER),
        ):
            try:
                await switches.set(target, oid(name), 1)
            except Unavailable:
                continue
            self.fail((target.community, name))


class FakeSwitchesTests(SwitchesContract, TestCase):
    async def make(self) -> tuple[Any, SnmpTarget]:
        fake, lab = FakeSwitches(), SnmpTarget("192.168.1.2", 2, "lab")
        fake.tables[lab] = rows([*ROWS, f"{POWER}|2|1"])
        fake.writable.add(oid(POWER))
        return fake, lab


class SnmpSwitchesTests(SwitchesContract, TestCase):
    timeout = 240

    async def make(self) -> tuple[Any, SnmpTarget]:
        record = "\n".join(ROWS).replace(
            f"{OTHER}|2|2", f"{OTHER}|2:error|op=set,status=notWritable,value=2"
        )
        agents = Agents(self, {"lab": f"{record}\n{POWER}|2:writecache|value=1"})
        switches = snmp(self, **QUICK)
        return switches, SnmpTarget("127.0.0.1", 2, "lab", agents.port)

    async def test_users(self) -> None:
        """Version 3: the right user reads and sets; a wrong one is told why, and delays nobody."""
        tables = "\n".join(ROWS) + f"\n{POWER}|2:writecache|value=1"
        agents = Agents(self, {NAMELESS: tables}, [
            "--v3-engine-id=auto", "--v3-user=walt", "--v3-auth-key=first secret",
            "--v3-auth-proto=SHA256", "--v3-priv-key=second secret", "--v3-priv-proto=AES",
        ])
        user = SnmpUser("walt", "first secret", "second secret", "sha256", "aes")
        lab = SnmpTarget("127.0.0.1", 3, port=agents.port, user=user)
        wrong = [
            replace(user, auth="other secret"), replace(user, priv="other secret"),
            replace(user, name="nobody"), replace(user, auth_protocol="sha"),
        ]
        switches = snmp(self, **QUICK)
        right = survey(Answers(rows([*ROWS, f"{POWER}|2|1"])))
        for _ in range(2):
            found = await switches.read([lab, *(replace(lab, user=one) for one in wrong), lab])
            self.assertEqual([found[0], found[-1]], [right, right])
            for one in found[1:-1]:
                self.assertEqual(one.ports, {})
                self.assertNotIn("secret", str(one.failure))
            self.assertIn("does not accept this user", str(found[1].failure))
            self.assertIn("does not accept this user", str(found[3].failure))
        self.assertEqual(await switches.set(lab, oid(POWER), 2), 2)
        self.assertNotIn("secret", str(lab))
        try:
            await switches.set(replace(lab, user=wrong[0]), oid(POWER), 1)
        except Unavailable as error:
            self.assertNotIn("secret", str(error))
        else:
            self.fail("a wrong user has set something")

    async def test_any_text(self) -> None:
        """Names and passwords of any characters."""
        words = ["p$a`s's\"w d&;%\\", "-é☃ ☃☃ é"]
        agents = Agents(self, {NAMELESS: "\n".join(ROWS)}, [
            "--v3-engine-id=auto", "--v3-user=w@lt 1", f"--v3-auth-key={words[0]}",
            "--v3-auth-proto=SHA", f"--v3-priv-key={words[0][::-1]}", "--v3-priv-proto=AES",
        ])
        user = SnmpUser("w@lt 1", words[0], words[0][::-1])
        lab = SnmpTarget("127.0.0.1", 3, port=agents.port, user=user)
        strange = [
            replace(lab, user=SnmpUser("wält ☃", *words)),
            replace(lab, user=replace(user, priv=words[1])),
            SnmpTarget("127.0.0.1", 2, "lab ☃", agents.port),
        ]
        right, *others = await snmp(self, **QUICK).read([lab, *strange])
        self.assertIsNone(right.failure)
        self.assertEqual(len(right.ports), 59)
        for one in others[:2]:
            self.assertIn("does not accept this user", str(one.failure))
        self.assertIn("no answer", str(others[2].failure))

    async def test_failing_job(self) -> None:
        """What goes wrong with one switch leaves the others, and those of the next reading."""
        agents = Agents(self, {name: "\n".join(ROWS) for name in ("lab", "other")})
        lab = SnmpTarget("127.0.0.1", 2, "lab", agents.port)
        switches = snmp(self, **QUICK)
        wrong = replace(lab, version=3, user=SnmpUser("walt", "first secret", "second", "none"))
        for targets in ([wrong, lab], [lab, wrong, replace(lab, community="other")]):
            for target, told in zip(targets, await switches.read(targets), strict=True):
                if target is wrong:
                    self.assertIn("it was not read", str(told.failure))
                else:
                    self.assertIsNone(told.failure)
        self.flushLoggedErrors()

    async def test_nobody_there(self) -> None:
        """A port that nobody listens on is silence, told once; secrets are not shown."""
        target = SnmpTarget("127.0.0.1", 2, "secret", free_port())
        (one,) = await snmp(self, **QUICK).read([target])
        self.assertIn("no answer", str(one.failure))
        self.assertNotIn("secret", f"{one}{target}")
