"""A reactor whose children are driven by the test."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

FIRST_PID = 1 << 23  # above any that Linux gives (proc(5), pid_max): nobody real is signalled


class FakeProcess:
    """The transport of one child: what it was told, and `end` to let it end."""

    def __init__(
        self, pid: int, protocol: Any, argv: Sequence[str], env: Mapping[str, str]
    ) -> None:
        self.pid: int | None = pid
        self.protocol = protocol
        self.argv = list(argv)
        self.env = dict(env)
        self.signals: list[str] = []
        self.written = b""
        self.stdin_closed = False

    def signalProcess(self, sent: str | int) -> None:
        """Note the name of a signal; as Twisted does, take only five of them by name."""
        if isinstance(sent, str) and sent not in ("HUP", "STOP", "INT", "KILL", "TERM"):
            raise TypeError(f"{sent} is no number")
        name = sent if isinstance(sent, str) else signal.Signals(sent).name.removeprefix("SIG")
        self.signals.append(name)

    def write(self, data: bytes) -> None:
        """Note input."""
        self.written += data

    def closeStdin(self) -> None:
        """Note the end of input."""
        self.stdin_closed = True

    def end(self, status: int = 0, signal: int | None = None) -> None:
        """The child ends."""
        self.pid = None
        reason = Failure(
            ProcessDone(0) if status == 0 and signal is None
            else ProcessTerminated(status, signal, 0)
        )
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)


class ProcessClock(Clock):
    """A clock that also starts children; `error` is raised by the next spawn."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.error: OSError | None = None

    def spawnProcess(
        self, protocol: Any, executable: str, argv: Sequence[str],
        env: Mapping[str, str] | None = None, path: str | None = None, **options: Any,
    ) -> FakeProcess:
        """Start a child."""
        error, self.error = self.error, None
        if error is not None:
            raise error
        process = FakeProcess(FIRST_PID + len(self.processes), protocol, argv, env or {})
        self.processes.append(process)
        protocol.makeConnection(process)
        return process
