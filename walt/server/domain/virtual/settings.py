"""Settings of virtual nodes (spec server §3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from walt.server.domain.devices.machines import (
    BOOT_NETWORK,
    DEFAULT_RAM,
    Attachment,
    Disk,
    parse_boot_delay,
    parse_cores,
    parse_disks,
    parse_networks,
    parse_ram,
)

RANDOM_DELAY = (1, 10)  # seconds


@dataclass(frozen=True)
class MachineConfig:
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
