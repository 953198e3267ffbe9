"""The QEMU command line of a virtual node, and the iPXE script it starts with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from walt.server.domain.devices.machines import DEFAULT_CORES
from walt.server.domain.virtual.settings import MachineConfig

EMULATED_CORES = 1  # unless more are asked for: each costs, and none is faster than one
PROGRAM = "qemu-system-x86_64"
IPXE = Path("/usr/lib/ipxe/ipxe.lkrn")

# iPXE gets this script directly: no ROM, no first exchange to find it. `dhcp`
# would also wait for IPv6 router advertisements, 16 s where nobody sends any.
_SCRIPT = """#!ipxe
set user-class walt.node.{model}
:again
ifconf --configurator dhcp net{rank} || goto failed
isset ${{next-server}} || set next-server ${{dhcp-server}}
chain http://${{next-server}}/boot/start.ipxe ||
chain tftp://${{next-server}}/start.ipxe ||
:failed
echo No boot files yet, trying again in 3 seconds
sleep 3
reboot
"""


def script(model: str, rank: int = 0) -> str:
    """Return the iPXE script of a node (spec node-protocols §3.5).

    `rank` tells which of its interfaces is on walt-net.
    """
    return _SCRIPT.format(model=model, rank=rank)


def command(
    config: MachineConfig, accel: str, script_file: Path, nics: Sequence[str],
    disks: Sequence[str] = (),
) -> list[str]:
    """Return the argument vector (spec node-protocols §8.5).

    `nics` are the options of its network interfaces, `disks` paths of files.

    `-no-reboot` turns a reboot of the guest into the end of the machine, so
    that the next start reads boot files and settings again; nodes know from
    the DMI vendor that they are virtual.
    """
    return [
        PROGRAM, "-name", config.name, "-nodefaults", "-machine", f"pc,graphics=off,accel={accel}",
        "-cpu", "host" if accel == "kvm" else "max", "-m", str(config.ram_mib),
        "-smp", str(config.cores or (DEFAULT_CORES if accel == "kvm" else EMULATED_CORES)),
        "-smbios", "type=1,manufacturer=QEMU",
        "-display", "none", "-vga", "none", "-monitor", "none", "-serial", "stdio",
        "-no-reboot", "-kernel", str(IPXE), "-initrd", str(script_file),
        *nics,
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


def probe_command(script_file: Path) -> list[str]:
    """Return a machine that prints MARK when KVM really runs guests."""
    return [
        PROGRAM, "-nodefaults", "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "64",
        "-nographic", "-vga", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
        "-kernel", str(IPXE), "-initrd", str(script_file),
    ]


MARK = "walt-kvm-works"
PROBE_SCRIPT = f"#!ipxe\necho {MARK}\nsleep 30\n"
