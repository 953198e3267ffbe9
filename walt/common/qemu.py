"""The QEMU command line of virtual nodes (spec node-protocols §8.5)."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from walt.common.errors import Invalid
from walt.common.files import write_atomic
from walt.common.machines import BOOT_NETWORK, DEFAULT_CORES, MachineConfig
from walt.common.names import is_mac

# The guest is anybody's: a machine that it takes over starts nothing and gains nothing.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
EMULATED_CORES = 1  # unless more are asked for: each costs, and none is faster than one


class Architecture(NamedTuple):
    """What differs between the machines that models name.

    `program` is QEMU's, `machine` its type, `nic` the device of a network
    interface, `emulated_cpu` the processor where there is no KVM, `arguments` what is
    added to those of the kernel.
    """

    program: str
    machine: str
    nic: str
    emulated_cpu: str
    arguments: str = ""

    def cpu(self, accel: str) -> str:
        """Return the processor with an accelerator (`kvm` or `tcg`)."""
        return "host" if accel == "kvm" else self.emulated_cpu


# Emulated processors have all features but those that are slow to emulate: page tables of
# five levels, signatures of pointers by the cipher of the standard, and string instructions
# that are said to be fast: a kernel then clears and copies memory byte by byte.
PC = Architecture(
    "qemu-system-x86_64", "pc,graphics=off", "virtio-net-pci",
    "max,la57=off,erms=off,fsrm=off",
)
# 32-bit programs meet instructions that 64-bit kernels only emulate when told so.
ARM = Architecture(
    "qemu-system-aarch64", "virt", "virtio-net-device", "max,pauth-impdef=on",
    "sysctl.abi.cp15_barrier=2 sysctl.abi.setend=2",
)
ARCHITECTURES = {"pc-x86-32": PC, "pc-x86-64": PC, "qemu-arm-32": ARM, "qemu-arm-64": ARM}


def architecture(model: str) -> Architecture:
    """Return the machine of a node model. Raises Invalid for one that no machine emulates."""
    found = ARCHITECTURES.get(model)
    if found is None:
        raise Invalid(
            f"no virtual machine emulates model {model[:64]!r}; there are "
            + ", ".join(sorted(ARCHITECTURES))
        )
    return found


def command(
    config: MachineConfig, accel: str, boot: Sequence[str], nics: Sequence[str],
    disks: Sequence[str] = (), serial: str = "stdio",
) -> list[str]:
    """Return the argument vector.

    `boot` are the options that tell what it starts with, `nics` those of its network
    interfaces, `disks` paths of files; `serial` is where its console goes.
    Raises Invalid.

    `-no-reboot` turns a reboot of the guest into the end of the machine, so
    that the next start reads boot files and settings again; nodes know from
    the DMI vendor that they are virtual.
    """
    kind = architecture(config.model)
    return [
        kind.program, "-name", config.name, "-nodefaults",
        "-machine", f"{kind.machine},accel={accel}",
        "-cpu", kind.cpu(accel), "-m", str(config.ram_mib),
        "-smp", str(config.cores or (DEFAULT_CORES if accel == "kvm" else EMULATED_CORES)),
        "-smbios", "type=1,manufacturer=QEMU",
        "-sandbox", SANDBOX,
        "-display", "none", "-vga", "none", "-monitor", "none", "-serial", serial,
        "-no-reboot", *boot, *nics,
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        *_disk_options(disks),
    ]


def _disk_options(paths: Sequence[str]) -> list[str]:
    options = ["-device", "virtio-scsi-pci"] if paths else []
    for number, path in enumerate(paths):
        file = path.replace(",", ",,")  # a comma begins the next option
        options += [
            "-drive", f"file={file},format=raw,id=disk{number},if=none",
            "-device", f"scsi-hd,drive=disk{number},product=QEMU-DISK",
        ]
    return options


def nic_options(netdev: str, network: str, mac: str, device: str = PC.nic) -> list[str]:
    """Return the options of one network interface; `netdev` says what it is connected to."""
    rom = ",romfile=" if device.endswith("-pci") else ""
    return [
        "-netdev", f"{netdev},id={network}", "-device", f"{device},netdev={network},mac={mac}{rom}",
    ]


def on_tap(tap: str) -> str:
    """Return the `netdev` of an interface that sits on an existing tap."""
    return f"tap,ifname={tap},script=no,downscript=no"


def tap_name(mac: str, network: str = BOOT_NETWORK) -> str:
    """Return the name of a machine's tap: 15 characters at most, told from MAC and network."""
    words = mac if network == BOOT_NETWORK else f"{mac} {network}"
    return "wt" + hashlib.sha256(words.encode()).hexdigest()[:10]


def is_tap_name(name: str) -> bool:
    """Tell whether an interface has a name that tap_name may have given."""
    return re.fullmatch(r"wt[0-9a-f]{10}", name) is not None


def new_mac() -> str:
    """Return a random MAC of the range that QEMU's machines use."""
    return "52:54:00:" + random.SystemRandom().randbytes(3).hex(":")


def secondary_mac(directory: Path, network: str) -> str:
    """Return the MAC of a machine on a secondary network: random once, then kept there."""
    path = directory / f"{network}.mac"
    try:
        own = path.read_text().strip()
    except FileNotFoundError:
        own = ""
    if not is_mac(own):
        path.parent.mkdir(parents=True, exist_ok=True)
        own = new_mac()
        write_atomic(path, own + "\n")
    return own
