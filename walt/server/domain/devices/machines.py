"""Values that describe a virtual machine: memory, cores, delay, disks (spec server §3.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from walt.common.errors import Invalid

_RAM = re.compile(r"([1-9][0-9]{0,6})([MG])")
_DISK = re.compile(
    r"([1-9][0-9]{0,5})([GT])(\[template=(none|ext4|fat32|hybrid-boot-v|hybrid-boot-p)\])?"
)
DEFAULT_RAM = "512M"
DEFAULT_CORES = 4


@dataclass(frozen=True)
class Disk:
    """One disk: `size` in bytes, `template` as in the setting."""

    size: int
    template: str = "none"


def parse_ram(text: str) -> int:
    """Return MiB for `<n>M` or `<n>G`. Raises Invalid."""
    match = _RAM.fullmatch(text)
    if match is None:
        raise Invalid(f'"{text[:40]}" is not an amount of memory; write for example 512M or 2G')
    return int(match[1]) * (1024 if match[2] == "G" else 1)


def parse_cores(value: Any) -> int:
    """Return a number of cores, at least 1 (Q-04). Raises Invalid."""
    try:
        cores = int(value)
    except (TypeError, ValueError):
        cores = 0
    if not 1 <= cores <= 255:
        raise Invalid(f"{str(value)[:40]!r} is not a number of cores from 1 to 255")
    return cores


def parse_boot_delay(value: Any) -> int | None:
    """Return seconds, None for `random`. Raises Invalid."""
    if value == "random":
        return None
    try:
        delay = int(value)
    except (TypeError, ValueError):
        delay = -1
    if not 0 <= delay <= 86400:
        raise Invalid(f"{str(value)[:40]!r} is neither `random` nor a number of seconds")
    return delay


def parse_disks(text: str) -> tuple[Disk, ...]:
    """Return the disks of `none` or `8G,1T[template=ext4]`. Raises Invalid."""
    if text == "none":
        return ()
    disks = []
    for one in text.split(","):
        match = _DISK.fullmatch(one)
        if match is None:
            raise Invalid(f'"{one[:40]}" is not a disk; write for example 8G or 1T[template=ext4]')
        size = int(match[1]) * 10**9 * (1000 if match[2] == "T" else 1)
        disks.append(Disk(size, match[4] or "none"))
    return tuple(disks)
