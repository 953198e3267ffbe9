"""An upgrade of Debian itself: what is looked at before, what is told, how set-up goes on after.

Apt replaces the Python that this program runs with, so a person upgrades Debian, by the
commands that are told here. A marker in the state directory (spec server §1.10) remembers that
it is under way, until a set-up on the new Debian has come to its end.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import Unavailable
from walt.server.config.model import ServerConfig
from walt.server.tools.setup.database import ClusterStep
from walt.server.tools.setup.downtime import Downtime
from walt.server.tools.setup.machine import Machine

NEXT = {"bookworm": "trixie"}
FORMER = {"buster": "bullseye", "bullseye": "bookworm"}  # what these become, without us
SUPPORTED = ("bookworm", "trixie")
NUMBERS = {"buster": 10, "bullseye": 11, "bookworm": 12, "trixie": 13}
MARKER = ".upgrade"
LEAST_FREE = 4 << 30  # bytes for packages, fetched and unpacked


def refusal(name: str) -> str | None:
    """Return why no server can be on a Debian of this name, and what to do; None: it can."""
    if name in SUPPORTED:
        return None
    runs = f"WalT servers run on Debian {' or '.join(SUPPORTED)}"
    if name not in FORMER:
        return f"this is {name or 'no Debian'}; {runs}"
    way = []
    while name in FORMER:
        way.append(FORMER[name])
        name = FORMER[name]
    steps = ", then ".join(f"Debian {NUMBERS[name]} ({name})" for name in way)
    return (
        f"this is Debian {NUMBERS[_before(way[0])]} ({_before(way[0])}); {runs}. Stop the server,"
        f" copy its database (pg_dump) elsewhere, upgrade to {steps}, by the release notes of"
        " Debian, make a new virtual environment, and call this again: it takes over what WalT 4"
        " to 10 left"
    )


def _before(name: str) -> str:
    return next(before for before, after in FORMER.items() if after == name)


@dataclass(frozen=True)
class Begun:
    """What was done before an upgrade, one sentence each, and the commands to go on by."""

    done: list[str]
    commands: list[str]


@dataclass(frozen=True)
class ReleaseUpgrade:
    """The upgrade of one machine. `name` is the code name of its Debian now."""

    machine: Machine
    config: ServerConfig
    name: str
    downtime: Downtime

    @property
    def _marker(self) -> Path:
        return self.config.paths.state / MARKER

    def begun_on(self) -> str | None:
        """Return the Debian from which an upgrade was begun, None when none is under way."""
        text = self.machine.read(self._marker)
        return None if text is None else (text.split() or [""])[0]

    def problems(self) -> list[str]:
        """Tell what is in the way of an upgrade."""
        machine, found = self.machine, []
        if self.name not in NEXT:
            return [f"this is {self.name}: there is no newer Debian that servers run on"]
        unfinished = machine.run("dpkg", "--audit").strip()
        if unfinished:
            found.append("packages are not wholly installed; see: dpkg --audit")
        held = machine.run("apt-mark", "showhold").split()
        if held:
            found.append(f"packages are kept back ({', '.join(held)}); see: apt-mark unhold")
        for place in ("/", "/var/cache/apt"):
            free = shutil.disk_usage(machine.at(place)).free if machine.at(place).exists() else 0
            if free < LEAST_FREE and machine.at(place).exists():
                found.append(
                    f"{place} has {free >> 20} MiB left; an upgrade wants {LEAST_FREE >> 20}"
                )
        return found

    def begin(self) -> Begun:
        """Stop the server, copy its database, leave the marker; tell what was done, what is next.

        Raises Unavailable with what is in the way: the server runs then, if it did before.
        """
        problems = self.problems()
        if problems:
            raise Unavailable("\n".join(problems))
        machine, new = self.machine, NEXT[self.name]
        with self.downtime.limited(stays_stopped=True):
            about = self._copy(f"walt-before-{new}.dump")
            self.downtime.begin()
            machine.write(self._marker, f"{self.name} {new}\n")
            # Its virtual environment is of no use until it is made anew.
            self.downtime.server.switch_off()
        environment, sources = shlex.quote(sys.prefix), self._sources()
        return Begun(
            [
                "The server is stopped, and does not start with the machine."
                if self.downtime.stopped else
                "No server ran that this machine has started; none starts with it.",
                about,
                *([] if sources else [
                    f"No source of apt names {self.name}: see that they lead to {new}."
                ]),
            ],
            [
                *([f"sed -i 's/{self.name}/{new}/g' {shlex.join(sources)}"] if sources else []),
                "apt update && apt full-upgrade",
                "systemctl reboot" if machine.has_systemd else "reboot",
                f"python3 -m venv --clear {environment} &&"
                f" {environment}/bin/pip install 'WHEEL[server]'  # WHEEL: walt-….whl",
                f"{environment}/bin/walt-server-setup",
            ],
        )

    def _copy(self, name: str) -> str:
        """Copy the database, where it is ours; return what is to be told of it."""
        if self.config.database.mode != "embedded":
            return (
                "Its database is yours (database.mode: external), and was not copied: if it is on"
                " this machine, or has no backup, copy it (pg_dump) before you go on."
            )
        step = ClusterStep(self.machine, self.config.paths, self.downtime)
        copy = step.back_up(name)
        if copy is None:
            return "It has no database yet: nothing was copied."
        return f"Its database is copied to {copy}."

    def _sources(self) -> list[str]:
        """Return the files that name this Debian."""
        directory = self.machine.at("/etc/apt/sources.list.d")
        names = ["/etc/apt/sources.list", *(
            f"/etc/apt/sources.list.d/{path.name}" for path in sorted(directory.glob("*"))
            if path.suffix in (".list", ".sources")
        )]
        return [file for file in names if self.name in (self.machine.read(file) or "")]

    def resume(self) -> str | None:
        """Return what is to be told when set-up is called meanwhile. Raises Unavailable."""
        begun = self.begun_on()
        if begun is None:
            return None
        if begun == self.name:
            return f"Debian is still {self.name}: its upgrade is given up"
        unfinished = self.machine.run("dpkg", "--audit").strip()
        if unfinished or not self.machine.succeeds("apt-get", "--simulate", "-qq", "check"):
            raise Unavailable(
                f"the upgrade of Debian from {begun} to {self.name} is not finished: run dpkg"
                " --configure -a and apt full-upgrade, and call this again"
            )
        return f"Debian was upgraded from {begun} to {self.name}: going on"

    def close(self) -> None:
        """Forget the upgrade: set-up has come to its end."""
        self.machine.at(self._marker).unlink(missing_ok=True)
