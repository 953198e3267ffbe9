"""ssh children whose input and output belong to a client."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet import main
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.server.adapters.ssh.bound import bound, on_terminal
from walt.server.adapters.ssh.options import device_command
from walt.server.domain.nodes.sessions import ISession, ISessions, Terminal
from walt.server.runtime.process import Launcher, Network, environment, exit_status, give
from walt.server.runtime.producing import Pace
from walt.server.runtime.reactors import IReactor

PIPE_SIZE = 1 << 20
READ_SIZE = 1 << 18


class _Child(ProcessProtocol):
    def __init__(
        self, output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> None:
        self._output = output
        self._errors = errors
        self._ended = ended

    def outReceived(self, data: bytes) -> None:
        self._output(data)

    def errReceived(self, data: bytes) -> None:
        self._errors(data)

    def processEnded(self, reason: Failure) -> None:
        self._ended(exit_status(reason))


@implementer(ISession)
class _Session:
    def __init__(self, child: _Child, transport: Any, terminal: bool) -> None:
        self._child = child
        self._transport = transport
        self._terminal = terminal

    def write(self, data: bytes) -> None:
        """Give input."""
        give(self._transport, data)

    def end_of_input(self) -> None:
        """No more input; on a terminal that is the key ctrl-D."""
        if self._terminal:
            self._transport.write(b"\x04")
        else:
            if 0 in self._transport.pipes:
                self._transport.pipes[0].unregisterProducer()
            self._transport.closeStdin()

    def throttle(self, client: Any) -> None:
        """Slow the client down to the pace of the program."""
        writer = self._transport if self._terminal else self._transport.pipes.get(0)
        if writer is not None:
            # The end of the program's input does not end the client.
            writer.registerProducer(Pace(client.pauseProducing, client.resumeProducing), True)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the pseudo-terminal."""
        if self._terminal:
            set_size(self._transport.fd, rows, columns)

    def _readers(self) -> list[Any]:
        if self._terminal:
            return [self._transport]
        return [pipe for fd, pipe in self._transport.pipes.items() if fd in (1, 2)]

    def pause(self) -> None:
        """Stop reading output."""
        for reader in self._readers():
            reader.stopReading()

    def resume(self) -> None:
        """Read output again."""
        for reader in self._readers():
            with contextlib.suppress(OSError, AttributeError):
                reader.startReading()

    def close(self) -> None:
        """End the program."""
        if self._transport.pid:
            with contextlib.suppress(Exception):
                self._transport.signalProcess("KILL")
        self._transport.loseConnection()  # others may hold the ends of its pipes


def _widen(transport: Any) -> None:
    """Make the pipes of a program wide: Twisted reads 8 KiB at a time, archives want more."""
    for number, pipe in transport.pipes.items():
        with contextlib.suppress(OSError):  # the user's limit of pipe memory is reached
            fcntl.fcntl(pipe.fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        if number != 0:
            pipe.doRead = partial(_read, pipe)


def _read(pipe: Any) -> Exception | None:
    """Read as ProcessReader.doRead does."""
    try:
        data = os.read(pipe.fd, READ_SIZE)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return main.CONNECTION_LOST
    if not data:
        return main.CONNECTION_DONE
    pipe.dataReceived(data)
    return None


def set_size(descriptor: int, rows: int, columns: int) -> None:
    """Set the window size of a terminal (tty_ioctl(4))."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@implementer(ISessions)
class SshSessions:
    """Runs the ssh client, with these options towards nodes."""

    def __init__(self, reactor: IReactor, launcher: Launcher, options: Sequence[str]) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._options = options

    def node_command(
        self, ip: str, command: str, *, node_terminal: bool, terminal: Terminal | None,
        output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Run a command on a node as root."""
        argv = ["ssh", *self._options]
        with_terminal = node_terminal and terminal is not None
        if with_terminal:
            argv.append("-t")  # which ends what runs on it
        argv += [f"root@{ip}"]
        if command:
            argv += ["--", on_terminal(command) if with_terminal else bound(command)]
        return self._session(argv, terminal, _Child(output, errors, ended))

    def _session(
        self, argv: Sequence[str], terminal: Terminal | None, child: _Child,
        network: Network = "walt",
    ) -> ISession:
        full = self._launcher.command(argv, network=network, new_session=terminal is None)
        env = environment({"TERM": terminal.term} if terminal is not None else None)
        if terminal is None:
            transport = self._reactor.spawnProcess(child, full[0], full, env)
            _widen(transport)
            return _Session(child, transport, False)
        with_terminal: Any = self._reactor.spawnProcess(child, full[0], full, env, usePTY=True)
        set_size(with_terminal.fd, terminal.rows, terminal.columns)
        return _Session(child, with_terminal, True)

    def ping(
        self, ip: str, *, output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Ping an address ten times, eleven seconds at most."""
        full = self._launcher.command(["ping", "-c", "10", "-w", "11", ip])
        child = _Child(output, errors, ended)
        return _Session(
            child, self._reactor.spawnProcess(child, full[0], full, environment()), False
        )

    def program(
        self, argv: Sequence[str], *, terminal: Terminal | None,
        output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Run a program of the server, on the host's network."""
        return self._session(argv, terminal, _Child(output, errors, ended), "host")

    def device_shell(
        self, ip: str, user: str, *, terminal: Terminal | None,
        output: Callable[[bytes], None], errors: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> ISession:
        """Open a shell on an unmanaged device: passwords allowed, host key not remembered."""
        argv = device_command(ip, user)
        return self._session(argv, terminal, _Child(output, errors, ended))
