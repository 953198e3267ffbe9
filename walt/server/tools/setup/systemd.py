"""Steps about systemd: units of older versions, the kernel's NFS server, the server itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import WaltError
from walt.server.assembly import confinement
from walt.server.config.model import Paths
from walt.server.tools.setup.machine import Machine

UNIT = "walt-server.service"
# How units of daemons begin that set-up writes (services.runner: systemd).
MARK = "# Written by walt-server-setup (services.runner: systemd); changes: systemctl edit"
# Units of WalT 10 and before, whose daemons would take the ports of the server's own.
FORMER = (
    *(f"walt-server-{name}" for name in (
        "netconfig.service", "dhcpd.service", "named.service", "tftpd.service", "snmpd.service",
        "lldpd.service", "ptpd.service", "httpd.service", "nbd.socket", "nbd.service",
        "vpn.socket", "vpn.service", "podman.socket", "podman.service",
    )),
    "walt-vpn-server.socket", "walt-vpn-server.service",
)


@dataclass(frozen=True)
class FormerUnitsStep:
    """Units that an older version installed, and this one does not have, are gone."""

    machine: Machine
    directory: str
    title: str = "units of older versions"

    def _there(self) -> list[str]:
        found = []
        for unit in FORMER:
            text = self.machine.read(f"{self.directory}/{unit}")
            if text is not None and not text.startswith(MARK):
                found.append(unit)
        return found

    def lacks(self) -> list[str]:
        """See Step."""
        return [f"{unit} belongs to an older version" for unit in self._there()]

    def apply(self) -> None:
        """See Step."""
        there = self._there()
        if there and self.machine.has_systemd:
            # All first: a socket would start its service again.
            self.machine.run("systemctl", "stop", *there)
        for unit in there:
            self.machine.run("systemctl", "--quiet", "disable", unit)
            self.machine.at(f"{self.directory}/{unit}").unlink(missing_ok=True)
        if there and self.machine.has_systemd:
            self.machine.run("systemctl", "daemon-reload")

    def undo(self) -> None:
        """They do not come back."""


@dataclass(frozen=True)
class ConfinementStep:
    """AppArmor lets dhcpd and named use the server's directories."""

    machine: Machine
    paths: Paths
    title: str = "AppArmor"

    @property
    def _profiles(self) -> Path:
        return self.machine.at(confinement.PROFILES)

    def lacks(self) -> list[str]:
        """See Step."""
        return [
            f"{confinement.PROFILES}/local/{file.name} lacks the directories of the server"
            for file in confinement.missing(self.paths, self._profiles)
        ]

    def apply(self) -> None:
        """See Step."""
        confinement.allow(self.paths, self._profiles, enforced=self._enforced())

    def undo(self) -> None:
        """See Step."""
        confinement.withdraw(self.paths, self._profiles, enforced=self._enforced())

    def _enforced(self) -> bool:
        return self.machine.has_systemd and confinement.is_enforced()


@dataclass(frozen=True)
class EnabledStep:
    """A unit of Debian that the server relies on starts at boot, and runs."""

    machine: Machine
    unit: str
    title: str

    @property
    def _own_name(self) -> str:
        """The name of the unit itself: systemd calls another name of it enabled, always."""
        for place in ("/usr/lib/systemd/system", "/lib/systemd/system"):
            file = self.machine.at(f"{place}/{self.unit}")
            if file.is_symlink():
                return file.readlink().name
        return self.unit

    def _is(self, what: str) -> bool:
        return self.machine.succeeds("systemctl", "--quiet", what, self._own_name)

    def lacks(self) -> list[str]:
        """See Step."""
        found = []
        if not self._is("is-enabled"):
            found.append(f"{self.unit} does not start at boot")
        if self.machine.has_systemd and not self._is("is-active"):
            found.append(f"{self.unit} does not run")
        return found

    def apply(self) -> None:
        """See Step."""
        if not self._is("is-enabled"):
            self.machine.run("systemctl", "--quiet", "enable", self._own_name)
        if self.machine.has_systemd and not self._is("is-active"):
            self.machine.run("systemctl", "start", self._own_name)

    def undo(self) -> None:
        """It stays: others may use it by now."""


@dataclass(frozen=True)
class ServerStep:
    """The server starts at boot, and runs as it was installed and configured last.

    `sources` are files whose change asks for a restart, which keeps the nodes.
    """

    machine: Machine
    sources: Sequence[Path]
    title: str = "the server"

    def _enabled(self) -> bool:
        return self.machine.succeeds("systemctl", "--quiet", "is-enabled", UNIT)

    def _active(self) -> bool:
        return self.machine.succeeds("systemctl", "--quiet", "is-active", UNIT)

    def _older(self) -> list[Path]:
        """Return the files that changed after the server was started."""
        told = self.machine.run(
            "systemctl", "show", "--timestamp=unix", "--property=ExecMainStartTimestamp",
            "--value", UNIT,
        ).strip()
        started = int(told[1:]) if told[:1] == "@" and told[1:].isdigit() else 0
        return [
            source for source in self.sources
            if self.machine.at(source).exists()
            and int(self.machine.at(source).stat().st_mtime) > started
        ]

    def lacks(self) -> list[str]:
        """See Step."""
        found = [] if self._enabled() else [f"{UNIT} does not start at boot"]
        if self.machine.has_systemd:
            if not self._active():
                found.append(f"{UNIT} does not run")
            else:
                found += [
                    f"{UNIT} runs since before {source} was changed" for source in self._older()
                ]
        return found

    def apply(self) -> None:
        """See Step; returns when the server is ready."""
        if not self._enabled():
            self.machine.run("systemctl", "--quiet", "enable", UNIT)
        if not self.machine.has_systemd:
            return
        if not self._active():
            self._do("start")
        elif self._older():
            self._do("restart")

    def _do(self, what: str) -> None:
        try:
            self.machine.run("systemctl", what, UNIT)
        except WaltError as error:
            words = self.machine.programs.call(
                ("journalctl", "--no-pager", "--output=cat", "--lines=5", f"--unit={UNIT}"), {}
            ).output
            raise type(error)(f"{error}\n{words.strip()}") from None

    def undo(self) -> None:
        """See Step."""
        if self.machine.has_systemd and self._active():
            self.machine.run("systemctl", "stop", UNIT)
        if self._enabled():
            self.machine.run("systemctl", "--quiet", "disable", UNIT)
