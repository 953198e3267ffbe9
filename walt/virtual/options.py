"""The command line of walt-virtual-node (spec node-protocols §8.3)."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path

from walt.common.errors import Invalid
from walt.common.machines import machine_config
from walt.common.names import is_device_name, is_mac
from walt.common.qemu import architecture

NODES = Path("/var/lib/walt/nodes")


@dataclass(frozen=True)
class Options:
    """Checked options; texts are empty where nothing was given.

    `conf` holds the settings that were given, under the names of `walt node config`.
    """

    mac: str
    model: str
    ip: str
    netmask: str
    gateway: str
    server_ip: str
    hostname: str
    conf: dict[str, str]
    managed: bool
    udhcpc: bool
    usb: bool
    accel: str
    on_vm_reboot: tuple[str, ...]
    pid_path: Path
    screen_session_path: Path
    disks_path: Path
    networks_path: Path
    log_file: Path | None
    log_prefix: str


_TEXTS = (
    ("--ip", "IP", "address of the node"), ("--netmask", "MASK", "its netmask"),
    ("--gateway", "IP", "its gateway, if it has one"), ("--server-ip", "IP", "the WalT server"),
    ("--hostname", "NAME", "name of the node"),
    ("--cpu-cores", "N", "number of cores"), ("--ram", "SIZE", "memory: 512M, 2G"),
    ("--disks", "DISKS", "none, or 8G,1T[template=ext4]"),
    ("--networks", "NETWORKS", "walt-net, or walt-net,home[lat=8ms,bw=100Mbps]"),
    ("--boot-delay", "SECONDS", "seconds before each start, or random (1 to 10)"),
    ("--on-vm-reboot", "COMMAND", "run it each time the machine ends, then start again"),
    ("--pid-path", "FILE", "where the process number is written"),
    ("--screen-session-path", "FILE", "where the name of the screen session is written"),
    ("--disks-path", "DIR", "where disks are kept"),
    ("--networks-path", "DIR", "where MACs on secondary networks are kept"),
    ("--log-file", "FILE", "where messages go (standard error)"),
    ("--log-prefix", "TEXT", "what each message begins with"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="walt-virtual-node", allow_abbrev=False,
        description="Emulate a WalT node on this machine, which has a bridge named walt-net.",
    )
    parser.add_argument("--mac", required=True, help="MAC address of the node: 52:54:00:…")
    parser.add_argument("--model", required=True, help="pc-x86-64, qemu-arm-64…")
    for option, value, text in _TEXTS:
        parser.add_argument(option, metavar=value, default="", help=text)
    parser.add_argument(
        "--net-conf-udhcpc", dest="udhcpc", action="store_true",
        help="get addresses and name by DHCP, with busybox",
    )
    parser.add_argument(
        "--attach-usb", dest="usb", action="store_true",
        help="lend it the USB sockets of a Raspberry Pi 3B+",
    )
    parser.add_argument(
        "--managed", action="store_true",
        help="take commands on standard input: CONF, INPUT, KILL_VM, EXIT",
    )
    parser.add_argument(
        "--accel", choices=("auto", "kvm", "tcg"), default="auto",
        help="auto: KVM if a guest really runs with it",
    )
    return parser


def parse_options(words: Sequence[str]) -> Options:
    """Return the options of a command line. Raises Invalid; --help and misuse exit."""
    given = _parser().parse_args(list(words))
    mac = given.mac.lower()
    if not is_mac(mac):
        raise Invalid(f"--mac: {given.mac[:40]!r} is not a MAC address")
    architecture(given.model)
    for name in ("ip", "gateway", "server_ip", "netmask"):
        check_address(f"--{name.replace('_', '-')}", getattr(given, name))
    if given.hostname and not is_device_name(given.hostname):
        raise Invalid(f"--hostname: {given.hostname[:64]!r} is not a valid name for a node")
    if not given.udhcpc:
        wanted = ("ip", "server_ip", "netmask") if given.managed else ("ip", "server_ip")
        missing = [f"--{name.replace('_', '-')}" for name in wanted if not getattr(given, name)]
        if missing:
            raise Invalid(f"give {', '.join(missing)}, or --net-conf-udhcpc")
    conf = {
        setting: value for setting, value in (
            ("cpu.cores", given.cpu_cores), ("ram", given.ram), ("disks", given.disks),
            ("networks", given.networks), ("boot.delay", given.boot_delay),
        ) if value
    }
    machine_config("checked", mac, given.model, conf)
    home = NODES / mac
    try:
        on_vm_reboot = tuple(shlex.split(given.on_vm_reboot))
    except ValueError as error:
        raise Invalid(f"--on-vm-reboot: {error}") from None
    return Options(
        mac, given.model, given.ip, given.netmask, given.gateway, given.server_ip, given.hostname,
        conf, given.managed, given.udhcpc, given.usb, given.accel, on_vm_reboot,
        Path(given.pid_path or home / "pid"),
        Path(given.screen_session_path or home / "screen_session"),
        Path(given.disks_path or home / "disks"), Path(given.networks_path or home / "networks"),
        Path(given.log_file) if given.log_file else None, given.log_prefix,
    )


def check_address(name: str, text: str) -> None:
    """Check an address, or a netmask if the name says so; nothing is fine. Raises Invalid."""
    try:
        if text and name.endswith("netmask"):
            IPv4Network(f"0.0.0.0/{IPv4Address(text)}")
        elif text:
            IPv4Address(text)
    except (AddressValueError, NetmaskValueError):
        raise Invalid(f"{name}: {text[:40]!r} is not an IPv4 address") from None
