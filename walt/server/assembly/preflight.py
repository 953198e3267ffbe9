"""What must be there before anything is started: every problem is told at once."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from walt.common.errors import Unavailable
from walt.server.adapters.dhcpd.account import USER
from walt.server.adapters.nfs.choice import chosen
from walt.server.adapters.postgres.restore import check_restore
from walt.server.adapters.vpn.account import ACCOUNT, HOME
from walt.server.assembly import confinement
from walt.server.config.model import ServerConfig
from walt.server.runtime.process import DEFAULT_PATH
from walt.server.runtime.units import JOURNAL, unit_of

PROGRAMS = {
    "dhcpd": "isc-dhcp-server",
    "in.tftpd": "tftpd-hpa",
    "named": "bind9",
    "nbdkit": "nbdkit-plugin-python",
    "podman": "podman",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "dropbearconvert": "dropbear-bin",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "losetup": "mount",
    "bwrap": "bubblewrap",
    "nsenter": "util-linux",
    "slirp4netns": "slirp4netns",
}
LLDP_PROGRAMS = {"lldpd": "lldpd", "snmpd": "snmpd"}
PTP_PROGRAMS = {"ptpd": "ptpd"}
UNIT_PROGRAMS = {"dbus-daemon": "dbus", "journalctl": "systemd"}
VPN_PROGRAMS = {"sshd": "openssh-server", "ssh-keyscan": "openssh-client", "python3": "python3"}
DHCP_CLIENT = {"dhclient": "isc-dhcp-client"}  # for networks with `ip: dhcp`
ACCOUNTS = (USER,)
GANESHA_PROGRAMS = {"ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs"}
MTAB = Path("/etc/mtab")
SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
UNIT_PLACES = (Path("/etc/systemd/system"), SYSTEMD, Path("/usr/lib/systemd/system"))
LEAST_FREE = 256 * 1024 * 1024  # bytes

Which = Callable[[str], str | None]


def chosen_programs(config: ServerConfig) -> dict[str, str]:
    """Return the programs that server.conf asks for, with their packages."""
    found: dict[str, str] = {}
    if config.services.lldp:
        found |= LLDP_PROGRAMS
    if config.services.ptp:
        found |= PTP_PROGRAMS
    if config.services.runner == "systemd":
        found |= UNIT_PROGRAMS
    if config.vpn.enabled:
        found |= VPN_PROGRAMS
    if any(network.ip == "dhcp" for network in config.networks.values()):
        found |= DHCP_CLIENT
    return found


def unit_daemons(config: ServerConfig) -> tuple[str, ...]:
    """Return the daemons that are units of systemd, in the order of their start."""
    if config.services.runner != "systemd":
        return ()
    found = ["dhcpd", "named", "tftpd"]
    if config.services.lldp:
        found += ["snmpd", "lldpd"]
    if config.services.ptp:
        found.append("ptpd")
    return tuple(found)


def find_program(name: str) -> str | None:
    """Return the path of a program, as children will find it."""
    return shutil.which(name, path=DEFAULT_PATH)


def check(
    config: ServerConfig, which: Which = find_program, *, ganesha: bool | None = None,
    mtab: Path = MTAB,
) -> None:
    """Create the server's directories and look for programs, rights and space.

    `ganesha` tells whether it exports the files of nodes (None: as the configuration and
    the kernel decide), `mtab` is the table of mounts that it reads then.

    Raises Unavailable with one line for each problem.
    """
    problems: list[str] = []
    problems += _units(config)
    if os.geteuid() != 0:
        raise Unavailable(
            "the WalT server must be started by root: it configures networks and mounts images"
        )
    if ganesha is None:
        ganesha = not chosen(
            config.services.nfs, isolated=config.namespace is not None
        )
    wanted = dict(PROGRAMS)
    if ganesha:
        wanted |= GANESHA_PROGRAMS
    wanted |= chosen_programs(config)
    missing = sorted({package for name, package in wanted.items() if which(name) is None})
    if missing:
        problems.append(f"programs are missing; run: apt-get install {' '.join(missing)}")
    problems += [
        f"the account {account} is missing; run: useradd --system --user-group --no-create-home"
        f" --shell /usr/sbin/nologin {account}" for account in ACCOUNTS if not _is_account(account)
    ]
    # Ganesha looks there for the file systems that it may export; without it, for none.
    if ganesha and not mtab.exists():
        problems.append(
            f"{mtab} is missing, and nfs-ganesha would export nothing to nodes; run:"
            f" ln -s ../proc/self/mounts {mtab}"
        )
    if config.vpn.enabled and not _is_account(ACCOUNT):
        problems.append(
            f"the account {ACCOUNT} is missing; run: useradd --system --user-group"
            f" --no-create-home --home-dir {HOME} --shell /bin/sh {ACCOUNT}"
        )
    for path in (config.paths.state, config.paths.runtime, config.paths.cache, config.paths.log):
        problems += _directory(path)
    problems += _space(config.paths.state)
    problems += confinement.problems(config.paths)
    problems += check_restore(config.paths.state)
    if ganesha and mtab.exists() and _in_memory(config.paths.state, mtab):
        problems.append(
            f"state-dir {config.paths.state} lies in memory (tmpfs), which nfs-ganesha does not"
            " export to nodes; choose a directory on a disk"
        )
    if problems:
        raise Unavailable("\n".join(problems))


def _units(config: ServerConfig) -> list[str]:
    """Tell why systemd cannot run the daemons, where it is to."""
    names = unit_daemons(config)
    if not names:
        return []
    if config.namespace is not None:
        return [
            "services.runner: systemd runs daemons in the network of the machine, and"
            " `network.namespace` asks for one apart; remove one of the two"
        ]
    if not SYSTEMD.is_dir():
        return [
            "services.runner: systemd does not run this machine; remove the key: the server"
            " then runs its daemons itself"
        ]
    wrong = [unit for unit in map(unit_of, names) if not _is_current(unit)]
    return [
        f"units of daemons are missing or older ({', '.join(wrong)}); run: walt-server-setup"
    ] if wrong else []


def _is_current(unit: str) -> bool:
    """Tell whether the unit that counts writes to the journal that the server reads."""
    for place in UNIT_PLACES:
        with suppress(FileNotFoundError):
            return f"LogNamespace={JOURNAL}\n" in (place / unit).read_text(errors="replace")
    return False


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _in_memory(path: Path, mtab: Path) -> bool:
    """Tell whether a directory is on a tmpfs: the type of the last mount above it decides."""
    parents, found = {str(parent) for parent in (path, *path.parents)}, ""
    depth = 0
    for line in mtab.read_text(errors="replace").splitlines():
        fields = line.split(" ")  # fstab(5)
        if len(fields) > 2 and fields[1] in parents and len(fields[1]) >= depth:
            depth, found = len(fields[1]), fields[2]
    return found == "tmpfs"


def _directory(path: Path) -> list[str]:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return [f"cannot write in {path}: {error.strerror or error}; check its owner and disk"]
    return []


def _space(path: Path) -> list[str]:
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return []
    if free < LEAST_FREE:
        return [f"only {free >> 20} MiB are free in {path}; free at least {LEAST_FREE >> 20} MiB"]
    return []


def check_port(address: str, port: int, kind: int, what: str) -> None:
    """Raise Unavailable when a port of ours is taken."""
    with socket.socket(socket.AF_INET, kind) as endpoint:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            endpoint.bind((address, port))
        except OSError as error:
            raise Unavailable(
                f"{what} needs port {port} of {address or 'this machine'}, which is not available:"
                f" {error.strerror}; stop the program that uses it (see: ss -lnp)"
            ) from None
