"""Run external programs without blocking the reactor.

Every child starts behind ``setpriv --pdeathsig``, so that a killed server
leaves no orphan. When the server lives in a network namespace, programs that
need the host's network are started through ``nsenter --net``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.reactors import IReactor
from walt.server.trackexec import VARIABLE

Network = Literal["walt", "host"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# From /etc/walt/server.env (spec server §8.3): proxies, and where credentials for
# registries are (containers-auth.json(5), docker login).
PASSED_ON = (*(
    form(name) for name in ("http_proxy", "https_proxy", "no_proxy")
    for form in (str.lower, str.upper)
), "REGISTRY_AUTH_FILE", "DOCKER_CONFIG")
OWN_CODE = ("PYTHONPATH", VARIABLE)
MAX_OUTPUT = 64 * 1024 * 1024


class ProcessResult(NamedTuple):
    """How a program ended: exit status (128 + n for signal n) and what it wrote."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    def last_words(self) -> str:
        """Return the end of its error output (else of its output), for messages."""
        text = (self.stderr or self.stdout).decode(errors="replace").strip()
        return "\n".join(text.splitlines()[-8:])[-1000:]


@dataclass(frozen=True)
class Launcher:
    """Turn the argument vector of a program into the one that is really executed.

    `host_netns` is the path of the host's network namespace when the server
    itself lives in another one (design D13), else None.
    """

    host_netns: str | None = None

    def command(
        self, argv: Sequence[str], *, network: Network = "walt", death_signal: str = "KILL",
        credentials: Sequence[str] = (), new_session: bool = True,
    ) -> list[str]:
        """Return the full vector; `credentials` are extra options for setpriv.

        Children get a session of their own (so that ctrl-C in a terminal ends the
        server alone, which then ends them in order), but for those that already
        lead the session of a pseudo-terminal.
        """
        prefix = ["setsid", "--"] if new_session else []
        if network == "host" and self.host_netns is not None:
            prefix += ["nsenter", f"--net={self.host_netns}", "--"]
        return [
            *prefix, "setpriv", "--pdeathsig", death_signal, *credentials, "--", *argv,
        ]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of children: a fixed PATH and locale, few more, plus `extra`."""
    site = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **site, **(extra or {})}


def own_code() -> dict[str, str]:
    """Return the variables by which Python children import the code of this server, recorded."""
    return {name: os.environ[name] for name in OWN_CODE if name in os.environ}


def exit_status(reason: Failure) -> int:
    """Return the exit status in a processEnded reason, 128 + n for signal n."""
    if reason.check(ProcessDone):
        return 0
    if reason.check(ProcessTerminated):
        value: Any = reason.value
        if value.signal is not None:
            return 128 + int(value.signal)
        return int(value.exitCode or 0)
    return 255


def give(transport: Any, data: bytes) -> None:
    """Give a program bytes of input, if there are any.

    An empty write would make Twisted stop watching its standard input until the next one:
    the end of the program would go unnoticed.
    """
    if data:
        transport.write(data)


class _Collector(ProcessProtocol):
    def __init__(self, stdin: bytes, on_line: Callable[[str], None] | None) -> None:
        self._stdin = stdin
        self._on_line = on_line
        self._partial = {1: b"", 2: b""}  # by descriptor: their lines do not mix
        self._size = 0
        self.out: list[bytes] = []
        self.err: list[bytes] = []
        self.done: Deferred[int] = Deferred(lambda _: self.kill())

    def kill(self) -> None:
        """End the program at once."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        assert self.transport is not None
        give(self.transport, self._stdin)
        self.transport.closeStdin()  # nothing happens when it is a descriptor of the caller

    def _bounded(self, store: list[bytes], data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_OUTPUT:
            store.append(data)

    def outReceived(self, data: bytes) -> None:
        self._bounded(self.out, data)
        self._lines(1, data)

    def errReceived(self, data: bytes) -> None:
        self._bounded(self.err, data)
        self._lines(2, data)

    def _lines(self, descriptor: int, data: bytes) -> None:
        if self._on_line is None:
            return
        whole = (self._partial[descriptor] + data).replace(b"\r", b"\n")
        *lines, self._partial[descriptor] = whole.split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def processEnded(self, reason: Failure) -> None:
        for partial in self._partial.values():
            if partial and self._on_line is not None:
                self._on_line(partial.decode(errors="replace"))
        if not self.done.called:
            self.done.callback(exit_status(reason))


@dataclass
class ProcessRunner:
    """Run programs to their end. `reactor` gives spawnProcess and the clock."""

    reactor: IReactor
    launcher: Launcher = field(default_factory=Launcher)

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0,
        check: bool = True, network: Network = "walt", cwd: str | None = None,
        env: Mapping[str, str] | None = None, credentials: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[int], None] | None = None,
        input_fd: int | None = None, output_fd: int | None = None,
    ) -> ProcessResult:
        """Run one program and return its result.

        `input_fd` and `output_fd` are descriptors of the caller that become its
        standard input and output: a file, or the end of a pipe to another program.

        `timeout` is in seconds; the program is killed when it expires, or when
        the awaiting coroutine is cancelled. `on_line` sees each output line as
        it arrives, `on_start` the process id. Raises CommandFailed for a status
        other than 0 (unless `check` is false) and Unavailable for a program that
        is missing or does not end in time.
        """
        collector = _Collector(stdin, on_line)
        full = self.launcher.command(argv, network=network, credentials=credentials)
        descriptors: dict[int, Any] = {
            0: "w" if input_fd is None else input_fd,
            1: "r" if output_fd is None else output_fd, 2: "r",
        }
        started = self.reactor.spawnProcess(
            collector, full[0], full, environment(env), cwd, childFDs=descriptors
        )
        if on_start is not None:
            on_start(started.pid)
        timer = self.reactor.callLater(timeout, collector.kill)
        try:
            status = await collector.done
        finally:
            expired = not timer.active()
            if not expired:
                timer.cancel()
        result = ProcessResult(
            tuple(argv), status, b"".join(collector.out), b"".join(collector.err)
        )
        if expired:
            raise Unavailable(f"{argv[0]} did not end within {timeout:g} s")
        if status == 127 and b"failed to execute" in result.stderr:
            raise Unavailable(f"{argv[0]} is not installed on the server")
        if check and status != 0:
            raise CommandFailed(f"{argv[0]} failed (status {status}): {result.last_words()}")
        return result
