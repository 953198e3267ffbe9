"""Which accelerator an emulated machine gets."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walt.common.qemu import ARM, PC, Architecture
from walt.virtual import accel


class ChooseTests(SynchronousTestCase):
    def chosen(
        self, *, speaks: bool, runs: bool, kind: Architecture = PC, wanted: str = "auto"
    ) -> str:
        """Choose on a machine where firmware and kernel do this."""

        async def speaking(*words: Any) -> bool:
            return speaks

        async def running(*words: Any) -> bool:
            return runs

        self.patch(os, "access", lambda path, mode: True)
        self.patch(accel, "speaks", speaking)
        self.patch(accel, "runs", running)
        return asyncio.run(accel.choose(wanted, kind, Path("/d"), Path("/kernel")))

    def test_what_is_there(self) -> None:
        """KVM has to run the firmware, and the kernel that it starts."""
        self.assertEqual(self.chosen(speaks=True, runs=True), "kvm")
        self.assertEqual(self.chosen(speaks=True, runs=False), "tcg")
        self.assertEqual(self.chosen(speaks=False, runs=True), "tcg")
        self.assertEqual(self.chosen(speaks=True, runs=False, kind=ARM), "kvm")
        self.assertEqual(self.chosen(speaks=False, runs=False, wanted="kvm"), "kvm")

    def test_command(self) -> None:
        """The kernel is asked to say who it is at once."""
        argv = accel.kernel_command(Path("/kernel"), "tcg")
        self.assertIn("console=ttyS0 earlyprintk=serial,ttyS0", argv)
        self.assertEqual(argv[argv.index("-kernel") + 1], "/kernel")
