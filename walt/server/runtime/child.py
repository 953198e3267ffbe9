"""Supervised foreground daemons: start, restart with back-off, reload, stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import in_words
from walt.common.files import write_atomic
from walt.server.runtime.kept import LONGEST_REASON, ChildSpec, Kept, last_words
from walt.server.runtime.process import Launcher, environment, exit_status
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.waiting import Waiters

# Who runs a child says how by a ChildSpec: it is had here, too.
__all__ = (
    "ChildService", "ChildSpec", "end_left_over", "process_start", "recorded_process",
    "signal_number", "with_parent",
)

_log = Logger()

PIPES_LIMIT = 2.0  # seconds until a stopped daemon's pipes are given up
LAST_LINES = 20  # of a daemon's output that are kept to tell why it ended


class _Watched(ProcessProtocol):
    def __init__(
        self, on_line: Callable[[str], None], on_end: Callable[[Failure], None]
    ) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.group = 0  # the process group of the daemon and of those it starts
        self.closed: Deferred[None] = Deferred()  # fires when nobody holds the pipes any more
        self._partial: dict[int, bytes] = {}  # by descriptor: their lines do not mix

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, partial = (self._partial.get(childFD, b"") + data).split(b"\n")
        if len(partial) > 65536:
            lines, partial = [*lines, partial], b""
        self._partial[childFD] = partial
        for line in lines:
            text = line.decode(errors="replace")
            if text.strip():
                self.last_lines.append(text.strip()[:LONGEST_REASON])
            self._on_line(text)

    def processExited(self, reason: Failure) -> None:
        # A grandchild may hold the pipes: act when the daemon itself is gone.
        self._on_end(reason)

    def processEnded(self, reason: Failure) -> None:
        if not self.closed.called:
            self.closed.callback(None)


class ChildService(Kept):
    """Keep one foreground daemon running, as a child process.

    `reactor` gives spawnProcess, callLater and seconds; `launcher` says how
    programs are started; `pid_file`, when given, records pid and start time
    so that a left-over can be ended by the next server. `prepare` is called before
    each start, to write the files that the daemon reads; `explain` makes a few words
    of the last lines that it wrote before it ended with an error.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, spec: ChildSpec, *,
        on_line: Callable[[str], None] | None = None, pid_file: Path | None = None,
        on_restart: Callable[[int], None] | None = None,
        explain: Callable[[Sequence[str]], str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(reactor, spec, on_line=on_line, on_restart=on_restart)
        self._reactor = reactor
        self._launcher = launcher
        self._explain = explain or last_words
        self._prepare = prepare
        self._pid_file = pid_file
        self._child: _Watched | None = None
        self._gone: Waiters[None] = Waiters()
        self._stopping_for_restart = False

    @property
    def alive(self) -> bool:
        """See Kept."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """See Kept."""
        child = self._child
        return child.transport.pid if child is not None and child.transport else None

    def startService(self) -> None:
        """Start the daemon."""
        super().startService()
        self._spawn()

    def _spawn(self) -> None:
        self._pause = None
        self._stopping_for_restart = False
        self._born = self._reactor.seconds()
        if self._prepare is not None:
            self._prepare()
        spec = self.spec
        argv = self._launcher.command(
            with_parent(spec.argv), network=spec.network, death_signal=spec.death_signal,
            credentials=spec.credentials,
        )
        child = _Watched(self._on_line, self._ended)
        self._child = child
        try:
            transport = self._reactor.spawnProcess(
                child, argv[0], argv, environment(spec.env), spec.cwd
            )
        except OSError:
            self._ended(Failure())
            return
        child.group = transport.pid
        self._tell(True)
        self._record(transport.pid)

    def _record(self, pid: int) -> None:
        _log.info("started {child} (pid {pid})", child=self.spec.name, pid=pid)
        if self._pid_file is not None:
            write_atomic(self._pid_file, f"{pid} {process_start(pid)}\n")

    def _ended(self, reason: Failure) -> None:
        child, self._child = self._child, None
        self._last_status = exit_status(reason)
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)
        self._tell(False)
        if not self.running:
            self._last_end(child)
            return
        self._restarts += 1
        if self._stopping_for_restart:
            waiting = self._gone.taken()
            self._spawn()
            waiting.release(None)
            return
        self._note(partial(self._why, self._last_status, child, reason))
        self._back_off(self._last_status)

    def _last_end(self, child: _Watched | None) -> None:
        """Take those with it that the daemon has started, and wait until they are gone."""
        waiting = self._gone.taken()

        def tell(_: object) -> None:
            waiting.release(None)

        if child is None or not child.group:
            tell(None)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.group, signal.SIGKILL)
        # One that has left the group may hold the pipes for long: it is not waited for.
        child.closed.addTimeout(PIPES_LIMIT, self._reactor).addBoth(tell)

    def _why(self, status: int, child: _Watched | None, reason: Failure) -> str:
        """Say why it ended; its last lines may arrive after its end."""
        if reason.check(OSError):
            return f"cannot be started: {in_words(reason.value)}"
        text = f"ended with status {status}"
        words = self._explain(child.last_lines) if child is not None and 0 < status < 128 else ""
        return f"{text}: {words}" if words else text

    def signal(self, name: str) -> bool:
        """Send a signal (`HUP`, `TERM`…) to the daemon; False when it is not running."""
        if self._child is None or self._child.transport is None:
            return False
        self._child.transport.signalProcess(signal_number(name))
        return True

    def reload(self) -> bool:
        """See Kept: its signal for that is HUP."""
        return self.signal("HUP")

    def restart(self) -> Deferred[None]:
        """End the daemon and start it again with the present spec; fires when started."""
        if not self.running:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        if self._child is None:
            self._wait_no_more()
            self._spawn()
            done = Deferred()
            done.callback(None)
            return done
        self._stopping_for_restart = True
        return self._end()

    def _stop(self) -> Deferred[None]:
        if self._child is None:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return self._end()

    def _end(self) -> Deferred[None]:
        first, waiting = not self._gone, self._gone.wait()
        if first:
            self._escalate(self._child, self.spec.stop_signals)
        return waiting

    def _escalate(
        self, child: _Watched | None, signals: Sequence[tuple[str, float]]
    ) -> None:
        if child is None or child is not self._child or not signals:
            return
        (name, patience), rest = signals[0], signals[1:]
        if child.transport is not None and child.transport.pid:
            child.transport.signalProcess(signal_number(name))
        later = self._reactor.callLater(patience, self._escalate, child, rest)
        self._gone.wait().addCallback(lambda _: later.cancel() if later.active() else None)


def signal_number(name: str) -> int:
    """Return the number of a signal (`QUIT`…): Twisted knows the names of five only."""
    return int(signal.Signals[f"SIG{name}"])


def process_start(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot, 0 if it is gone.

    Pid and start time together name a process for ever (proc(5), field 22).
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return int(stat.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def with_parent(argv: Sequence[str]) -> list[str]:
    """Return a vector that runs a program only while this process is its parent.

    A server killed before its new child has set its death signal would leave an
    orphan: nothing signals it any more.
    """
    return ["sh", "-c", 'test "$PPID" = "$0" && exec "$@"', str(os.getpid()), *argv]


def recorded_process(pid_file: Path) -> int | None:
    """Return the pid in a file of ours when that very process still runs, else None.

    A file that the account of a daemon made in its directory says nothing.
    """
    pid, start = _numbers(pid_file)
    return pid if start and process_start(pid) == start else None


def _numbers(pid_file: Path) -> tuple[int, int]:
    """Return the pid and the start time in a file of ours, zeros where there is none."""
    try:
        with open(os.open(pid_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return 0, 0
            pid, start = (int(word) for word in file.read(100).split())
    except (OSError, ValueError):
        return 0, 0
    return pid, start


def end_left_over(pid_file: Path, signal_number: int) -> int | None:
    """Signal the process recorded by a server that died; return its pid, if it lived."""
    pid = recorded_process(pid_file)
    if pid is not None:
        os.kill(pid, signal_number)
        return pid
    for orphan in _orphans(pid_file):
        os.kill(orphan, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)
    return None


def _orphans(pid_file: Path) -> list[int]:
    """Return what is left of the group of a recorded process that is gone itself.

    A sandbox whose outer half is killed while it is being made leaves its inner half, which
    waits for ever. Nobody else has the number of a group as long as one of it lives; those
    that name the directory of the file are ours.
    """
    group, _ = _numbers(pid_file)
    if group < 2 or process_start(group):
        return []
    try:
        os.killpg(group, 0)  # asks the kernel whether there is any; /proc is long to read
    except OSError:
        return []
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        place = Path("/proc", name)
        try:
            fields = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[2]) != group:
                continue
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(pid_file.parent) in words:
            found.append(int(name))
    return found
