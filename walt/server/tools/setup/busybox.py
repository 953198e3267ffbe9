"""The server on a machine whose first process is init of busybox: `--init-system BUSYBOX`.

For images of small systems and containers. Init reads /etc/inittab when the machine starts and
at SIGHUP, and starts the server again whenever it ends. Without that table it does what
`DEFAULTS` says, so that a table of ours has these lines, too.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import Unavailable
from walt.server.config.model import ServerConfig
from walt.server.runtime.child import process_start, recorded_process
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.steps import OwnFile

INITTAB = "/etc/inittab"
RECORD = "/run/walt-server-run.pid"  # process and start time of the server
PATIENCE, PAUSE = 180.0, 0.5  # seconds until the server has ended, or runs
_BEGIN, _END = "# walt-server-setup: begin", "# walt-server-setup: end"
_RUN = "/sbin/walt-server-run"
_RESPAWN = "::respawn:"
_HEAD = "# What init of busybox does where there is no table, written by walt-server-setup."
# init/init.c of busybox, parse_inittab(), as its example of an inittab tells them.
DEFAULTS = (
    _HEAD,
    "::sysinit:/etc/init.d/rcS",
    "::askfirst:-/bin/sh", "tty2::askfirst:-/bin/sh", "tty3::askfirst:-/bin/sh",
    "tty4::askfirst:-/bin/sh",
    "::ctrlaltdel:reboot",
    "::shutdown:swapoff -a", "::shutdown:umount -a -r",
    "::restart:init",
)


def script(prefix: str, programs: Path, config: Path) -> OwnFile:
    """Return what init runs; all else is in `init_run`: server.env is no shell script."""
    return OwnFile(f"{prefix}{_RUN}", (
        "#!/bin/sh\n# Written by walt-server-setup: what init runs.\n"
        f"exec {shlex.quote(str(programs))}/python3 -I -m walt.server.tools.init_run"
        f" --config {shlex.quote(str(config))}\n"
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


def is_set_up(machine: Machine, prefix: str) -> bool:
    """Tell whether init of a machine starts a server, or did before it was stopped by us."""
    return machine.read(f"{prefix}{_RUN}") is not None or any(
        line == _BEGIN or (line.startswith(_RESPAWN) and line.endswith(_RUN))
        for line in (machine.read(INITTAB) or "").splitlines()
    )


def runs(machine: Machine) -> bool:
    """Tell whether init of busybox runs this machine; in an image, or a tree of files, it does not.
    """
    first = machine.at("/proc/1")
    try:
        return (first / "exe").readlink().name == "busybox" \
            and os.path.samefile(first / "root", machine.at("/"))
    except OSError:
        return False


@dataclass(frozen=True)
class InittabStep:
    """Init starts `program`; other lines of its table stay."""

    machine: Machine
    program: str
    title: str = "init of busybox"

    def _others(self) -> list[str]:
        """Return the lines of others: each of ours is known by itself, wherever it stands."""
        found, after_begin = [], False
        for line in (self.machine.read(INITTAB) or "").splitlines():
            ours = line in (_BEGIN, _END) or line == f"{_RESPAWN}{self.program}" \
                or (after_begin and line.startswith(_RESPAWN) and line.endswith(_RUN))
            if not ours:
                found.append(line)
            after_begin = line == _BEGIN
        return found

    def _wanted(self) -> str:
        others = self._others()
        if not any(line.strip() and not line.lstrip().startswith("#") for line in others):
            others += [line for line in DEFAULTS if line not in others]
        return "\n".join([*others, _BEGIN, f"{_RESPAWN}{self.program}", _END]) + "\n"

    def lacks(self) -> list[str]:
        """See Step."""
        wrong = self.machine.read(INITTAB) != self._wanted()
        return [f"{INITTAB} does not start {self.program}"] if wrong else []

    def apply(self) -> None:
        """See Step."""
        self.machine.write(INITTAB, self._wanted())
        self._reread()

    def undo(self) -> None:
        """Take our lines out; a table that had no others goes."""
        others, text = self._others(), self.machine.read(INITTAB)
        if text is None:
            return
        left = "\n".join(others) + "\n" if others and others != [*DEFAULTS] else None
        if left is None:
            self.machine.at(INITTAB).unlink()
        elif left != text:
            self.machine.write(INITTAB, left)
        self._reread()

    def _reread(self) -> None:
        if runs(self.machine):
            self.machine.run("kill", "-HUP", "1")


@dataclass(frozen=True)
class InitServer:
    """The server of such a machine (see downtime.Server): init starts it while its line stands."""

    machine: Machine
    table: InittabStep
    sleep: Callable[[float], None] = time.sleep

    def pid(self) -> int | None:
        """Return the process that init has started, None if there is none."""
        return recorded_process(self.machine.at(RECORD)) if runs(self.machine) else None

    def runs(self) -> bool:
        """See Server."""
        return self.pid() is not None

    def stop(self) -> None:
        """See Server."""
        self.table.undo()
        self._end("TERM", lambda: self.pid() is None)

    def start(self) -> None:
        """See Server."""
        self.table.apply()
        self._wait(self.runs, "did not start")

    def restart(self) -> None:
        """End it so that its nodes wait for the next one, which init starts."""
        before = self.pid()
        self._end("USR2", lambda: self.pid() not in (None, before))

    def switch_off(self) -> None:
        """See Server."""
        self.table.undo()

    def _end(self, signal_name: str, done: Callable[[], bool]) -> None:
        told: set[int] = set()

        def ended() -> bool:
            # Init may have started it once more before it read its table.
            pid = self.pid()
            if pid is not None and not done() and pid not in told:
                told.add(pid)
                self.machine.run("kill", f"-{signal_name}", str(pid))
            return done()

        self._wait(ended, "did not end")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        for _ in range(round(PATIENCE / PAUSE)):
            if done():
                return
            self.sleep(PAUSE)
        if not done():
            raise Unavailable(f"the server {what} within {PATIENCE:g} s: see its log")


@dataclass(frozen=True)
class InitServerStep:
    """The server runs as it was installed and configured last, where init runs the machine.

    `sources` are files whose change asks for a restart, which keeps the nodes.
    """

    server: InitServer
    sources: Sequence[Path]
    title: str = "the server"

    def _older(self, pid: int) -> list[Path]:
        machine = self.server.machine
        began = _began(pid)
        return [
            source for source in self.sources
            if machine.at(source).exists() and int(machine.at(source).stat().st_mtime) > began
        ]

    def lacks(self) -> list[str]:
        """See Step."""
        if not runs(self.server.machine):
            return []
        pid = self.server.pid()
        if pid is None:
            return ["the server does not run"]
        return [f"the server runs since before {source} was changed" for source in self._older(pid)]

    def apply(self) -> None:
        """See Step; returns when init has started the server."""
        if not self.lacks():
            return
        if self.server.runs():
            self.server.restart()
        else:
            self.server.start()

    def undo(self) -> None:
        """See Step."""
        if self.server.runs():
            self.server.stop()


def _began(pid: int) -> float:
    """Return when a process was started, in seconds since 1970 (proc(5): btime, starttime)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) + process_start(pid) / os.sysconf("SC_CLK_TCK") + 1
    return 0.0
