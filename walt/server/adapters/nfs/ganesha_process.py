"""How ganesha is run: with a part of root's rights, and a part of the file system in view."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from walt.server.runtime.child import ChildSpec

# It acts for the root of nodes: owners, modes, devices and handles of files, nothing else.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "mknod", "setfcap", "setgid",
    "setuid",
)
# What it needs to run, read-only: its libraries, and what the C library and RPC look up.
SYSTEM = (
    "/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/etc/group", "/etc/host.conf",
    "/etc/hosts", "/etc/ld.so.cache", "/etc/localtime", "/etc/netconfig", "/etc/nsswitch.conf",
    "/etc/passwd", "/etc/protocols", "/etc/services",
)
VIEW = Path(__file__).with_name("view.py")


def ganesha_spec(
    program: str, config: Path, *, pid_file: Path, socket: Path, view: Path, read: Sequence[Path],
    write: Sequence[Path], trees: Sequence[Path],
) -> ChildSpec:
    """Return how ganesha is run with a configuration.

    It is the client of the bus at `socket`. The directory `view` becomes its root: it has `read`
    and `write` there, and `trees` with what is mounted below them, now and later.
    """
    shown = {
        "read": [*SYSTEM, program, *map(str, read)], "write": [*map(str, write)],
        "trees": [*map(str, trees)],
    }
    return ChildSpec(
        "ganesha",
        (sys.executable, "-I", str(VIEW), json.dumps(shown), str(view),
         ",".join(["-all", *(f"+{capability}" for capability in CAPABILITIES)]),
         program, "-F", "-f", str(config), "-L", "STDERR", "-N", "NIV_EVENT",
         "-p", str(pid_file)),
        env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"},
    )
