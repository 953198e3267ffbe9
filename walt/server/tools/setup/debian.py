"""Steps about Debian: its packages, accounts, and the services that packages bring."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from walt.common.errors import CommandFailed, Unavailable
from walt.server.tools.setup.machine import Machine, Memory, release

# What a server needs; docs/dependencies.md tells what for. scripts/packages.mk has the same list.
PACKAGES = (
    "bind9", "bubblewrap", "buildah", "busybox-static", "dosfstools", "dropbear-bin", "e2fsprogs",
    "git", "iproute2", "iputils-ping", "ipxe", "isc-dhcp-server", "kmod", "lldpd", "mmdebstrap",
    "mount", "nbdkit", "nbdkit-plugin-python", "nftables", "openssh-client", "podman",
    "postgresql", "procps", "ptpd", "qemu-system-x86", "runc", "skopeo", "slirp4netns", "snmpd",
    "tftpd-hpa", "util-linux", "xfsprogs",
)
KERNEL_NFS = ("nfs-kernel-server",)
GANESHA = ("nfs-ganesha", "nfs-ganesha-vfs")
# Units of Debian that need what the server's own daemons need: ports, mostly. Scripts of
# /etc/init.d have units, too (systemd-sysv-generator(8)).
CLASHING = (
    "named.service", "named-resolvconf.service", "isc-dhcp-server.service",
    "isc-dhcp-server6.service", "tftpd-hpa.service", "snmpd.service", "lldpd.service",
    "ptpd.service", "nfs-ganesha.service",
    # It starts a second rpc.statd, which takes the pid file from the one of the kernel's server.
    "nfs-ganesha-lock.service",
)
# Of no use on a server unless somebody had the package before.
BROUGHT = {
    "postgresql": ("postgresql.service",), "openssh-server": ("ssh.service", "ssh.socket"),
}
POLICY = "/usr/sbin/policy-rc.d"  # asked before a package starts its services (Debian policy 9.3)
_NO_STARTS = "#!/bin/sh\n# Written by walt-server-setup while packages are installed.\nexit 101\n"
# Nothing asks: defaults are the answers, beside those that an administrator gave debconf before.
_APT = {
    "DEBIAN_FRONTEND": "noninteractive", "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l",
}
# Another apt may be at work, as that of unattended upgrades is on a machine that has just started.
# Apt itself waits for dpkg's locks alone (apt.conf(5), DPkg::Lock), not for those of its lists and
# its archives.
PATIENCE, PAUSE = 600.0, 5.0  # seconds
_LOCKED = re.compile("Could not get lock|(was|is) locked by another process")
# Without it apt goes on, with status 0, when a mirror is away for a moment.
_ALL_OF_THEM = ("-o", "APT::Update::Error-Mode=any")
SOURCES = "/etc/apt/sources.list.d/walt.sources"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = """\
# Written by walt-server-setup: no other source has what a WalT server needs.
Types: deb
URIs: {mirror}
Suites: {name} {name}-updates
Components: main
{verified}"""
# Nobody's name and password: all may read the file, and the arguments of programs.
_ADDRESS = re.compile(
    r"(https?://[A-Za-z0-9\[][A-Za-z0-9._~:\[\]-]*|file:(//)?(?=/))(/[A-Za-z0-9._~:/-]*)?"
)
_SECURITY = re.compile(r"(?im)^(suites:)(?=.*-security\b).*$")
_KEEP_FILES = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")


def is_mirror(address: str) -> bool:
    """Return whether this may be the address of a mirror of Debian.

    A name and a password have no place in it: they belong into /etc/apt/auth.conf.d.
    """
    return _ADDRESS.fullmatch(address) is not None


def _nowhere(names: Sequence[str]) -> Unavailable:
    return Unavailable(
        f"no source of apt has {', '.join(names)}: see /etc/apt/sources.list and"
        " /etc/apt/sources.list.d, or name a mirror of Debian with --debian-mirror"
    )


def _security_updates(text: str, name: str) -> str:
    """Return the sources of security updates in a file of ours, for the Debian of this name.

    Set-up wrote some before it had an option for the mirror.
    """
    return "".join(
        "\n" + _SECURITY.sub(rf"\1 {name}-security", stanza).strip("\n") + "\n"
        for stanza in re.split(r"\n\s*\n", text) if _SECURITY.search(stanza)
    )


@dataclass(frozen=True)
class PackagesStep:
    """Debian packages are there; what they start does not start.

    `mirror` is the address of a mirror of Debian, for what no source of this machine has;
    another apt that is at work gets `patience` seconds.
    """

    machine: Machine
    memory: Memory
    names: Sequence[str]
    mirror: str | None = None
    sources: str = _SOURCES
    title: str = "Debian packages"
    sleep: Callable[[float], None] = time.sleep
    patience: float = PATIENCE

    def _missing(self) -> list[str]:
        states = self.machine.programs.call(
            ("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *self.names),
            {},
        ).output
        installed = {
            line.split()[0] for line in states.splitlines() if line.endswith(" installed")
        }
        return [name for name in self.names if name not in installed]

    def lacks(self) -> list[str]:
        """See Step."""
        return [f"package {package} is not installed" for package in self._missing()]

    def apply(self) -> None:
        """See Step."""
        missing = self._missing()
        if not missing:
            return
        self.memory.add_packages(missing)
        # As long as another apt is at work its services start: they are none of ours.
        self._update()
        policy = self.machine.at(POLICY)
        kept = policy.with_name("policy-rc.d.walt-kept")
        ours = self.machine.read(POLICY) == _NO_STARTS
        if policy.exists() and not ours:
            shutil.copy2(policy, kept)
        try:
            self.machine.write(POLICY, _NO_STARTS, 0o755)
            # An installation that was cut is finished first; it is none of ours if it cannot be.
            with suppress(CommandFailed):
                self._waiting("dpkg", "--configure", "-a", "--force-confold")
            with self._found(missing):
                self._waiting(
                    "apt-get", "install", "--yes", "--no-install-recommends",
                    "-o", f"DPkg::Lock::Timeout={self.patience:.0f}", *_KEEP_FILES, *missing,
                )
        finally:
            self._restore()

    def _waiting(self, *argv: str) -> None:
        """Run apt or dpkg, again when another one is at work. Raises CommandFailed."""
        for _ in range(round(self.patience / PAUSE)):
            try:
                self.machine.run(*argv, env=_APT)
                return
            except CommandFailed as error:
                if _LOCKED.search(str(error)) is None:
                    raise
            self.sleep(PAUSE)
        self.machine.run(*argv, env=_APT)

    def _update(self) -> None:
        """Have apt read what its sources have. Raises CommandFailed, Unavailable."""
        ours = self.machine.at(SOURCES)
        try:
            self._waiting("apt-get", "update")
        except CommandFailed:
            if not ours.exists():
                raise
            # It may be what is wrong: an earlier set-up wrote it, beside other sources.
            ours.unlink()
            self._waiting("apt-get", "update")

    @contextmanager
    def _found(self, names: Sequence[str]) -> Iterator[None]:
        """Have apt know where these are; the mirror is added where it does not.

        Sources of the site stay as they are. Ours goes when it does not help. Raises
        Unavailable, CommandFailed.
        """
        unknown = self._unknown(names)
        if not unknown:
            yield
            return
        self._insist(unknown, "and not all sources could be read")
        unknown = self._unknown(unknown)
        if not unknown:
            yield
            return
        if self.mirror is None:
            raise _nowhere(unknown)
        before, name = self.machine.read(SOURCES), release(self.machine)
        self.machine.write(SOURCES, self.sources.format(
            mirror=self.mirror, name=name, verified=self._verified(self.mirror)
        ) + _security_updates(before or "", name))
        try:
            self._insist(unknown, f"and {self.mirror} cannot be added to them")
            unknown = self._unknown(unknown)
            if unknown:
                raise _nowhere(unknown)
            yield
        except BaseException:
            if before is None:
                self.machine.at(SOURCES).unlink(missing_ok=True)
            else:
                self.machine.write(SOURCES, before)
            raise

    def _insist(self, names: Sequence[str], why: str) -> None:
        """Have all sources read. Raises CommandFailed that says which packages are not known."""
        try:
            self._waiting("apt-get", "update", *_ALL_OF_THEM)
        except CommandFailed as error:
            raise CommandFailed(
                f"no source of apt has {', '.join(names)}, {why}: {error}"
            ) from None

    def _verified(self, mirror: str) -> str:
        """Return the line that says by what keys the packages are verified, or nothing.

        That of the sources which name this mirror already: apt reads none of its sources where
        two of one place differ in this.
        """
        directory = self.machine.at("/etc/apt/sources.list.d")
        files = ["/etc/apt/sources.list", *(
            f"/etc/apt/sources.list.d/{path.name}" for path in sorted(directory.glob("*"))
        )]
        keys = KEYRING
        # However it is reached, and with a slash at its end or without.
        named = re.compile(re.escape(mirror.partition(":")[2].rstrip("/")) + r"/?(\s|$)")
        for file in files:
            if file == SOURCES:
                continue
            lines = [line for line in (self.machine.read(file) or "").splitlines()
                     if not line.lstrip().startswith("#")]
            text = "\n".join(lines)
            for stanza in text.split("\n\n") if file.endswith(".sources") else lines:
                if named.search(stanza):
                    found = re.search(r"(?i)\bsigned-by[ \t]*[:=][ \t]*([^\s\]]+)", stanza)
                    keys = found[1] if found is not None else ""
        return f"Signed-By: {keys}\n" if keys else ""

    def _unknown(self, names: Sequence[str]) -> list[str]:
        """Return those of some packages that no source has."""
        known, package = set(), ""
        for line in self.machine.run("apt-cache", "policy", *names).splitlines():
            if not line.startswith(" "):
                package = line.rstrip(":")
            elif line.startswith("  Candidate: ") and not line.endswith(" (none)"):
                known.add(package)
        return [name for name in names if name not in known]

    def _restore(self) -> None:
        policy = self.machine.at(POLICY)
        kept = policy.with_name("policy-rc.d.walt-kept")
        if kept.exists():
            kept.replace(policy)
        else:
            policy.unlink(missing_ok=True)

    def undo(self) -> None:
        """Packages stay: others may use them by now. A source of ours goes."""
        self.machine.at(SOURCES).unlink(missing_ok=True)


@dataclass(frozen=True)
class AccountsStep:
    """System accounts, which own nothing but their files, and groups."""

    machine: Machine
    accounts: Sequence[str]
    groups: Sequence[str]
    title: str = "accounts"

    def _missing(self, kind: str, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self.machine.succeeds("getent", kind, name)]

    def lacks(self) -> list[str]:
        """See Step."""
        return [
            *(f"account {account} is missing"
              for account in self._missing("passwd", self.accounts)),
            *(f"group {group} is missing" for group in self._missing("group", self.groups)),
        ]

    def apply(self) -> None:
        """See Step."""
        for account in self._missing("passwd", self.accounts):
            self.machine.run(
                "useradd", "--system", "--user-group", "--no-create-home", "--home-dir",
                "/nonexistent", "--shell", "/usr/sbin/nologin", account,
            )
        for group in self._missing("group", self.groups):
            self.machine.run("groupadd", "--system", group)

    def undo(self) -> None:
        """They stay: files belong to them, and people are members."""


@dataclass(frozen=True)
class DebianServicesStep:
    """Services of Debian's packages neither run nor start at the next boot."""

    machine: Machine
    memory: Memory
    title: str = "services of Debian"

    def _units(self) -> list[str]:
        brought = self.memory.packages()
        return [*CLASHING, *(
            unit for package, units in BROUGHT.items() if package in brought for unit in units
        )]

    def _enabled(self) -> list[str]:
        # One at a time: a script of /etc/init.d answers in its own way.
        return [
            unit for unit in self._units()
            if self.machine.succeeds("systemctl", "--quiet", "is-enabled", unit)
        ]

    def _active(self) -> list[str]:
        if not self.machine.has_systemd:
            return []
        return [
            unit for unit in self._units()
            if self.machine.succeeds("systemctl", "--quiet", "is-active", unit)
        ]

    def lacks(self) -> list[str]:
        """See Step."""
        return [
            *(f"{service} starts at boot" for service in self._enabled()),
            *(f"{service} runs" for service in self._active()),
        ]

    def apply(self) -> None:
        """See Step."""
        # At once: systemd reads all units again each time, which takes a slow machine long.
        enabled, active = self._enabled(), self._active()
        if enabled:
            self.machine.run("systemctl", "--quiet", "disable", *enabled)
        if active:
            self.machine.run("systemctl", "stop", *active)

    def undo(self) -> None:
        """They stay off: whether somebody wants them is not known."""
