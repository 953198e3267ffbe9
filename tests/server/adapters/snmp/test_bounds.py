"""What many hostile switches together can take, over real UDP: memory, time, and whose."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.patience import patient
from tests.server.adapters.snmp import agent
from tests.server.adapters.snmp.agent import Agent, Question, element, number
from tests.server.adapters.snmp.test_faults import honest
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.switches import bridge
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.domain.switches.poe import SYS_OBJECT_ID
from walt.server.domain.switches.snmp_interfaces import BASE_PORT_IF_INDEX, IF_DESCR, IF_TYPE
from walt.server.domain.switches.survey import Survey
from walt.server.runtime.process import Launcher
from walt.server.runtime.workers import WorkerPool
from walt.server.workers.snmp_rows import (
    MAX_ROWS,
    TOO_MANY_ADDRESSES,
    TOO_MANY_PORTS,
    TOO_MUCH,
    TOO_MUCH_OF_ALL,
    Room,
    Rows,
    TooMuch,
)

Behaviour = Callable[[Question], list[bytes]]
ROOM = 24 << 20  # bytes


def endless(text: int) -> Behaviour:
    """Each table never ends, and has texts of so many octets."""
    value = element(agent.OCTETS, b"z" * text)

    def behave(one: Question) -> list[bytes]:
        if one.kind == agent.GET:
            return honest(one)
        at = one.name if one.name[-6:-1] == (2, 0, 0, 0, 1) else (*one.name, 2, 0, 0, 0, 1, 0)
        rows = ((*at[:-1], at[-1] + n) for n in range(1, 26))
        return [one.answer(*((row, value) for row in rows))]

    return behave


def slow(reactor: Any, seconds: float) -> tuple[Behaviour, list[Agent], list[Any]]:
    """An agent that answers each question after a while, and with a row that leads on.

    The agent goes into the first list; the second one has what it still wants to do.
    """
    served: list[Agent] = []
    calls: list[Any] = []

    def behave(one: Question) -> list[bytes]:
        if one.kind == agent.GET:
            return honest(one)
        below = (*one.name[:-1], one.name[-1] + 1) if len(one.name) > 11 else (*one.name, 1)
        answer = one.answer((below, number(1)))
        transport = served[0].transport
        assert transport is not None
        calls.append(reactor.callLater(seconds, transport.write, answer, served[0].peer))
        return []

    return behave, served, calls


class BoundTests(TestCase):
    timeout = patient(240)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.workers = WorkerPool(reactor, Launcher(), size=1, network="host")

    async def tearDown(self) -> None:
        await self.workers.stop()

    def serve(self, behave: Behaviour) -> tuple[Agent, SnmpTarget]:
        served = Agent(behave)
        port = self.reactor.listenUDP(0, served, "127.0.0.1")
        self.addCleanup(port.stopListening)
        return served, SnmpTarget("127.0.0.1", 2, "lab", port.getHost().port)

    def most(self) -> int:
        """Return the most memory that the worker had, in bytes."""
        (worker,) = self.workers._workers
        assert worker.transport is not None
        told = Path(f"/proc/{worker.transport.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", told)
        assert found is not None
        return int(found[1]) << 10

    async def test_many_hostile_ones(self) -> None:
        """Fifty that never end share what there is; an ordinary one beside them is whole."""
        switches = SnmpSwitches(
            self.workers, patience=20.0, retries=0, room=ROOM, limit=patient(100),
            window=patient(60),
        )
        ordinary = self.serve(honest)[1]
        await switches.read([ordinary])
        before = self.most()
        found = await switches.read([
            *(self.serve(endless(500))[1] for _ in range(49)), ordinary,
        ])
        self.assertEqual((found[-1].failure, len(found[-1].ports)), (None, 39))
        reasons = [one.failure for one in found[:-1]]
        self.assertEqual({*reasons, TOO_MANY_PORTS}, {TOO_MUCH_OF_ALL, TOO_MANY_PORTS})
        self.assertGreater(reasons.count(TOO_MUCH_OF_ALL), len(reasons) / 2)
        self.assertLess(self.most() - before, 2 * ROOM)

    async def test_slow_ones(self) -> None:
        """One that gets on too slowly is given up; others are told long before."""
        behave, served, calls = slow(self.reactor, 0.4)
        agent, target = self.serve(behave)
        served.append(agent)
        told: list[int] = []
        switches = SnmpSwitches(self.workers, patience=2.0, retries=0, window=3.0)
        found = await switches.read(
            [target, self.serve(honest)[1]], (), lambda place, one: told.append(place)
        )
        for one in calls:
            if one.active():
                one.cancel()
        self.assertEqual(told, [1, 0])
        self.assertRegex(str(found[0].failure), r"too slow: \d+ answers and rows in 3 s")
        self.assertIsNone(found[1].failure)

    async def test_late_answers(self) -> None:
        """Answers that come after their question was sent again: all rows, each in its place."""
        calls: list[Any] = []

        def behave(one: Question) -> list[bytes]:
            asked.append(one)
            if len(asked) % 3:
                return honest(one)
            (answer,) = honest(one)
            transport = served.transport
            assert transport is not None
            calls.append(self.reactor.callLater(0.8, transport.write, answer, served.peer))
            return []

        asked: list[Question] = []
        served, target = self.serve(behave)
        switches = SnmpSwitches(self.workers, patience=0.5, retries=2)
        late, right = await switches.read([target, self.serve(honest)[1]])
        for one in calls:
            if one.active():
                one.cancel()
        self.assertGreater(len(calls), 3)
        self.assertEqual(late, right)

    async def test_told_at_once(self) -> None:
        """A dead switch holds nobody's survey."""
        told: list[tuple[int, bool]] = []

        def on_read(place: int, one: Survey) -> None:
            told.append((place, one.failure is None))

        switches = SnmpSwitches(self.workers, patience=1.5, retries=1)
        await switches.read(
            [self.serve(lambda one: [])[1], *(self.serve(honest)[1] for _ in range(3))], (),
            on_read,
        )
        self.assertEqual(sorted(told[:3]), [(1, True), (2, True), (3, True)])
        self.assertEqual(told[3], (0, False))

    async def test_vanishing(self) -> None:
        """One that goes off in the middle: what it told by then stays, and that it stopped."""
        left = [3]

        def behave(one: Question) -> list[bytes]:
            left[0] -= one.kind != agent.GET
            return honest(one) if left[0] >= 0 else []

        switches = SnmpSwitches(self.workers, patience=1.0, retries=0)
        (one,) = await switches.read([self.serve(behave)[1]])
        self.assertEqual(one.failure, "it stopped answering")

    async def test_many_addresses(self) -> None:
        """Ten thousand addresses are read, of which those of devices are told; more have an end."""
        rows = {SYS_OBJECT_ID: agent.identifier((1, 3, 6, 1, 4, 1, 9))}
        rows |= {(*IF_DESCR, 1): element(agent.OCTETS, b"up"), (*IF_TYPE, 1): number(6)}
        rows[(*BASE_PORT_IF_INDEX, 1)] = number(1)
        for one in range(10_000):
            index = (1, 2, 0, 0, 0, one >> 8, one & 255)
            rows[(*bridge.Q_PORT, *index)] = number(1)
            rows[(*bridge.Q_STATUS, *index)] = number(bridge.LEARNED)
        names = sorted(rows)

        def behave(one: Question) -> list[bytes]:
            if one.kind == agent.GET:
                return [one.answer((one.name, rows.get(one.name, b"\x80\x00")))]
            at = bisect_right(names, one.name)
            chosen = names[at:at + one.repetitions]
            return [one.answer(*(
                [(name, rows[name]) for name in chosen]
                or [(one.name, bytes([agent.END_OF_MIB, 0]))]
            ))]

        switches = SnmpSwitches(self.workers, patience=5.0, retries=1)
        node = "02:00:00:00:10:07"
        (one,) = await switches.read([self.serve(behave)[1]], [node])
        self.assertIsNone(one.failure)
        self.assertEqual(one.counts, {1: 10_000})
        self.assertEqual(one.behind, {1: frozenset([node])})

        def forever(one: Question) -> list[bytes]:
            if one.kind != agent.GET and one.name[:len(bridge.Q_PORT)] == bridge.Q_PORT:
                return beyond(one)
            return behave(one)

        beyond = endless(1)
        (one,) = await switches.read([self.serve(forever)[1]])
        self.assertEqual(one.failure, TOO_MANY_ADDRESSES)

    async def test_large_datagrams(self) -> None:
        """What is larger than any answer to the question is not even read."""
        value = element(agent.OCTETS, b"z" * 200)

        def behave(one: Question) -> list[bytes]:
            if one.kind == agent.GET:
                return honest(one)
            return [one.answer(*(((*IF_DESCR, n), value) for n in range(1, 250)))]

        switches = SnmpSwitches(self.workers, patience=0.5, retries=0)
        (one,) = await switches.read([self.serve(behave)[1]])
        self.assertEqual(one.failure, "it stopped answering")

    async def test_large_meaning(self) -> None:
        """Tables within all limits that mean too much for one survey."""
        text = element(agent.OCTETS, b"n" * 250)

        def behave(one: Question) -> list[bytes]:
            if one.kind == agent.GET:
                return honest(one)
            for column, value in ((IF_DESCR, text), (IF_TYPE, number(6))):
                if one.name[:len(column)] == column and one.name < (*column, 4000):
                    at = one.name[-1] if len(one.name) > len(column) else 0
                    return [one.answer(*(((*column, at + n), value) for n in range(1, 26)))]
            return [one.answer((one.name, bytes([agent.END_OF_MIB, 0])))]

        switches = SnmpSwitches(self.workers, patience=5.0, retries=1)
        (one,) = await switches.read([self.serve(behave)[1]])
        self.assertEqual((one.failure, one.ports), (TOO_MUCH, {}))


class RowsTests(SynchronousTestCase):
    def test_of_one(self) -> None:
        """Rows of one switch have a limit, whatever room there is."""
        rows = Rows(Room(0, 1 << 40))
        for one in range(MAX_ROWS):
            rows.values[(one,)] = 1
        with self.assertRaises(TooMuch):
            rows.add((MAX_ROWS,), 1)

    def test_of_all(self) -> None:
        """Each has its share, more while others leave room, which comes back in the end."""
        room = Room(share=1000, limit=5000)
        first, second = Rows(room), Rows(room)
        with self.assertRaises(TooMuch):
            for one in range(100):
                first.add((1, one), b"x" * 100)
        self.assertGreater(len(first.values), 10)
        for one in range(2):
            second.add((1, one), b"x" * 100)
        first.close()
        self.assertLess(room.used, 1000)
        for one in range(2, 12):
            second.add((1, one), b"x" * 100)
        second.close()
        self.assertEqual(room.used, 0)
