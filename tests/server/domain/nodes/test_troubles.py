"""Why nodes cannot boot, for how long, and who is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.nodes import node
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.nodes.troubles import LASTING, LASTING_OF_MACHINES, BootTroubles
from walt.server.runtime.slicing import AT_ONCE

NODE = replace(node(2), virtual=True)


class Lines:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def write(self, topic: str, line: str, *, error: bool = False) -> None:
        """Keep a line."""
        self.told.append(line)


class TroubleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.lines = Clock(), Lines()
        self.registry = DeviceRegistry(FakeDeviceStore(), IPv4Network("192.168.1.0/24"))
        self.successResultOf(Deferred.fromCoroutine(self.registry.put(NODE)))
        self.troubles = BootTroubles(self.clock, self.registry, self.lines)

    def test_the_log_tells_once_why_a_node_cannot_boot(self) -> None:
        """And once that it can again; a node that is gone is not told."""
        for reason in ("no memory", "no memory", "no tap", None, None):
            self.troubles.of_machine(NODE.mac, reason)
        self.troubles.of_machine("52:54:00:99:99:99", "no memory")
        self.assertEqual(self.lines.told, [
            "node-2 cannot boot: no memory", "node-2 cannot boot: no tap",
            "node-2 can boot again.",
        ])
        self.assertEqual(self.troubles.current(), {})

    def test_many_have_the_same_image(self) -> None:
        """They are told of in several turns, as it is then."""
        crowd = [node(number) for number in range(3, 4 + 2 * AT_ONCE)]
        self.successResultOf(Deferred.fromCoroutine(self.registry.put(*crowd)))
        self.troubles.of_files(dict.fromkeys([one.mac for one in crowd], "no image"))
        self.assertEqual(len(self.lines.told), AT_ONCE)
        self.assertEqual(len(self.troubles.current()), len(crowd))
        self.clock.pump([0, 0])
        self.assertEqual(
            set(self.lines.told), {f"{one.name} cannot boot: no image" for one in crowd}
        )

    def test_a_change_of_settings_makes_it_a_thing_of_the_past(self) -> None:
        """So that a reboot after it does not complain."""
        self.troubles.of_machine(NODE.mac, "no memory")
        self.assertEqual(self.troubles.current(), {NODE.mac: "no memory"})
        changed = replace(NODE, conf={"ram": "512M"})
        self.successResultOf(Deferred.fromCoroutine(self.registry.put(changed)))
        self.assertEqual(self.troubles.current(), {})

    def test_what_lasts_is_told_from_what_is_tried_again(self) -> None:
        """Machines are given up soon, what the server tries again later."""
        self.troubles.of_files({NODE.mac: "its image cannot be mounted"})
        self.assertEqual(self.troubles.lasting(), {})
        self.clock.advance(LASTING - 1)
        self.troubles.of_files({NODE.mac: "still not"})
        self.clock.advance(1)
        self.assertEqual(self.troubles.lasting(), {NODE.mac: "still not"})
        self.troubles.of_files({})
        self.troubles.of_machine(NODE.mac, "no memory")
        self.assertEqual(self.troubles.lasting(), {})
        self.clock.advance(LASTING_OF_MACHINES)
        self.troubles.of_machine(NODE.mac, "no memory")
        self.assertEqual(self.troubles.lasting(), {NODE.mac: "no memory"})
