"""Commands of the program that manages a virtual node, one a line of standard input."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Union

from walt.common.errors import Invalid

MAX_LINE = 64 * 1024
# Names in CONF, and those of the node's settings.
SETTINGS = {
    "ram": "ram", "disks": "disks", "networks": "networks", "cpu_cores": "cpu.cores",
    "boot_delay": "boot.delay", "gateway": "gateway",
}


@dataclass(frozen=True)
class Conf:
    """`CONF <setting> <value>`: applies from the next start of the machine."""

    setting: str
    value: str


@dataclass(frozen=True)
class Input:
    """`INPUT <base64>`: bytes typed on the console."""

    data: bytes


@dataclass(frozen=True)
class KillVm:
    """`KILL_VM`: end the machine, which then starts again."""


@dataclass(frozen=True)
class Exit:
    """`EXIT`: end the machine and the program."""


Command = Union[Conf, Input, KillVm, Exit]


def parse_command(line: bytes) -> Command:
    """Return the command of a line (spec node-protocols §8.3). Raises Invalid."""
    word, _, rest = line.decode(errors="replace").strip().partition(" ")
    if word == "CONF":
        name, _, value = rest.partition(" ")
        if name in SETTINGS:
            return Conf(SETTINGS[name], value.strip())
    elif word == "INPUT":
        try:
            return Input(b64decode(rest, validate=True))
        except (binascii.Error, ValueError):
            raise Invalid("INPUT: expected base64") from None
    elif word == "KILL_VM" and not rest:
        return KillVm()
    elif word == "EXIT" and not rest:
        return Exit()
    raise Invalid(f"unknown command {line[:40]!r}")
