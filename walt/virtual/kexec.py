"""`walt-ipxe-kexec-reboot`: a node starts the kernel that it would boot, without its firmware.

    walt-ipxe-kexec-reboot

Images run it as `/bin/walt-network-reboot` (spec node-protocols §5.2). It asks the server whether
the node may (`kexec.allow`), does what the boot scripts of its image say, and starts what they
found by kexec(8). It returns only if that was not done: a plain reboot follows then.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from walt.common.errors import Invalid, Unavailable, WaltError, in_words
from walt.common.names import is_device_name, is_mac
from walt.virtual import api
from walt.virtual.fetch import ServerFiles, joined
from walt.virtual.processes import run
from walt.virtual.script import Boot, Interpreter, known
from walt.virtual.sockets import Server
from walt.virtual.variables import Variables

CMDLINE, DMI = Path("/proc/cmdline"), Path("/sys/class/dmi/id")
LOAD_LIMIT = 30.0  # seconds to load a kernel; the server gives the whole hook 60 s
TEXT = 64  # characters of what the firmware calls the machine


@dataclass(frozen=True)
class Facts:
    """What the running kernel was told, and what the firmware calls the machine."""

    model: str
    mac: str
    ip: str
    gateway: str
    netmask: str
    hostname: str
    server: str
    manufacturer: str
    product: str


def read_facts(cmdline: str, dmi: Path = DMI) -> Facts:
    """Return the facts of a kernel that was booted as images of WalT are. Raises Invalid."""
    words = {
        name: value for name, equals, value in (word.partition("=") for word in cmdline.split())
        if equals
    }
    # ip=<client>:<server>:<gateway>:<netmask>:<host name>:<device>:<autoconf> (kernel, nfsroot)
    ip, server, gateway, netmask, hostname, *_ = [*words.get("ip", "").split(":"), *[""] * 5]
    mac = words.get("walt.node.mac") or words.get("BOOTIF", "")[3:].replace("-", ":")
    facts = Facts(
        words.get("walt.node.model", ""), mac.lower(), ip, gateway, netmask, hostname,
        words.get("walt.server.ip") or server, _text(dmi / "sys_vendor"),
        _text(dmi / "product_name"),
    )
    needed, others = (facts.ip, facts.server), (facts.netmask, facts.gateway)
    for value in (*needed, *filter(None, others)):
        try:
            IPv4Address(value)
        except AddressValueError:
            raise Invalid(
                f"the kernel's command line gives {value[:40]!r} for an address"
            ) from None
    if not is_mac(facts.mac) or not is_device_name(facts.model):
        raise Invalid("the kernel's command line lacks walt.node.mac=, BOOTIF= or walt.node.model=")
    return facts


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[:TEXT]
    except OSError:
        return ""


def settings(facts: Facts, info: api.NodeInfo) -> Variables:
    """Return what boot scripts find: as iPXE on this machine would give it."""
    found = known(
        model=facts.model, mac=facts.mac, ip=facts.ip, netmask=info.netmask or facts.netmask,
        gateway=info.gateway or facts.gateway, hostname=info.name or facts.hostname,
        server=facts.server,
    )
    found.set("manufacturer", facts.manufacturer)
    found.set("product", facts.product)
    return found


def allowed(conf: Mapping[str, object]) -> bool:
    """Tell whether a node with these settings may."""
    return conf.get("kexec.allow") is not False


async def reboot(facts: Facts) -> None:
    """Start the kernel of the image; return only if the node may not. Raises WaltError."""
    server = Server(facts.server)
    info = api.parse_info(await api.call(server, "get_device_info", facts.mac))
    if not info.name:
        raise Unavailable("the server does not know this node")
    if not allowed(info.conf):
        print("this node may not: kexec.allow=false", file=sys.stderr)
        return
    # In memory: nothing of it is left, whatever the root is.
    with tempfile.TemporaryDirectory(prefix="walt-kexec-", dir="/run") as name:
        files = ServerFiles(server, facts.mac, facts.ip, Path(name))
        boot = await Interpreter(files, settings(facts, info), _say, asyncio.sleep).run()
        await load(Boot(boot.kernel, boot.arguments, joined(boot.initrds)))
    await run(["kexec", "--exec"], limit=LOAD_LIMIT)


async def load(boot: Boot) -> None:
    """Have the kernel keep what shall be started. Raises CommandFailed."""
    initrd = [f"--initrd={boot.initrds[0]}"] if boot.initrds else []
    await run(
        ["kexec", "--load", str(boot.kernel), *initrd, f"--command-line={boot.arguments}"],
        limit=LOAD_LIMIT,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Reboot; exit with status 1 if that was not done."""
    if len(sys.argv) > 1:
        print("Usage: walt-ipxe-kexec-reboot, which reboots this node at once", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(reboot(read_facts(CMDLINE.read_text())))
    except (WaltError, OSError) as error:
        _say(in_words(error))
    sys.exit("walt-ipxe-kexec-reboot: this node is not rebooted by kexec")
