from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, FakeRequester, node, stored
from tests.fakes.virtual import FakeAddresses, FakeHypervisor, FakeMachine
from walt.common.errors import CommandFailed, Conflict, Invalid, NotFound, Unavailable
from walt.common.machines import (
    machine_config,
    parse_boot_delay,
    parse_cores,
    parse_ram,
)
from walt.server.domain.devices.model import Device
from walt.server.domain.virtual.addresses import FreeAddresses
from walt.server.domain.virtual.console import Console
from walt.server.domain.virtual.machines import (
    MANY_ENDS,
    PAUSE_AFTER_FAILURE,
    RANDOM_DELAY,
    SHORT_LIFE,
    RunningMachines,
    VirtualNodes,
)


class _Longest(random.Random):
    def randint(self, a: int, b: int) -> int:
        return b  # the longest boot delay


class VirtualNodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.make(stored(DEFAULT))

    def make(self, *images: Any) -> None:
        """Make the service over fakes."""
        self.fake = FakePlatform(*images)
        self.now(self.fake.start())
        self.hypervisor, self.joe = FakeHypervisor(), FakeRequester()
        fake = self.fake
        self.machines = RunningMachines()
        self.virtual = VirtualNodes(
            fake.registry, fake.nodes, fake.status, fake.monitor, fake.images, fake.defaults,
            fake.provisioning, self.hypervisor, FakeAddresses(), fake.logs, fake.platform,
            fake.clock, fake.images.give_default, _Longest(), self.machines,
        )

    def now(self, coroutine: Any) -> Any:
        """Return what a coroutine gives at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def create(self, name: str = "vnode1") -> Device:
        """Create a node, let its boot delay pass and the machine run a while."""
        self.now(self.virtual.create(name, self.joe))
        self.fake.clock.pump([10, 2])
        device = self.fake.registry.by_name(name)
        assert device is not None
        return device

    @property
    def machine(self) -> FakeMachine:
        """The last machine."""
        return self.hypervisor.machines[-1]

    def test_create(self) -> None:
        """A node of the requester's, told, recorded and started."""
        device = self.create()
        self.assertEqual((device.owner, device.virtual, device.ip), ("joe", True, "192.168.1.101"))
        self.assertEqual(
            self.joe.out[0], "Node vnode1 is now booting your image pc-x86-64-default."
        )
        self.assertEqual(self.machine.config.name, "vnode1")
        self.assertIn(device.mac, self.fake.store.devices)
        self.assertEqual(self.now(self.fake.lines("devices")), [
            f"new node name=vnode1 model=pc-x86-64 mac={device.mac} ip=192.168.1.101",
        ])

    def test_requester_leaves(self) -> None:
        """A node that was created has a machine; one that was removed leaves nothing."""
        self.now(self.fake.images.give_default("joe", DEFAULT))
        self.fake.store.gate = gate = Deferred()
        going = Deferred.fromCoroutine(self.virtual.create("vnode1", self.joe))
        going.cancel()
        gate.callback(None)
        self.failureResultOf(going, CancelledError)
        self.fake.clock.pump([10, 2])
        self.assertTrue(self.machine.alive)
        mac = self.machine.config.mac
        self.fake.store.gate = gate = Deferred()
        going = Deferred.fromCoroutine(
            self.virtual.remove("vnode1", self.joe, force=True, keep_logs=False)
        )
        going.cancel()
        gate.callback(None)
        self.failureResultOf(going, CancelledError)
        self.assertFalse(self.machine.alive)
        self.assertNotIn(mac, self.fake.store.devices)
        self.assertEqual(self.hypervisor.removed, [mac])

    def test_removal_given_up(self) -> None:
        """Who leaves while log lines are counted removes nothing."""
        self.create()
        self.fake.logs.count = lambda query, user: Deferred()  # type: ignore[method-assign]
        going = Deferred.fromCoroutine(
            self.virtual.remove("vnode1", self.joe, force=False, keep_logs=False)
        )
        going.cancel()
        self.failureResultOf(going, CancelledError)
        self.assertTrue(self.machine.alive)

    def test_refused_names(self) -> None:
        """Bad names and taken ones change nothing."""
        self.create()
        for name, error in (("vnode1", Conflict), ("-x", Invalid), ("server", Conflict)):
            self.failureResultOf(
                Deferred.fromCoroutine(self.virtual.create(name, self.joe)), error
            )
        self.assertEqual(len(self.fake.registry.nodes()), 1)

    def test_no_image(self) -> None:
        """Without a default image the reason is told, and no node is made."""
        self.make()
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.virtual.create("vnode1", self.joe)), Unavailable
        )
        self.assertIn("the server has no default image for pc-x86-64 nodes", str(failure.value))
        self.assertEqual(self.joe.labels[-1], "")
        self.assertEqual(self.fake.registry.nodes(), [])

    def test_loop(self) -> None:
        """A machine that ends starts again after its delay; the node is down meanwhile."""
        device = self.create()
        self.fake.status.booted(device.mac)
        self.machine.end("guest reboot")
        self.assertFalse(self.fake.status.is_booted(device.mac))
        self.fake.clock.advance(10)
        self.assertEqual(len(self.hypervisor.machines), 2)
        self.assertIn(
            "node vnode1 is down (cause: unknown, note: the virtual machine ended)",
            self.now(self.fake.lines("nodes")),
        )

    def test_waits_for_its_files(self) -> None:
        """A machine starts when DHCP and its boot files are there."""
        self.fake.provisioning.gate = Deferred()
        self.create()
        self.assertEqual(self.hypervisor.machines, [])
        self.fake.provisioning.gate.callback(None)
        self.assertEqual(len(self.hypervisor.machines), 1)

    def test_failed_start(self) -> None:
        """A start that fails is tried again."""
        self.hypervisor.errors = [CommandFailed("no tap")]
        self.create()
        self.fake.clock.pump([PAUSE_AFTER_FAILURE, 10])
        self.assertEqual(len(self.hypervisor.machines), 1)

    def test_a_fault_of_ours(self) -> None:
        """It is told with the node, and logged; the node gets another machine all the same."""
        self.hypervisor.errors = [RuntimeError("a bug")]
        self.create()
        self.assertIn("RuntimeError('a bug')", self.troubles()[0])
        self.fake.clock.pump([PAUSE_AFTER_FAILURE, 10])
        self.assertEqual(len(self.hypervisor.machines), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def troubles(self) -> list[str]:
        """Return why nodes cannot boot."""
        return list(self.fake.provisioning.troubles.values())

    def test_a_machine_that_cannot_start_is_told(self) -> None:
        """As long as it cannot; a machine that lives a while is no trouble."""
        self.hypervisor.errors = [CommandFailed("no tap")]
        self.create()
        self.assertEqual(self.troubles(), ["no tap"])
        self.fake.clock.pump([PAUSE_AFTER_FAILURE, 10])
        self.machine.end("its machine ended (status 1): cannot set up guest memory")
        self.assertEqual(
            self.troubles(), ["its machine ended (status 1): cannot set up guest memory"]
        )
        self.fake.clock.pump([PAUSE_AFTER_FAILURE, 10])
        self.assertEqual(len(self.troubles()), 1)
        self.fake.clock.advance(SHORT_LIFE)
        self.assertEqual(self.troubles(), [])

    def test_endless_restarts_are_told(self) -> None:
        """With the boot file that is missing, if one was asked for; until the node is booted."""
        device = self.create()
        for number in range(1, MANY_ENDS + 1):
            self.assertEqual(self.troubles(), [], number)
            self.fake.clock.advance(SHORT_LIFE)
            self.machine.end("guest reboot")
            self.fake.clock.advance(10)
        self.assertIn("it restarts again and again before it is booted", self.troubles()[0])
        self.fake.status.booted(device.mac)
        self.assertEqual(self.troubles(), [])
        for _ in range(MANY_ENDS):  # the first end is that of the boot that succeeded
            self.virtual.no_boot_file(device.ip or "", "kernel")
            self.fake.clock.advance(SHORT_LIFE)
            self.machine.end("guest reboot")
            self.fake.clock.advance(10)
        self.assertEqual(
            self.troubles(), ["it restarts again and again: its image has no boot file 'kernel'"]
        )

    def test_restarts_that_people_ask_for_are_no_trouble(self) -> None:
        """However often."""
        device = self.create()
        for _ in range(2 * MANY_ENDS):
            self.fake.clock.advance(SHORT_LIFE)
            self.machines.kill(device.mac)
            self.fake.clock.advance(10)
        self.assertEqual(self.troubles(), [])

    def test_kill(self) -> None:
        """A hard reboot ends the machine, which comes back."""
        self.virtual.start_all()
        device = self.create()
        self.assertTrue(self.machines.kill(device.mac))
        self.assertFalse(self.machines.kill("52:54:00:99:99:99"))
        self.fake.clock.advance(10)
        self.assertEqual(len(self.hypervisor.machines), 2)

    def test_hard_reboot_while_the_server_starts(self) -> None:
        """What is still to be begun needs no other way, such as the power of a switch."""
        device = self.create()
        self.now(self.virtual.stop_all())
        self.machines = RunningMachines()
        self.assertTrue(self.machines.kill(device.mac))

    def test_created_while_the_server_starts(self) -> None:
        """A node created before the known ones are started has one life, not two."""
        device = self.create()
        self.virtual.start_all()
        self.fake.clock.advance(10)
        self.assertEqual(len(self.hypervisor.machines), 1)
        self.assertEqual(self.machine.config.mac, device.mac)

    def test_killed_while_it_starts(self) -> None:
        """A machine that was starting at a hard reboot has the settings of before: once more."""
        self.hypervisor.gate = gate = Deferred()
        device = self.create()
        self.assertTrue(self.machines.kill(device.mac))
        gate.callback(None)
        self.fake.clock.pump([PAUSE_AFTER_FAILURE, 10])
        self.assertEqual([one.alive for one in self.hypervisor.machines], [False, True])

    def test_short_life(self) -> None:
        """A machine that fails at once is not tried again at once."""
        self.create()
        self.now(self.fake.registry.put(replace(
            self.fake.registry.nodes()[0], conf={"boot.delay": 0}
        )))
        self.machine.end("guest reboot")
        self.assertEqual(len(self.hypervisor.machines), 2)
        self.machine.end("status 1")
        self.fake.clock.advance(PAUSE_AFTER_FAILURE - 0.1)
        self.assertEqual(len(self.hypervisor.machines), 2)
        self.fake.clock.advance(0.1)
        self.assertEqual(len(self.hypervisor.machines), 3)

    def test_console(self) -> None:
        """Output is logged in chunks; input reaches the machine."""
        device = self.create()
        self.machine.output(b"SeaBIOS\r\n")
        self.machine.output(b"\xffiPXE")
        self.fake.clock.advance(0.05)
        self.now(self.fake.logs.flush())
        (line,) = [x for x in self.fake.log_store.lines if x.stream == "virtualconsole"]
        self.assertEqual((line.issuer, line.line), (device.mac, repr(b"SeaBIOS\r\n\xffiPXE")))
        self.virtual.console_input("vnode1", b"root\n")
        self.assertEqual(self.machine.typed, b"root\n")
        self.now(self.fake.registry.put(node(2)))
        self.assertRaises(Invalid, self.virtual.console_input, "node-2", b"x")
        self.assertEqual(
            self.virtual.console("vnode1").watch(lambda data: None), b"SeaBIOS\r\n\xffiPXE"
        )
        self.assertRaises(Invalid, self.virtual.console, "node-2")
        self.assertRaises(NotFound, self.virtual.console, "node-3")

    def test_console_before_the_machine(self) -> None:
        """Who looks while a server starts sees all that the machine will say."""
        self.create()
        self.now(self.virtual.stop_all())
        seen: list[bytes] = []
        self.virtual.console("vnode1").watch(seen.append)
        self.virtual.start_all()
        self.fake.clock.advance(RANDOM_DELAY[1])
        self.machine.output(b"SeaBIOS")
        self.assertEqual(seen, [b"SeaBIOS"])

    def remove(self, name: str, **options: bool) -> Coroutine[Any, Any, None]:
        """Remove a node."""
        return self.virtual.remove(
            name, self.joe, **{"force": False, "keep_logs": False, **options}
        )

    def test_remove_with_logs(self) -> None:
        """Log lines are not lost without a word: all stays; consoles do not count."""
        for options, kept in (({"force": True}, set()), ({"keep_logs": True}, {"vnode1"})):
            device = self.create()
            machine = self.machine
            machine.output(b"SeaBIOS")
            self.fake.logs.write_lines(device.mac, "exp", "one\ntwo")
            error = self.failureResultOf(
                Deferred.fromCoroutine(self.remove("vnode1")), Conflict
            ).value
            self.assertEqual(
                str(error), "2 log lines of vnode1 would be lost; if that is fine, use:"
                " walt node remove --force vnode1\n"
                "To keep them, use: walt node remove --keep-logs vnode1",
            )
            self.assertTrue(machine.alive)
            self.assertEqual(self.fake.registry.by_name("vnode1"), device)
            self.now(self.remove("vnode1", **options))
            self.assertFalse(machine.alive)
            self.assertEqual(self.fake.logs.former, kept)

    def test_remove(self) -> None:
        """Machine, tap, device and logs are gone; nothing starts again."""
        device = self.create()
        self.now(self.remove("vnode1"))
        self.assertFalse(self.machine.alive)
        self.assertEqual(self.hypervisor.removed, [device.mac])
        self.assertIsNone(self.fake.registry.by_name("vnode1"))
        self.fake.clock.advance(100)
        self.assertEqual(len(self.hypervisor.machines), 1)

    def test_remove_before_the_start(self) -> None:
        """A node removed during its boot delay never starts."""
        self.now(self.virtual.create("vnode1", self.joe))
        self.now(self.remove("vnode1"))
        self.fake.clock.advance(100)
        self.assertEqual(self.hypervisor.machines, [])

    def test_remove_during_the_start(self) -> None:
        """A machine being started when its node is removed does not live on."""
        self.hypervisor.gate = gate = Deferred()
        self.create()
        removed = Deferred.fromCoroutine(self.remove("vnode1"))
        if not gate.called:
            gate.callback(None)
        self.successResultOf(removed)
        self.assertFalse(any(one.alive for one in self.hypervisor.machines))

    def test_remove_others(self) -> None:
        """Only virtual nodes are removed."""
        self.now(self.fake.registry.put(node(2)))
        for name, error in (("node-2", Invalid), ("ghost", NotFound)):
            self.failureResultOf(
                Deferred.fromCoroutine(self.remove(name)), error
            )

    def test_stop_all(self) -> None:
        """Every machine ends, those that wait for their start too; nothing is scheduled."""
        for name in ("vnode1", "vnode2"):
            self.create(name)
        self.now(self.virtual.create("vnode3", self.joe))
        self.now(self.virtual.stop_all())
        self.assertFalse(any(one.alive for one in self.hypervisor.machines))
        self.now(self.fake.logs.flush())
        self.assertEqual(self.fake.clock.getDelayedCalls(), [])

    def test_start_all(self) -> None:
        """At the start of the server every virtual node starts, the others do not."""
        self.now(self.fake.registry.put(
            node(2), node(3, virtual=True, conf={"boot.delay": 0, "ram": "1G", "cpu.cores": 2})
        ))
        self.virtual.start_all()
        self.assertEqual(self.machine.config.ram_mib, 1024)
        self.assertEqual((self.machine.config.cores, len(self.hypervisor.machines)), (2, 1))


class AddressesTests(SynchronousTestCase):
    def test_lowest(self) -> None:
        """The lowest address that is neither the server's nor a device's; none is an error."""
        fake = FakePlatform()
        fake.registry.subnet = fake.registry.subnet.supernet(new_prefix=16).subnets(
            new_prefix=30
        ).__next__()
        subnet = fake.registry.subnet
        first, second = subnet.hosts()
        addresses = FreeAddresses(fake.registry, IPv4Address(first), random.Random(1))
        self.assertEqual(addresses.lowest_free_ip(), str(second))
        self.successResultOf(Deferred.fromCoroutine(fake.registry.put(node(2, ip=str(second)))))
        self.assertRaises(Conflict, addresses.lowest_free_ip)
        self.assertRegex(addresses.new_mac(), r"\A52:54:00(:[0-9a-f]{2}){3}\Z")


class SettingsTests(SynchronousTestCase):
    def test_values(self) -> None:
        """Amounts, cores and delays."""
        self.assertEqual((parse_ram("512M"), parse_ram("2G")), (512, 2048))
        self.assertEqual((parse_cores("4"), parse_boot_delay("random")), (4, None))
        for bad in ("0M", "512", "1.5G", "-1M", "1T", "", "1G\n"):
            self.assertRaises(Invalid, parse_ram, bad)
        for bad_value in (0, "x", None, 256, -1):
            self.assertRaises(Invalid, parse_cores, bad_value)
        for bad_value in ("x", -1, None, 86401):
            self.assertRaises(Invalid, parse_boot_delay, bad_value)
        self.assertEqual(machine_config("v", "m", "pc", {}).ram_mib, 512)

    @given(st.lists(st.binary(min_size=1, max_size=6000), max_size=6))
    def test_console_loses_nothing(self, pieces: list[bytes]) -> None:
        """Whatever the pieces, the chunks are the same bytes, 4,096 at most each."""
        clock, chunks = Clock(), []
        console = Console(clock, chunks.append)
        for piece in pieces:
            console.received(piece)
        clock.advance(1)
        self.assertEqual(b"".join(chunks), b"".join(pieces))
        self.assertTrue(all(0 < len(one) <= 4096 for one in chunks))
        self.assertEqual(clock.getDelayedCalls(), [])
