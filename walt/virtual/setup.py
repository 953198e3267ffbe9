"""walt-virtual-setup-node: install the service that emulates a node (spec node-protocols §8.7)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from walt.common.errors import Invalid, Unavailable, WaltError, in_words
from walt.common.files import write_if_changed

SERVICE = Path("etc/init.d/S52waltvirtualnode")
DEFAULTS = Path("etc/default/walt-vpn-node")
_ENTRYPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_TEMPLATE = """# Settings of the virtual node that this machine emulates; read by a shell.
# The host that opens the way into walt-net; none: this machine is in walt-net itself.
WALT_VPN_ENTRYPOINT={entrypoint}
# Chosen at the first start when absent:
#WALT_VIRTUAL_NODE_MAC=52:54:00:xx:xx:xx
# pc-x86-64 on a PC:
#WALT_VIRTUAL_NODE_MODEL=qemu-arm-64
# What this machine runs each time the node reboots:
#WALT_VIRTUAL_ON_VM_REBOOT=reboot
"""


def install(root: Path, entrypoint: str = "") -> list[str]:
    """Install the service and its settings below `root`; return what was done.

    Settings that are there already are kept. Raises Unavailable where there is no
    busybox-init, Invalid for a wrong entrypoint, OSError.
    """
    if entrypoint and _ENTRYPOINT.fullmatch(entrypoint) is None:
        raise Invalid(f"{entrypoint[:64]!r} is not a host name or an address")
    if not (root / SERVICE).parent.is_dir():
        raise Unavailable(
            "there is no /etc/init.d here: start walt-virtual-node in your own way"
        )
    text = (Path(__file__).parent / SERVICE.name).read_text()
    changed = write_if_changed(root / SERVICE, text, 0o755)
    (root / SERVICE).chmod(0o755)
    done = [f"/{SERVICE}: {'installed' if changed else 'up to date'}"]
    defaults = root / DEFAULTS
    if defaults.exists():
        done.append(f"/{DEFAULTS}: kept as it is")
    else:
        write_if_changed(defaults, _TEMPLATE.format(entrypoint=entrypoint))
        done.append(f"/{DEFAULTS}: written")
        if not entrypoint:
            done.append(f"Now set WALT_VPN_ENTRYPOINT in /{DEFAULTS}.")
    done.append(f"Start it with /{SERVICE} start, or reboot.")
    return done


def main() -> None:
    """Install it on this machine: `walt-virtual-setup-node [ENTRYPOINT]`."""
    words = sys.argv[1:]
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print("Usage: walt-virtual-setup-node [ENTRYPOINT|none]", file=sys.stderr)
        sys.exit(0 if words in (["-h"], ["--help"]) else 2)
    if os.geteuid() != 0:
        sys.exit("walt-virtual-setup-node: it installs a service: run it as root")
    try:
        for line in install(Path("/"), *words):
            print(line)
    except (WaltError, OSError) as error:
        sys.exit(f"walt-virtual-setup-node: {in_words(error)}")
