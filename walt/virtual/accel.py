"""Whether KVM really runs guests on this machine (design D11)."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from walt.common.qemu import PC, Architecture
from walt.virtual.processes import die_with_parent, end
from walt.virtual.timing import within

PATIENCE = 5.0  # seconds; a guest speaks within one where KVM works

# What a guest says first: on a PC its firmware, on the port that SeaBIOS logs to; on ARM,
# where there is none, these four instructions, which write one letter to the serial port.
_PC_WORD = b"SeaBIOS"
_ARM_WORD = b"K"
_KERNEL_WORD = b"Linux version"  # the first line of each kernel
_ARM_CODE = b"".join(word.to_bytes(4, "little") for word in (
    0xD2A12000,  # movz x0, #0x0900, lsl #16: the serial port of machine `virt`
    0x52800961,  # movz w1, #'K'
    0x39000001,  # strb w1, [x0]
    0x14000000,  # b . (for ever)
))


def probe_command(kind: Architecture, directory: Path, accel: str = "kvm") -> list[str]:
    """Return a machine that prints a word when its processor runs."""
    argv = [
        kind.program, "-nodefaults", "-machine", f"{kind.machine},accel={accel}",
        "-cpu", kind.cpu(accel), "-m", "64", "-display", "none",
        "-vga", "none", "-monitor", "none", "-no-reboot",
    ]
    if kind is PC:
        return [
            *argv, "-chardev", "stdio,id=log", "-device", "isa-debugcon,iobase=0x402,chardev=log",
        ]
    code = directory / "probe"
    code.write_bytes(_ARM_CODE)
    return [*argv, "-serial", "stdio", "-kernel", str(code)]


def kernel_command(kernel: Path, accel: str = "kvm") -> list[str]:
    """Return a PC whose kernel says who it is on the serial port, as soon as it runs."""
    return [
        PC.program, "-nodefaults", "-machine", f"{PC.machine},accel={accel}",
        "-cpu", PC.cpu(accel), "-m", "512", "-display", "none", "-vga", "none",
        "-monitor", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel),
        "-append", "console=ttyS0 earlyprintk=serial,ttyS0",
    ]


async def speaks(kind: Architecture, directory: Path, accel: str = "kvm") -> bool:
    """Start such a machine for a moment; tell whether its word came."""
    word = _PC_WORD if kind is PC else _ARM_WORD
    return await _says(word, probe_command(kind, directory, accel))


async def runs(kernel: Path, accel: str = "kvm") -> bool:
    """Start a kernel of PCs for a moment; tell whether it says its version."""
    return await _says(_KERNEL_WORD, kernel_command(kernel, accel))


async def _says(word: bytes, argv: list[str]) -> bool:
    child = await asyncio.create_subprocess_exec(
        *argv, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, preexec_fn=die_with_parent,
    )
    assert child.stdout is not None
    try:
        await within(PATIENCE, child.stdout.readuntil(word))
        return True
    except (asyncio.TimeoutError, EOFError, asyncio.LimitOverrunError):
        return False
    finally:
        await end(child, grace=0)


async def choose(wanted: str, kind: Architecture, directory: Path, kernel: Path) -> str:
    """Return `kvm` or `tcg`; `wanted` may be `auto`: the file /dev/kvm alone proves nothing.

    There are machines where a firmware runs, and the `kernel` that it starts does not.
    """
    if wanted != "auto":
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    works = await speaks(kind, directory) and (kind is not PC or await runs(kernel))
    return "kvm" if works else "tcg"
