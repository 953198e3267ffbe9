"""What is told while switches are read, and of what was plugged elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes.nodes import DEFAULT, SERVER, FakePlatform, FakeRequester, node, stored
from tests.fakes.switch_store import FakeSwitchStore
from tests.server.domain.switches.test_power import SWITCH
from tests.server.domain.switches.test_topology import hears, told
from walt.server.domain.requester import acting
from walt.server.domain.switches.exploration import Exploration, Result
from walt.server.domain.switches.interfaces import ISwitches, SnmpTarget
from walt.server.domain.switches.survey import Survey
from walt.server.domain.switches.tables import Oid

OTHER = replace(SWITCH, mac="02:00:00:00:0a:02", name="sw-2", ip="192.168.1.201")
OWN = SnmpTarget("192.168.1.1", 2, "private")


@implementer(ISwitches)
class SlowSwitches:
    """Switches that answer when a test says so, one after the other."""

    def __init__(self) -> None:
        self.targets: Sequence[SnmpTarget] = ()
        self.found: dict[int, Survey] = {}

    async def read(
        self, targets: Sequence[SnmpTarget], known: Collection[str] = (),
        on_read: Callable[[int, Survey], None] | None = None,
    ) -> list[Survey]:
        """Wait for `tell`."""
        self.targets, self.found, self._on_read = targets, {}, on_read
        self._done: Deferred[None] = Deferred()
        await self._done
        return [self.found[place] for place in range(len(targets))]

    def tell(self, host: str, survey: Survey) -> None:
        """Have a switch answer."""
        (place,) = [n for n, one in enumerate(self.targets) if one.host == host]
        self.found[place] = survey
        assert self._on_read is not None
        self._on_read(place, survey)
        if len(self.found) == len(self.targets):
            self._done.callback(None)

    async def set(self, target: SnmpTarget, control: Oid, value: int) -> int | None:
        """Nothing can be set."""
        return None


class TellingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakePlatform(stored(DEFAULT))
        self.done(self.fake.start())
        self.node = node(2)
        self.done(self.fake.registry.put(SWITCH, OTHER, self.node))
        self.switches = SlowSwitches()
        self.found: list[tuple[str, str | None]] = []
        self.store = FakeSwitchStore()
        self.exploration = Exploration(
            self.fake.registry, self.switches, self.store, self.fake.platform,
            lambda: 1e9, self.register, OWN,
        )
        self.done(self.exploration.load())
        self.requester = FakeRequester()

    async def register(self, mac: str, ip: str | None, name: str) -> None:
        """Note by whom a device was found."""
        self.found.append((mac, acting.get()))

    async def restore(self, macs: Iterable[str]) -> Mapping[str, str]:
        """Have nothing that is off."""
        return {}

    def done(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of what does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def rescan(self, devices: str, *, quiet: bool = False) -> Deferred[list[Result]]:
        """Begin to ask."""
        return Deferred.fromCoroutine(
            self.exploration.rescan(devices, self.requester, self.restore, quiet=quiet)
        )

    def test_one_by_one(self) -> None:
        """A line as soon as a switch is known, refusals before; who is waited for is shown."""
        results = self.rescan("sw,sw-2,node-2,server")
        self.assertRegex(self.requester.err[0], r"^Querying node-2 +INVALID ")
        self.assertEqual(
            self.requester.labels, ["Querying switches: 0 of 3, waiting for sw, sw-2, walt-server"]
        )
        self.switches.tell("192.168.1.201", told(OTHER.mac, 2, {1: {self.node.mac}}))
        self.assertEqual(
            self.requester.out, [f"Querying {'sw-2':<25} OK (BRIDGE-only data)"]
        )
        self.assertEqual(
            self.requester.labels[-1], "Querying switches: 1 of 3, waiting for sw, walt-server"
        )
        self.switches.tell("192.168.1.1", Survey(failure="no answer"))
        self.assertNoResult(results)
        self.switches.tell("192.168.1.200", Survey(failure="it stopped answering"))
        self.assertEqual(
            [one.kind for one in self.successResultOf(results)],
            ["INVALID", "FAILED", "OK", "FAILED"],  # by name
        )
        self.assertEqual(
            self.requester.err[1], f"Querying {'sw':<25} FAILED (it stopped answering)"
        )
        self.assertIn("its own agent: no answer", self.requester.err[2])

    def test_moves(self) -> None:
        """What is elsewhere is told and logged; quietly, it is logged alone."""
        for first, second, quiet in ((1, 0, False), (0, 2, False), (2, 0, True)):
            results = self.rescan("sw,sw-2", quiet=quiet)
            for one, port in ((SWITCH, first), (OTHER, second)):
                seen = {port: {self.node.mac}} if port else {}
                self.switches.tell(str(one.ip), told(one.mac, 2, seen))
            self.switches.tell("192.168.1.1", Survey(failure="no answer"))
            self.successResultOf(results)
        self.assertEqual(
            [line for line in self.requester.out if line.startswith("Moved")],
            ["Moved: node-2 is at sw-2 port p2 now, it was at sw port p1"],
        )
        lines = self.done(self.fake.lines("devices"))
        self.assertIn("Node node-2 is now connected on sw-2 port p2", lines)
        self.assertIn("Node node-2 is now connected on sw port p2", lines)

    def test_requester_leaves(self) -> None:
        """What was found, and the name of a port, are known as they are stored, and logged."""
        for port in (2, 1):
            self.store.gate = gate = Deferred()
            results = self.rescan("sw")
            self.switches.tell(str(SWITCH.ip), told(SWITCH.mac, 2, {port: {self.node.mac}}))
            self.switches.tell("192.168.1.1", Survey(failure="no answer"))
            if port == 2:
                gate.callback(None)
                self.successResultOf(results)
        results.cancel()
        gate.callback(None)
        self.failureResultOf(results, CancelledError)
        self.assertEqual(set(self.exploration.links), set(self.store.links))
        self.assertTrue(self.store.links)
        self.store.gate = gate = Deferred()
        naming = Deferred.fromCoroutine(
            self.exploration.set_port("sw", "1", ["name=desk"], self.requester)
        )
        naming.cancel()
        gate.callback(None)
        self.failureResultOf(naming, CancelledError)
        self.assertEqual(self.exploration.names, self.store.names)
        lines = self.done(self.fake.lines("devices"))
        self.assertIn("Node node-2 is now connected on sw port p1", lines)
        self.assertTrue([one for one in lines if "port 1 named desk" in one])

    def test_finds_are_nobodys_deeds(self) -> None:
        """Who asks for a look has not plugged what it finds, and goes on under the own name."""
        new = "02:00:00:00:0c:01"
        self.addCleanup(acting.set, None)
        acting.set("ann")
        results = self.rescan("sw")
        self.switches.tell(str(SWITCH.ip), told(SWITCH.mac, 2, {}, (hears(1, new, "eth0"),)))
        self.switches.tell("192.168.1.1", Survey(failure="no answer"))
        self.successResultOf(results)
        self.assertEqual(self.found, [(new, None)])
        self.assertEqual(acting.get(), "ann")

    def test_of_the_server(self) -> None:
        """Its agent is asked with the switches, and is no switch itself."""
        results = self.rescan("server")
        self.assertEqual(self.switches.targets, [OWN])
        self.switches.tell("192.168.1.1", told(SERVER.mac, 1, {}))
        (one,) = self.successResultOf(results)
        self.assertIn("it hears no switch", one.detail)
