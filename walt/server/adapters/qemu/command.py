"""What virtual nodes of the server start with: iPXE itself, given their script."""

from __future__ import annotations

from pathlib import Path

from walt.common.qemu import PC

PROGRAM = PC.program
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


def boot_options(script_file: Path) -> list[str]:
    """Return QEMU's options that start iPXE with a script."""
    return ["-kernel", str(IPXE), "-initrd", str(script_file)]


def probe_command(script_file: Path) -> list[str]:
    """Return a machine that prints MARK when KVM really runs guests."""
    return [
        PROGRAM, "-nodefaults", "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "64",
        "-nographic", "-vga", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot",
        *boot_options(script_file),
    ]


MARK = "walt-kvm-works"
PROBE_SCRIPT = f"#!ipxe\necho {MARK}\nsleep 30\n"
