"""What nodes can start from in the tree of an image."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.podman.imageroot import ImageRoot
from walt.server.adapters.podman.starts import models


class StartsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def found(self) -> list[str]:
        with ImageRoot(self.root) as root:
            return models(root)

    def add(self, path: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def test_scripts_and_directories(self) -> None:
        """PCs need their script, boards a directory; links lead where they lead in the image."""
        self.add("boot/pc-x86-64/start.ipxe")
        self.add("boot/pc-x86-32/kernel")
        self.add("boot/rpi-3-b/config.txt")
        self.add("boot/vmlinuz")
        (self.root / "boot/qemu-arm-64").symlink_to("/boot/pc-x86-64")
        (self.root / "boot/rpi-2-b").symlink_to("../../../../../etc")
        (self.root / "boot/rpi-b").symlink_to("/usr")
        self.assertEqual(self.found(), ["pc-x86-64", "qemu-arm-64", "rpi-3-b"])

    def test_no_boot(self) -> None:
        """An image without /boot, or with a file there, starts nothing."""
        self.assertEqual(self.found(), [])
        self.add("boot")
        self.assertEqual(self.found(), [])
