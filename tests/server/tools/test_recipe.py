"""The trees of node images, as packages of each Debian release lay them out."""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.tools import image_recipe, recipe
from walt.server.tools.recipe import (
    Recipe,
    install_kernel,
    link_merged,
    modules_of,
    run,
    uboot_script,
)

VERSION = "6.1.0-9-cloud-amd64"


class LayoutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def add(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def test_merged(self) -> None:
        """A tree with everything below /usr gets its links; what is asked for is found."""
        self.add("usr/bin/busybox", "usr/sbin/dropbear", "usr/lib/os-release")
        link_merged(self.root)
        self.assertEqual((self.root / "bin").readlink(), Path("usr/bin"))
        self.assertEqual((self.root / "bin/busybox").read_text(), "usr/bin/busybox")
        self.assertTrue((self.root / "sbin/dropbear").exists())
        self.assertFalse((self.root / "lib64").is_symlink())

    def test_not_merged(self) -> None:
        """A tree with a /bin of its own stays as it is."""
        self.add("bin/busybox", "usr/sbin/dropbear")
        link_merged(self.root)
        self.assertEqual(sorted(one.name for one in self.root.iterdir()), ["bin", "usr"])

    def test_modules(self) -> None:
        """Modules of a kernel package are found in both places; none is an error with words."""
        for top in ("lib", "usr/lib"):
            tree = self.root / top.replace("/", "-")
            (tree / top / "modules" / VERSION).mkdir(parents=True)
            self.assertEqual(modules_of(tree, VERSION), tree / top / "modules" / VERSION)
        with self.assertRaises(Unavailable) as caught:
            modules_of(self.root, VERSION)
        self.assertIn(VERSION, str(caught.exception))

    def test_uboot_script(self) -> None:
        """The header and the sums that U-Boot checks; the text behind the table of its parts."""
        made = uboot_script(b"reset\n")
        magic, total, _, size, _, _, content = struct.unpack(">7I", made[:28])
        self.assertEqual((magic, size, made[28:32]), (0x27051956, 14, bytes([5, 22, 6, 0])))
        self.assertEqual(total, zlib.crc32(made[:4] + bytes(4) + made[8:64]))
        self.assertEqual(content, zlib.crc32(made[64:]))
        self.assertEqual(made[64:], struct.pack(">II", 6, 0) + b"reset\n")

    def test_install_kernel(self) -> None:
        """Kernel and wanted modules get in place, compressed or not, below /usr or not."""
        recipe = dataclasses.replace(
            Recipe.load("small"), keep_modules=("kernel/fs/nfs", "kernel/fs/mbcache.ko"),
            drop_modules=("kernel/sound",), light_modules=False,
        )
        for release, (top, ending) in enumerate((("lib", ".ko"), ("usr/lib", ".ko.xz"))):
            package, root = self.root / f"package{release}", self.root / f"root{release}"
            modules = f"{top}/modules/{VERSION}"
            for name in (f"boot/vmlinuz-{VERSION}", f"{modules}/modules.order",
                         f"{modules}/kernel/fs/nfs/nfs{ending}",
                         f"{modules}/kernel/fs/mbcache{ending}",
                         f"{modules}/kernel/fs/xfs/xfs{ending}",
                         f"{modules}/kernel/sound/snd{ending}"):
                self.add(f"package{release}/{name}")
            control = package / "DEBIAN" / "control"
            control.parent.mkdir()
            control.write_text(
                "Package: kernel\nVersion: 1\nArchitecture: all\nMaintainer: nobody\n"
                "Description: a kernel\n"
            )
            (root / ".kernel").mkdir(parents=True)
            run(["dpkg-deb", "--build", str(package), str(root / ".kernel" / "kernel.deb")])
            work = self.root / f"work{release}"
            work.mkdir()
            self.assertEqual(install_kernel(recipe, root, work), VERSION)
            kept = {one.name for one in (root / "lib/modules" / VERSION).rglob("*.ko*")}
            self.assertEqual(kept, {f"nfs{ending}", f"mbcache{ending}"})
            self.assertTrue((root / recipe.boot / "kernel").is_file())

    def test_archive(self) -> None:
        """An archive has its name when the disk has it: the name alone is what is looked for."""
        for step in ("bootstrap", "finish_tree", "depmod_image", "make_initrd"):
            self.patch(recipe, step, lambda *words: None)
        self.patch(recipe, "install_kernel", lambda *words: VERSION)
        self.patch(recipe, "pack", lambda root, archive: archive.write_text("whole"))
        lasting = set[int]()
        for name in ("fsync", "rename"):
            real = getattr(os, name)
            self.patch(os, name, lambda one, *words, name=name, real=real: (
                lasting.add(os.fstat(one).st_ino) if name == "fsync"
                else self.assertIn(one.stat().st_ino, lasting), real(one, *words)
            ))
        archive = self.root / "cache" / "made.tar"
        image_recipe.build_archive(Recipe.load("small"), archive, lambda text: None)
        self.assertEqual(archive.read_text(), "whole")
        self.assertIn(archive.parent.stat().st_ino, lasting)
        self.assertEqual([path.name for path in archive.parent.iterdir()], ["made.tar"])
