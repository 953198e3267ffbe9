"""Kernel modules that are quick to load, for images whose nodes are mostly emulated.

A module of Debian's kernel carries a signature, and names of constants for those who
trace its events. An emulated processor spends a second on hashing and renaming, at each boot.
"""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

from walt.common.errors import Invalid

# What scripts/sign-file of the kernel appends: signature, its description (of which the
# last four bytes are the length of the signature), this text.
SIGNED = b"~Module signature appended~\n"
DESCRIPTION = 12
# The kernel finds the constants of events by the name of their section.
CONSTANTS = b"_ftrace_eval_map"


def unsigned(module: bytes) -> bytes:
    """Return a module without its signature, if it has one."""
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    (length,) = struct.unpack_from(">I", module, end - 4)
    return module[:end - DESCRIPTION - length]


def without_constants(module: bytes) -> bytes:
    """Return a module (ELF, 64 bits, little endian) whose events show numbers for constants.

    Raises Invalid for anything else.
    """
    if module[:6] != b"\x7fELF\x02\x01":
        raise Invalid("a kernel module is not a 64-bit ELF file")
    # Where the table of sections is, the size of its entries, the one of their names (elf(5)).
    (headers,) = struct.unpack_from("<Q", module, 0x28)
    size, _, names = struct.unpack_from("<HHH", module, 0x3A)
    start, length = struct.unpack_from("<QQ", module, headers + names * size + 0x18)
    table = module[start:start + length]
    # Names share their ends: this one is that of its relocations, too.
    hidden = table.replace(CONSTANTS + b"\0", CONSTANTS.replace(b"_", b".") + b"\0")
    return module[:start] + hidden + module[start + length:]


def lighten(directory: Path) -> None:
    """Rewrite all modules below a directory: unpacked, unsigned, without constants."""
    for path in sorted(directory.rglob("*.ko*")):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
            path.unlink()
            path = path.with_suffix("")
        path.write_bytes(without_constants(unsigned(content)))
