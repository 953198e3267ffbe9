"""The server gives up the capabilities it has no use for (capabilities(7)).

It needs root: it mounts, makes interfaces, runs containers and daemons as
other accounts. What remains cannot load kernel modules, set the clock, reboot
the machine, trace other programs, or change audit and security settings; nor
can any of its children.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_CAPBSET_DROP = 24  # prctl(2)
_VERSION_3 = 0x20080522  # capget(2)
_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of linux/capability.h, and what each is for.
KEPT = {
    0: "chown: files of images and daemons", 1: "dac_override: files of other accounts",
    2: "dac_read_search: open by handle, for NFS", 3: "fowner: files of images",
    4: "fsetid: set-user-id bits of images", 5: "kill: daemons of other accounts",
    6: "setgid: daemons of other accounts", 7: "setuid: daemons of other accounts",
    8: "setpcap: containers drop capabilities", 10: "net_bind_service: ports 53, 67, 69, 80",
    12: "net_admin: interfaces, nftables", 13: "net_raw: dhcpd, ping",
    15: "ipc_owner: qemu", 18: "sys_chroot: builds, ssh", 19: "sys_ptrace: nsenter",
    21: "sys_admin: mounts, namespaces", 23: "sys_nice: qemu",
    24: "sys_resource: limits of containers", 27: "mknod: devices of images",
    28: "lease: ganesha", 29: "audit_write: ssh in containers", 31: "setfcap: files of images",
}
LAST = 63


def drop() -> list[int]:
    """Give up everything else, for this process and its children; return what was dropped."""
    if os.getuid() != 0:
        return []
    dropped = []
    for number in range(LAST + 1):
        if number not in KEPT and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
            dropped.append(number)
    _set(sum(1 << number for number in KEPT))
    return dropped


def effective() -> int:
    """Return the mask of the capabilities in effect."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _set(wanted: int) -> None:
    mask = effective() & wanted
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    # effective, permitted, inheritable: first the low halves, then the high ones
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
