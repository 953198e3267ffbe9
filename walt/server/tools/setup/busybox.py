"""The server on a machine whose first process is init of busybox: `--init-system BUSYBOX`.

For images of small systems and containers. Init reads /etc/inittab once, when the machine
starts, and starts the server again whenever it ends. It gives it no environment and no
descriptors limit, so that a script of ours does.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from walt.server.config.model import ServerConfig
from walt.server.tools.setup.files import ENVIRONMENT
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.steps import OwnFile

INITTAB = "/etc/inittab"
_BEGIN, _END = "# walt-server-setup: begin", "# walt-server-setup: end"


def script(prefix: str, programs: Path, config: Path) -> OwnFile:
    """Return what init runs: the server with the environment and the limits of its unit."""
    conf, place = shlex.quote(str(config)), shlex.quote(str(programs))
    return OwnFile(f"{prefix}/sbin/walt-server-run", (
        "#!/bin/sh\n# Written by walt-server-setup: what init runs.\n"
        f"set -a\ntest -e {ENVIRONMENT} && . {ENVIRONMENT}\nset +a\n"
        "ulimit -n 16384\n"
        f"{place}/walt-server-apparmor --config {conf} ||:\n"
        f"exec {place}/walt-server-daemon --config {conf} $DAEMON_ARGS\n"
    ), 0o755)


def problem(config: ServerConfig) -> str | None:
    """Return why a configuration is none for a machine without systemd, None if it is one."""
    if config.services.runner == "systemd":
        return "services.runner: systemd needs systemd: remove the key with --set services.runner="
    if config.services.nfs != "ganesha":
        return (
            "nothing starts the kernel's NFS server on a machine without systemd: add"
            " --set services.nfs=ganesha"
        )
    return None


def is_set_up(machine: Machine) -> bool:
    """Tell whether init of a machine starts a server."""
    return _BEGIN in (machine.read(INITTAB) or "").splitlines()


@dataclass(frozen=True)
class InittabStep:
    """Init starts `program`; other lines of its table stay."""

    machine: Machine
    program: str
    title: str = "init of busybox"

    def _lines(self) -> list[str]:
        """Return the lines of others."""
        found, ours = [], False
        for line in (self.machine.read(INITTAB) or "").splitlines():
            ours = ours or line == _BEGIN
            if not ours:
                found.append(line)
            ours = ours and line != _END
        return found

    def _wanted(self) -> str:
        ours = [_BEGIN, f"::respawn:{self.program}", _END]
        return "\n".join([*self._lines(), *ours]) + "\n"

    def lacks(self) -> list[str]:
        """See Step."""
        wrong = self.machine.read(INITTAB) != self._wanted()
        return [f"{INITTAB} does not start {self.program}"] if wrong else []

    def apply(self) -> None:
        """See Step."""
        self.machine.write(INITTAB, self._wanted())

    def undo(self) -> None:
        """Take our lines out; a table that had no others goes."""
        others = self._lines()
        if others:
            self.machine.write(INITTAB, "\n".join(others) + "\n")
        else:
            self.machine.at(INITTAB).unlink(missing_ok=True)
