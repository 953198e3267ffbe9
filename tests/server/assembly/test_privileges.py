"""What the server keeps of root's capabilities, and what its unit says of it."""

from __future__ import annotations

import re
from importlib.resources import files

from twisted.trial.unittest import SynchronousTestCase

from walt.server.assembly.privileges import KEPT


class UnitTests(SynchronousTestCase):
    def test_same_capabilities(self) -> None:
        """The unit grants what the server keeps, each with its purpose."""
        unit = (files("walt.server.units") / "walt-server.service").read_text()
        granted = set(re.findall(r"CAP_([A-Z_]+)", unit))
        kept = {text.split(":")[0].upper() for text in KEPT.values()}
        self.assertEqual(granted, kept)
        self.assertIn("RestartKillSignal=SIGUSR2", unit)

    def test_same_mounts(self) -> None:
        """The unit has no mounts of its own: the kernel's NFS server would not see the images."""
        unit = (files("walt.server.units") / "walt-server.service").read_text()
        # What makes a mount namespace (systemd.exec(5)).
        for setting in (
            "Private(Tmp|Devices|Mounts|IPC)", "Protect(Home|System|Proc|KernelTunables)",
            "Protect(KernelModules|KernelLogs|ControlGroups|Hostname)", "ProcSubset", "Root\\w+",
            "Bind(ReadOnly)?Paths", "(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths",
            "TemporaryFileSystem", "MountFlags", "MountImages", "ExtensionImages", "DynamicUser",
        ):
            self.assertIsNone(re.search(rf"^{setting}=(?!no)", unit, re.MULTILINE), setting)
