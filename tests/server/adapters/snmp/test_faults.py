"""Agents that do wrong, over real UDP: each costs its own switch, and that once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.server.adapters.snmp import agent
from tests.server.adapters.snmp.agent import Agent, Question, element, number
from walt.common.errors import Unavailable
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.domain.switches.poe import SYS_OBJECT_ID
from walt.server.domain.switches.snmp_interfaces import IF_DESCR, IF_TYPE
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import Oid
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool
from walt.server.workers.snmp_rows import MAX_TABLE, TOO_MANY_PORTS

LIMITS = {"patience": 1.0, "retries": 0, "set_patience": 1.0, "effect": 8.0}
ROWS = {(*IF_DESCR, n): element(agent.OCTETS, b"port") for n in range(1, 40)}
ROWS |= {(*IF_TYPE, n): number(6) for n in range(1, 40)}
ROWS[SYS_OBJECT_ID] = agent.identifier((1, 3, 6, 1, 4, 1, 9))
DAMAGED = bytes.fromhex("30820fff0201010406707562")


def honest(question: Question) -> list[bytes]:
    """Answer as a switch with ROWS does."""
    if question.kind == agent.GET:
        return [question.answer((question.name, ROWS.get(question.name, b"\x80\x00")))]
    count = question.repetitions if question.kind == agent.BULK else 1
    after = sorted(name for name in ROWS if name > question.name)[:count]
    if not after:
        return [question.answer((question.name, bytes([agent.END_OF_MIB, 0])))]
    return [question.answer(*((name, ROWS[name]) for name in after))]


class FaultTests(TestCase):
    timeout = 240

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.workers = WorkerPool(reactor, Launcher(), size=1, network="host")
        self.switches = SnmpSwitches(self.workers, **LIMITS)

    async def tearDown(self) -> None:
        await self.workers.stop()

    def serve(self, behave: Callable[[Question], list[bytes]]) -> tuple[Agent, SnmpTarget]:
        served = Agent(behave)
        port = self.reactor.listenUDP(0, served, "127.0.0.1")
        self.addCleanup(port.stopListening)
        return served, SnmpTarget("127.0.0.1", 2, "lab", port.getHost().port)

    async def read(self, *behaviours: Callable[[Question], list[bytes]]) -> list[Survey]:
        return await self.switches.read([self.serve(one)[1] for one in behaviours])

    async def test_each_alone(self) -> None:
        """Agents that loop, lie, stop, or break off beside one that does not."""

        def first_only(faulty: Callable[[Question], list[bytes]]) -> Any:
            return lambda one: honest(one) if one.kind == agent.GET else faulty(one)

        def same(one: Question) -> list[bytes]:
            below = one.name if len(one.name) > 11 else (*one.name, 1)
            return [one.answer((below, number(1)))]

        def back(one: Question) -> list[bytes]:
            rows = [((*one.name[:10], n), number(n)) for n in (5, 4)]
            return [one.answer(*rows)]

        def stranger(one: Question) -> list[bytes]:
            return [one.answer((IF_DESCR, number(1)), id=one.id + 7)]

        names = ("honest", "same", "back", "stranger", "silent", "dead", "damaged", "empty")
        found = dict(zip(names, await self.read(
            honest, first_only(same), first_only(back), first_only(stranger),
            first_only(lambda one: []), lambda one: [],
            first_only(lambda one: [DAMAGED]), first_only(lambda one: [one.answer()]),
        ), strict=True))
        self.assertEqual(len(found["honest"].ports), 39)
        self.assertIsNone(found["honest"].failure)
        for name in ("same", "back"):
            self.assertIn("repeats rows", str(found[name].failure), name)
        for name in ("stranger", "silent", "damaged"):
            self.assertIn("stopped answering", str(found[name].failure), name)
        self.assertIn("no answer", str(found["dead"].failure))
        self.assertIn("could not be read", str(found["empty"].failure))

    async def test_a_silent_switch_is_asked_once(self) -> None:
        """Not once for each table."""
        served, target = self.serve(lambda one: [])
        await self.switches.read([target])
        self.assertEqual(len(served.questions), 1)

    async def test_fewer_repetitions(self) -> None:
        """Halved until the switch can, down to one row at a time; and remembered."""
        for most in (6, 0):
            served, target = self.serve(lambda one, most=most: (  # type: ignore[misc]
                [one.answer(status=1)] if one.repetitions > most else honest(one)
            ))
            for known in (False, True):
                served.questions.clear()
                (one,) = await self.switches.read([target])
                self.assertEqual((one.failure, len(one.ports)), (None, 39))
                asked = [q.repetitions for q in served.questions if q.kind == agent.BULK]
                self.assertEqual(max(asked, default=0) > 6, not known)

    async def test_values(self) -> None:
        """Values of types that no table has are left out, large ones are kept."""
        odd: dict[Oid, bytes] = {
            (*IF_DESCR, 1): element(agent.OCTETS, b"x" * 1000),
            (*IF_DESCR, 2): element(5, b""), (*IF_DESCR, 3): element(0x41, b"\0" + b"\xff" * 4),
            (*IF_DESCR, 4): number(-1), **{(*IF_TYPE, n): number(6) for n in range(1, 5)},
        }

        def behave(one: Question) -> list[bytes]:
            if one.kind == agent.GET:
                return honest(one)
            after = sorted(name for name in odd if name > one.name)[:1]
            if not after:
                return [one.answer((one.name, bytes([agent.END_OF_MIB, 0])))]
            return [one.answer(*((name, odd[name]) for name in after))]

        (one,) = await self.read(behave)
        self.assertIsNone(one.failure)
        names = {index: port.name for index, port in one.ports.items()}
        self.assertEqual(names, {1: "x" * 255, 2: "2", 3: "3", 4: "4"})

    async def test_without_end(self) -> None:
        """A table that always goes on is read up to a limit of rows."""

        def behave(one: Question) -> list[bytes]:
            if one.kind == agent.GET:
                return honest(one)
            at = one.name if len(one.name) > 11 else (*one.name, 0)
            last.append(at[-1] + 25)
            rows = ((*at[:-1], at[-1] + n) for n in range(1, 26))
            return [one.answer(*((row, element(agent.OCTETS, b"y" * 20)) for row in rows))]

        last: list[int] = []

        (one,) = await self.read(behave)
        self.assertEqual(one.failure, TOO_MANY_PORTS)
        self.assertLess(abs(len(last) - MAX_TABLE // 25), 10)
        quick = SnmpSwitches(self.workers, **LIMITS, limit=0.5)
        (one,) = await quick.read([self.serve(behave)[1]])
        self.assertIn("not everything could be read in time", str(one.failure))

    async def test_setting(self) -> None:
        """Sent once; no effect, a late one, none at all, a refusal."""
        name, state = (*IF_DESCR, 1), {"value": 1, "reads": 0}

        def late(one: Question) -> list[bytes]:
            if one.kind == agent.SET:
                return [one.answer((one.name, number(2)))]
            state["reads"] += 1
            return [one.answer((one.name, number(1 if state["reads"] < 4 else 2)))]

        def without_effect(one: Question) -> list[bytes]:
            return [one.answer((one.name, number(2 if one.kind == agent.SET else 1)))]

        self.assertEqual(await self.switches.set(self.serve(late)[1], name, 2), 2)
        quick = SnmpSwitches(self.workers, **{**LIMITS, "effect": 1.0})
        self.assertEqual(await quick.set(self.serve(without_effect)[1], name, 2), 1)
        served, target = self.serve(lambda one: [])
        for behave in (served, self.serve(lambda one: [one.answer(status=17)])[0]):
            where = target if behave is served else SnmpTarget(
                "127.0.0.1", 2, "lab", behave.transport.getHost().port  # type: ignore[union-attr]
            )
            told = await self.failed(self.switches.set(where, name, 2))
            self.assertIn("switch", told)
        self.assertEqual([one.kind for one in served.questions], [agent.SET])

    async def failed(self, work: Any) -> str:
        try:
            await Deferred.fromCoroutine(work)
        except Unavailable as error:
            return str(error)
        raise AssertionError("it did not fail")
