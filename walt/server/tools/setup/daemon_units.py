"""Units of the daemons, for sites where systemd runs them (`services.runner: systemd`).

Each one starts a program of ours, which runs the daemon as the server would: with our
configuration, and without root. The server starts them, restarts them, and ends them (spec
server §1.1); systemd ends what a server that died has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from walt.server.assembly.preflight import unit_daemons
from walt.server.config.model import WALT_NET, ServerConfig
from walt.server.runtime.units import JOURNAL, unit_of
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.steps import OwnFile
from walt.server.tools.setup.systemd import MARK, UNIT

DROP_IN = f"{UNIT}.d/daemons.conf"
# Nodes cause what dhcpd writes: it must not push the machine's own logs out, nor be less than all,
# for the server reads there who got an address.
_JOURNALD = f"systemd-journald@{JOURNAL}.service"
JOURNAL_CONF = f"/etc/systemd/journald@{JOURNAL}.conf"
_JOURNAL = f"""\
{MARK} {UNIT}
# Of the daemons of WalT: journalctl --namespace={JOURNAL}
[Journal]
Storage=auto
SystemMaxUse=256M
RuntimeMaxUse=64M
RateLimitIntervalSec=0
LineMax=4K
ForwardToSyslog=no
ForwardToWall=no
"""


@dataclass(frozen=True)
class _Daemon:
    """What is special to the unit of one daemon.

    `rights` are capabilities beside those that its program needs to give up root; `files` are
    those without which it does not start, below its directory. `reads_clock`: it asks the
    kernel how right the clock is, which ProtectClock refuses.
    """

    what: str
    rights: str
    files: tuple[str, ...] = ()
    on_interface: bool = False
    namespaces: str = "yes"
    after: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    reads_clock: bool = False


# A program that gives up root needs these: directories change their owner, accounts change.
_TO_BEGIN = "CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID CAP_SETPCAP"
_SANDBOX = "CAP_SYS_ADMIN CAP_SYS_CHROOT"  # of bubblewrap, which drops them
_DAEMONS = {
    "dhcpd": _Daemon(
        "DHCP server", "CAP_NET_BIND_SERVICE CAP_NET_RAW", ("dhcpd.conf",), on_interface=True,
    ),
    "named": _Daemon(
        "DNS server", "CAP_NET_BIND_SERVICE", ("named.conf",), on_interface=True,
        # With all rights: the account of the process is another one.
        lines=("ExecReload=+/bin/kill -HUP $MAINPID",),
    ),
    "tftpd": _Daemon(
        "TFTP server", "CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_SETFCAP", namespaces="user",
    ),
    "snmpd": _Daemon("SNMP agent", "CAP_NET_BIND_SERVICE"),
    "lldpd": _Daemon(
        "LLDP daemon", f"CAP_NET_RAW CAP_NET_ADMIN {_SANDBOX}",
        namespaces="mnt pid ipc", after=("walt-server-snmpd.service",),
    ),
    "ptpd": _Daemon(
        "PTP master", f"CAP_NET_BIND_SERVICE {_SANDBOX}", on_interface=True,
        namespaces="mnt pid ipc", reads_clock=True,
    ),
}


def units(config: ServerConfig, programs: Path, conf: Path, directory: str) -> list[OwnFile]:
    """Return the files of a site: none where the server runs the daemons itself."""
    names = unit_daemons(config)
    if not names:
        return []
    stop = " ".join(unit_of(name) for name in names)
    return [
        OwnFile(JOURNAL_CONF, _JOURNAL),
        *(OwnFile(f"{directory}/{unit_of(name)}", _unit(name, config, programs, conf))
          for name in names),
        OwnFile(f"{directory}/{DROP_IN}", (
            f"{MARK} {UNIT}\n"
            # It follows that journal, which has to be there: journalctl finds no later one.
            f"[Unit]\nWants={_JOURNALD}\nAfter={_JOURNALD}\n"
            "# What a server that died has left; another one ends them itself.\n"
            f"[Service]\nExecStopPost=-+/usr/bin/systemctl stop {stop}\n"
        )),
    ]


def _unit(name: str, config: ServerConfig, programs: Path, conf: Path) -> str:
    daemon, paths = _DAEMONS[name], config.paths
    conditions = [str(conf), *(str(paths.service(name) / file) for file in daemon.files)]
    if daemon.on_interface:
        conditions.append(f"/sys/class/net/{WALT_NET}")
    return "\n".join([
        f"{MARK} {unit_of(name)}",
        "[Unit]", f"Description=WalT {daemon.what}",
        "Documentation=man:walt-server-" + name + "(8)",
        # The server ends it, at shutdown, too: systemd does not do so before.
        "DefaultDependencies=no",
        " ".join(("After=sysinit.target network.target", *daemon.after)),
        *(f"ConditionPathExists={path}" for path in conditions),
        # The server starts it again after pauses that grow.
        "StartLimitIntervalSec=0",
        "", "[Service]", "Type=exec",
        "EnvironmentFile=-/etc/walt/server.env",
        f"Environment=WALT_SERVER_CONF={conf}",
        f"ExecStart={programs}/walt-server-{name}",
        *daemon.lines,
        f"LogNamespace={JOURNAL}",
        "Restart=no", "TimeoutStartSec=30", "TimeoutStopSec=20",
        f"CapabilityBoundingSet={_TO_BEGIN} {daemon.rights}",
        "ProtectSystem=strict",
        f"ReadWritePaths=-{paths.state / 'services'} -{paths.runtime}",
        "ProtectHome=read-only", "PrivateTmp=yes", "ProtectHostname=yes",
        *([] if daemon.reads_clock else ["ProtectClock=yes"]),
        "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes",
        f"RestrictNamespaces={daemon.namespaces}",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET",
        "RestrictRealtime=yes", "LockPersonality=yes", "KeyringMode=private",
        "SystemCallArchitectures=native", "UMask=0022", "",
    ])


@dataclass(frozen=True)
class DaemonUnitsStep:
    """The units of daemons that server.conf asks for are there; see the module.

    With `surplus`, those that it does not ask for any more are gone, instead: a step for after
    the restart of the server, which has let go of them then.
    """

    machine: Machine
    directory: str
    wanted: Sequence[OwnFile]
    surplus: bool = False

    @property
    def title(self) -> str:
        """See Step."""
        return "units of no use any more" if self.surplus else "units of daemons"

    def _ours(self) -> list[str]:
        paths = [f"{self.directory}/{unit_of(name)}" for name in _DAEMONS]
        return [
            path for path in (*paths, f"{self.directory}/{DROP_IN}", JOURNAL_CONF)
            if (self.machine.read(path) or "").startswith(MARK)
        ]

    def _leaving(self) -> list[str]:
        kept = {file.path for file in self.wanted}
        return [path for path in self._ours() if path not in kept]

    def _wrong(self) -> list[OwnFile]:
        return [file for file in self.wanted if self.machine.read(file.path) != file.text]

    def lacks(self) -> list[str]:
        """See Step."""
        if self.surplus:
            return [f"{path} has no use any more" for path in self._leaving()]
        return [
            f"{file.path} is {'missing' if self.machine.read(file.path) is None else 'not current'}"
            for file in self._wrong()
        ]

    def apply(self) -> None:
        """See Step."""
        if self.surplus:
            self._remove(self._leaving())
            return
        wrong = self._wrong()
        for file in wrong:
            self.machine.write(file.path, file.text, file.mode)
        if wrong:
            self._reload()

    def undo(self) -> None:
        """Those of this site end, and go."""
        if not self.surplus:
            self._remove(self._ours())

    def _remove(self, paths: Sequence[str]) -> None:
        units = [Path(path).name for path in paths if path.endswith(".service")]
        if units and self.machine.has_systemd:
            self.machine.run("systemctl", "stop", *units)
        for path in paths:
            self.machine.at(path).unlink(missing_ok=True)
            if path.endswith(DROP_IN):
                with suppress(OSError):  # it has changes of somebody else, too
                    self.machine.at(path).parent.rmdir()
        if paths:
            self._reload()

    def _reload(self) -> None:
        if self.machine.has_systemd:
            self.machine.run("systemctl", "daemon-reload")
