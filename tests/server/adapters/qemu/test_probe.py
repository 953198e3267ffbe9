"""Which accelerator virtual nodes use, whatever becomes of the question."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.processes import ProcessClock
from walt.server.adapters.qemu import hypervisor
from walt.server.adapters.qemu.hypervisor import MARK, PROBE_PATIENCE, QemuHypervisor
from walt.server.runtime.process import Launcher


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.patch(hypervisor.os, "access", lambda path, mode: True)
        self.patch(shutil, "which", lambda program: "/bin/true")
        self.patch(hypervisor, "IPXE", Path("/"))

    def prepared(self) -> Any:
        """Ask for the accelerator."""
        made: Any = None
        found = QemuHypervisor(
            self.clock, Launcher(), made, Path(self.mktemp()), "auto", made, Path("/nodes")
        )
        return Deferred.fromCoroutine(found.prepare())

    def test_a_guest_that_hangs(self) -> None:
        """There are machines where /dev/kvm is there, and guests do nothing."""
        asking = self.prepared()
        self.assertNoResult(asking)
        self.clock.advance(PROBE_PATIENCE)
        self.assertEqual(self.successResultOf(asking), "tcg")
        self.assertEqual(self.clock.processes[0].signals, ["KILL"])

    def test_others(self) -> None:
        """A guest that says so proves KVM, one that ends proves nothing."""
        asking = self.prepared()
        self.clock.processes[0].protocol.outReceived(MARK.encode())
        self.assertEqual(self.successResultOf(asking), "kvm")
        asking = self.prepared()
        self.clock.processes[1].end(1)
        self.assertEqual(self.successResultOf(asking), "tcg")
