"""A machine in QEMU that stands for a board: its firmware, and an initrd that opens the tunnel.

The initrd is that of the image with more in front of it: a shell script, the client of the
tunnel with Debian's Python, and ssh. What a board keeps in its EEPROM is in /eeprom.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from walt.common.qemu import PC

PYTHON = Path("/usr/bin/python3")
# First process of the board (spec node-protocols §9.5): the network outside, the tunnel, an
# address of walt-net through it, and from there on what every node does.
SCRIPT = """\
#!/bin/busybox sh
export PATH=/usr/bin:/bin
fail() {
    echo "board: $*"
    sleep 3
    busybox reboot -f
}
busybox mkdir -p /proc /sys /dev /run /root /tmp
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
. /eeprom/settings
busybox modprobe -a -q $(busybox sort -u /sys/bus/*/devices/*/modalias) 2> /dev/null
busybox modprobe -a -q $(busybox sort -u /sys/bus/virtio/devices/*/modalias) nfsv4 overlay
busybox insmod /tun.ko || fail "no tun"
busybox ifconfig lo 127.0.0.1 up
busybox ifconfig eth0 "$outside" netmask 255.255.255.0 up || fail "no network outside"
# The tunnel outlives this file system: it has one of its own.
busybox mkdir /tunnel
busybox mount -t tmpfs tmpfs /tunnel
busybox cp -a /usr /bin /lib /lib64 /etc /client /eeprom /tunnel
busybox mkdir /tunnel/dev /tunnel/proc /tunnel/tmp
busybox mount -t devtmpfs devtmpfs /tunnel/dev
busybox mount -t proc proc /tunnel/proc
busybox cat > /tunnel/run << 'END'
    . /eeprom/settings
    PYTHONPATH=/client python3 -s -m walt.vpn.tunnel --device walt-vpn --mac "$vpn_mac" \\
        ssh -F /dev/null -q -T -i /eeprom/key -o CertificateFile=/eeprom/key-cert.pub \\
        -o UserKnownHostsFile=/eeprom/known_hosts -o StrictHostKeyChecking=yes \\
        -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=10 \\
        -p "$port" "walt-vpn@$entry_point"
    echo "board: the tunnel is lost"
    busybox reboot -f
END
busybox chroot /tunnel /bin/busybox sh /run &
tries=0
until [ -e /sys/class/net/walt-vpn ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "no tunnel"
    sleep 1
done
busybox udhcpc -i walt-vpn -q -n -t 20 -T 2 -s /dhcp || fail "no address in walt-net"
. /run/lease
busybox ifconfig walt-vpn "$ip" netmask "$subnet" up
busybox hostname "$hostname"
echo "board: $ip ($hostname) through the tunnel"
busybox mount -t nfs4 -o "ro,vers=4.1,addr=$siaddr,clientaddr=$ip" \\
    "$siaddr:/var/lib/walt/nodes/$ip/fs" /root || fail "no root file system"
for one in dev sys proc; do
    busybox mount -o move "/$one" "/root/$one" || busybox umount "/$one"
done
exec busybox switch_root /root /bin/walt-init
"""
DHCP = """\
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
for one in ip subnet hostname siaddr; do
    eval "echo $one=\\$$one"
done > /run/lease
"""


def _libraries(*programs: str) -> Iterator[str]:
    for program in programs:
        for line in subprocess.run(
            ["ldd", program], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            words = [word for word in line.split() if word.startswith("/")]
            if words:
                yield words[0]


def _python() -> Iterator[Path]:
    """Yield the files that Debian's Python needs for a program of some hundred lines."""
    version = PYTHON.resolve().name
    home = Path("/usr/lib") / version
    for place in ("", "encodings", "collections", "re", "importlib", "ctypes"):
        for path in (home / place).glob("*.py"):
            yield path
        for path in (home / place / "__pycache__").glob("*.pyc"):
            yield path
    yield from (home / "lib-dynload").glob("*.so")


def _entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    """Return one member of an archive (cpio(5), new ASCII format)."""
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % one for one in fields) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive with these files, by path: permissions and content."""
    made: dict[str, bytes] = {}
    for path, (mode, data) in files.items():
        parents = list(Path(path.lstrip("/")).parents)[-2::-1]
        for parent in parents:
            made.setdefault(str(parent), _entry(str(parent), 0o40755, b"", len(made) + 1))
        name = path.lstrip("/")
        made[name] = _entry(name, 0o100000 | mode, data, len(made) + 1)
    whole = b"".join(made.values()) + _entry("TRAILER!!!", 0, b"", 0)
    return whole + bytes(-len(whole) % 512)


def extra(tun: Path) -> bytes:
    """Return what comes in front of the initrd of the image; `tun` is the kernel's module."""
    found: dict[str, tuple[int, bytes]] = {
        "/board": (0o755, SCRIPT.encode()), "/dhcp": (0o755, DHCP.encode()),
        "/tun.ko": (0o644, tun.read_bytes()),
        "/etc/passwd": (0o644, b"root:x:0:0:root:/:/bin/sh\n"),
        "/usr/bin/ssh": (0o755, Path("/usr/bin/ssh").read_bytes()),
        "/usr/bin/python3": (0o755, PYTHON.read_bytes()),
    }
    for path in _libraries("/usr/bin/ssh", str(PYTHON)):
        found[path] = (0o755, Path(path).read_bytes())
    for path in _python():
        found[str(path)] = (0o644, path.read_bytes())
    here = Path(__file__).resolve().parents[2]
    for module in ("common/__init__.py", "common/errors.py", "common/ethernet.py",
                   "vpn/__init__.py", "vpn/relay.py", "vpn/tunnel.py"):
        found[f"/client/walt/{module}"] = (0o644, (here / "walt" / module).read_bytes())
    found["/client/walt/__init__.py"] = (0o644, b"")
    return archive(found)


def eeprom(key: Path, known_hosts: Path, **settings: str) -> bytes:
    """Return what the board keeps: its key, and where it enters."""
    return archive({
        "/eeprom/key": (0o600, key.read_bytes()),
        "/eeprom/key-cert.pub": (0o644, Path(f"{key}-cert.pub").read_bytes()),
        "/eeprom/known_hosts": (0o644, known_hosts.read_bytes()),
        "/eeprom/settings": (
            0o644, "".join(f"{name}='{value}'\n" for name, value in settings.items()).encode()
        ),
    })


def qemu(kernel: Path, initrd: Path, tap: str, mac: str, server: str) -> tuple[str, ...]:
    """Return the command that powers the board on: it boots again what it has."""
    return (
        "qemu-system-x86_64", "-nodefaults", "-machine", "pc,graphics=off,accel=tcg",
        "-cpu", PC.emulated_cpu, "-m", "768",
        "-smbios", "type=1,manufacturer=Board", "-display", "none", "-vga", "none",
        "-monitor", "none", "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", (
            "rdinit=/board console=ttyS0 net.ifnames=0 panic=15 quiet loglevel=4"
            f" walt.node.model=rpi-5-b walt.node.mac={mac} walt.server.ip={server}"
        ),
        "-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=n,mac={mac},romfile=",
    )
