"""Modules of small images: unpacked, unsigned, without names of constants."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.tools.kernel_modules import SIGNED, lighten, unsigned, without_constants

NAMES = b"\0.rela_ftrace_eval_map\0.text\0"
SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr of elf(5)


def module(names: bytes = NAMES, code: bytes = b"code of _ftrace_eval_map\0") -> bytes:
    """Return an ELF file with a section of code and one of names."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64 + len(code) + len(names),
        0, 64, 0, 0, SECTION.size, 2, 1,
    )
    return (
        header + code + names
        + SECTION.pack(23, 1, 0, 0, 64, len(code), 0, 0, 1, 0)
        + SECTION.pack(0, 3, 0, 0, 64 + len(code), len(names), 0, 0, 1, 0)
    )


def signed(content: bytes) -> bytes:
    """Return a module with something that looks like its signature."""
    signature = bytes(range(200))
    return content + signature + struct.pack(">8xI", len(signature)) + SIGNED


class KernelModulesTests(SynchronousTestCase):
    def test_unsigned(self) -> None:
        """The signature goes, and nothing of a module that has none."""
        self.assertEqual(unsigned(signed(module())), module())
        self.assertEqual(unsigned(module()), module())

    def test_without_constants(self) -> None:
        """Only names of sections change, not what looks like one elsewhere."""
        changed = without_constants(module())
        self.assertEqual(changed, module(NAMES.replace(b"_ftrace_eval_map", b".ftrace.eval.map")))
        self.assertIn(b"code of _ftrace_eval_map\0", changed)
        self.assertEqual(without_constants(changed), changed)

    def test_not_a_module(self) -> None:
        """A file that is none is told."""
        for content in (b"", b"text", module().replace(b"\x02\x01", b"\x01\x01", 1)):
            self.assertRaises(Invalid, without_constants, content)

    def test_lighten(self) -> None:
        """All modules below a directory are rewritten, whatever their form was."""
        directory = Path(self.mktemp())
        (directory / "kernel").mkdir(parents=True)
        (directory / "kernel" / "one.ko").write_bytes(signed(module()))
        (directory / "kernel" / "two.ko.xz").write_bytes(lzma.compress(signed(module())))
        (directory / "modules.order").write_text("kernel/one.ko\nkernel/two.ko\n")
        lighten(directory)
        self.assertEqual(
            {path.name for path in directory.rglob("*.*")}, {"one.ko", "two.ko", "modules.order"}
        )
        for name in ("one.ko", "two.ko"):
            self.assertEqual(
                (directory / "kernel" / name).read_bytes(), without_constants(module())
            )
