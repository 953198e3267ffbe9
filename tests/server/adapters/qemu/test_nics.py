"""QEMU's network options, and who enforces the limits."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.services import FakeTaps
from tests.system.netns import short_dir
from walt.common.errors import Conflict
from walt.common.machines import MachineConfig, machine_config
from walt.common.names import is_mac
from walt.common.qemu import tap_name
from walt.common.traffic_shaping import Limits
from walt.server.adapters.qemu.nics import NicMaker, Nics
from walt.server.runtime.process import Launcher

MAC = "52:54:00:00:00:01"


class Spawner:
    """Remembers the vectors and descriptors of what is spawned."""

    def __init__(self) -> None:
        self.spawned: list[tuple[list[str], dict[int, Any]]] = []

    def spawnProcess(
        self, protocol: Any, program: str, argv: list[str], env: Any, *, childFDs: dict[int, Any]
    ) -> None:
        """Note one program."""
        self.spawned.append((argv, childFDs))


class NicsTests(SynchronousTestCase):
    def make(self, networks: str, *, can_shape: bool = False) -> Nics:
        """Make the interfaces of a machine."""
        self.taps, self.spawner = FakeTaps(can_shape), Spawner()
        self.nodes = short_dir(self)
        self.maker = NicMaker(self.spawner, Launcher(), self.taps, self.nodes)
        self.config: MachineConfig = machine_config("v", MAC, "pc-x86-64", {"networks": networks})
        return self.successResultOf(Deferred.fromCoroutine(self.maker.make(self.config)))

    def test_taps(self) -> None:
        """Without limits a machine sits on taps; its MAC is the one on walt-net."""
        nics = self.make("home,walt-net")
        taps = [tap_name(MAC, "home"), tap_name(MAC)]
        self.assertEqual(self.taps.taps, dict(zip(taps, ("home", "walt-net"), strict=True)))
        own = (self.nodes / MAC / "networks" / "home.mac").read_text().strip()
        self.assertTrue(is_mac(own))
        self.assertEqual(nics.options, [
            "-netdev", f"tap,ifname={taps[0]},script=no,downscript=no,id=home",
            "-device", f"virtio-net-pci,netdev=home,mac={own},romfile=",
            "-netdev", f"tap,ifname={taps[1]},script=no,downscript=no,id=walt-net",
            "-device", f"virtio-net-pci,netdev=walt-net,mac={MAC},romfile=",
        ])
        again = self.successResultOf(Deferred.fromCoroutine(self.maker.make(self.config)))
        self.assertEqual(again.options, nics.options)
        self.successResultOf(Deferred.fromCoroutine(self.maker.remove(self.config)))
        self.assertEqual(self.taps.taps, {})

    def test_kernel_limits(self) -> None:
        """A kernel that can enforces the limits on the tap."""
        self.make("walt-net,home[lat=8ms,bw=1Gbps]", can_shape=True)
        self.assertEqual(self.taps.shaped, {tap_name(MAC, "home"): Limits(8000, 10**9)})
        self.assertEqual(self.spawner.spawned, [])

    def test_relay(self) -> None:
        """Otherwise a relay has the tap, and QEMU the other end of its socket."""
        nics = self.make("walt-net,home[lat=8ms]")
        ((argv, descriptors),) = self.spawner.spawned
        self.assertEqual(argv[-3:], [tap_name(MAC, "home"), "8000", "0"])
        self.assertEqual(sorted(descriptors), [0, 1, 2, 3])
        self.assertIn("stream,addr.type=fd,addr.str=3,id=home", nics.options)
        inherited = nics.descriptors()[3]
        os.fstat(inherited)
        nics.close()
        self.assertRaises(OSError, os.fstat, inherited)

    def test_failure(self) -> None:
        """When one network cannot be had, nothing of the others stays."""
        self.taps, self.spawner = FakeTaps(), Spawner()
        maker = NicMaker(self.spawner, Launcher(), self.taps, short_dir(self))
        config = machine_config("v", MAC, "pc-x86-64", {"networks": "walt-net,home[bw=1Gbps],lo"})
        self.failureResultOf(Deferred.fromCoroutine(maker.make(config)), Conflict)
        self.assertEqual(self.taps.taps, {})
