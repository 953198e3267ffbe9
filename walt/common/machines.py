"""Values that describe a virtual machine: memory, cores, disks, networks (spec server §3.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from walt.common.errors import Invalid
from walt.common.traffic_shaping import NO_LIMITS, Limits

_RAM = re.compile(r"([1-9][0-9]{0,6})([MG])")
_DISK = re.compile(
    r"([1-9][0-9]{0,5})([GT])(\[template=(none|ext4|fat32|hybrid-boot-v|hybrid-boot-p)\])?"
)
_NETWORK = re.compile(r"([a-z][a-z-]*)(?:\[([^\]]*)\])?")
_LIMIT = re.compile(r"(lat|bw)=([1-9][0-9]{0,4})(ms|us|Mbps|Gbps)")
_SECONDS = re.compile("[0-9]{1,6}")
_UNITS = {"lat": {"us": 1, "ms": 1000}, "bw": {"Mbps": 10**6, "Gbps": 10**9}}
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
BOOT_NETWORK = "walt-net"
MAX_NETWORKS = 16
NETWORK_NAME_LENGTH = 15  # it names a bridge: the kernel takes no longer name
DEFAULT_RAM = "512M"
DEFAULT_CORES = 4
RANDOM_DELAY = (1, 10)  # seconds


class Disk(NamedTuple):
    """One disk: `size` in bytes, `template` as in the setting."""

    size: int
    template: str = "none"


class Attachment(NamedTuple):
    """One interface of a machine: the network it is on, the limits of what it receives."""

    network: str
    limits: Limits = NO_LIMITS


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
    delay = int(value) if _SECONDS.fullmatch(str(value)) else -1
    if not 0 <= delay <= 86400:
        raise Invalid(f"{str(value)[:40]!r} is neither `random` nor a number of seconds")
    return delay


def parse_disks(text: str) -> tuple[Disk, ...]:
    """Return the disks of `none` or `8G,1T[template=ext4]`. Raises Invalid."""
    if text == "none":
        return ()
    disks = []
    for word in text.split(","):
        match = _DISK.fullmatch(word)
        if match is None:
            raise Invalid(f'"{word[:40]}" is not a disk; write for example 8G or 1T[template=ext4]')
        size = int(match[1]) * 10**9 * (1000 if match[2] == "T" else 1)
        disks.append(Disk(size, match[4] or "none"))
    return tuple(disks)


def parse_networks(text: str) -> tuple[Attachment, ...]:
    """Return the interfaces of `walt-net,home-net[lat=8ms,bw=100Mbps]`. Raises Invalid."""
    found: dict[str, Attachment] = {}
    for word in _OUTSIDE_BRACKETS.split(text):
        match = _NETWORK.fullmatch(word)
        if match is None:
            raise Invalid("expected networks, as in walt-net,home-net[lat=8ms,bw=100Mbps]")
        name = match[1]
        if len(name) > NETWORK_NAME_LENGTH:
            raise Invalid(
                f"the name of a network has at most {NETWORK_NAME_LENGTH} characters,"
                f" {name[:40]!r} has {len(name)}"
            )
        if name in found:
            raise Invalid(f"network {name} is given twice")
        found[name] = Attachment(name, _parse_limits(match[2]))
    if BOOT_NETWORK not in found:
        raise Invalid(f"{BOOT_NETWORK} is mandatory: nodes boot through it")
    if len(found) > MAX_NETWORKS:
        raise Invalid(f"a machine has at most {MAX_NETWORKS} networks")
    return tuple(found.values())


def _parse_limits(text: str | None) -> Limits:
    values: dict[str, int] = {}
    for word in text.split(",") if text is not None else ():
        match = _LIMIT.fullmatch(word)
        unit = _UNITS[match[1]].get(match[3]) if match is not None else None
        if match is None or unit is None or match[1] in values:
            raise Invalid("limits of a network are lat=<n>ms|us and bw=<n>Mbps|Gbps, once each")
        values[match[1]] = int(match[2]) * unit
    return Limits(values.get("lat", 0), values.get("bw", 0))


class MachineConfig(NamedTuple):
    """What a machine is started with.

    `ram_mib` is memory in MiB; `cores` None leaves the number to the hypervisor;
    `boot_delay` is in seconds, None: random.
    """

    name: str
    mac: str
    model: str
    ram_mib: int
    cores: int | None
    boot_delay: int | None
    disks: tuple[Disk, ...] = ()
    networks: tuple[Attachment, ...] = (Attachment(BOOT_NETWORK),)


def machine_config(name: str, mac: str, model: str, conf: Mapping[str, Any]) -> MachineConfig:
    """Return the machine of a node from its explicit settings and the defaults."""
    return MachineConfig(
        name, mac, model,
        parse_ram(str(conf.get("ram", DEFAULT_RAM))),
        parse_cores(conf["cpu.cores"]) if "cpu.cores" in conf else None,
        parse_boot_delay(conf.get("boot.delay", "random")),
        parse_disks(str(conf.get("disks", "none"))),
        parse_networks(str(conf.get("networks", BOOT_NETWORK))),
    )
