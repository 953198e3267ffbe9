"""walt-log-monitor: run a command in a terminal, and log what it prints."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import selectors
import shutil
import signal
import sys
import termios
import time
import tty
from typing import Any, Optional

from walt.node.logs.lines import Lines
from walt.node.logs.links import Link, Wakeup
from walt.node.logs.server import ENVIRONMENT, Address, NoServer, server_address

MAX_PENDING = 4 << 20  # bytes that have not left; above, they are given up, the command goes on
LAST_WORDS = 5.0  # seconds that the last lines have to leave
END_OF_INPUT = b"\x04"
USAGE = """Usage: walt-log-monitor <command> [<argument>...]
Runs the command; what it prints also goes to the log stream <command>.<pid>.monitor."""


class Monitor:
    """The terminal of a command, between ours and the log stream.

    `terminal` is the descriptor of our own terminal, None when the input is none.
    """

    def __init__(self, argv: list[str], address: Address, terminal: Optional[int]) -> None:
        self._argv = argv
        self._terminal = terminal
        self._selector = selectors.DefaultSelector()
        self._lines = Lines()
        self._address = address
        self._lost = 0

    def run(self) -> int:
        """Run the command to its end; return its exit status, as a shell tells it."""
        wakeup = Wakeup()
        signal.signal(signal.SIGCHLD, lambda *_: wakeup.wake())
        pid, self._master = pty.fork()
        if pid == 0:
            _become(self._argv)
        name = os.path.basename(self._argv[0])
        self._link = Link(f"{name}.{pid}.monitor".encode(), self._address, self._selector)
        self._resize()
        signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: _pass_on(pid, number))
        self._selector.register(wakeup, selectors.EVENT_READ)
        self._selector.register(self._master, selectors.EVENT_READ, self._from_command)
        self._selector.register(0, selectors.EVENT_READ, self._from_user)
        self._log(b"START")
        saved = self._raw()
        try:
            status = self._until_end(pid)
        finally:
            if saved is not None and self._terminal is not None:
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, saved)
        self._finish()
        return status

    def _until_end(self, pid: int) -> int:
        """Serve both sides until the command has ended and all that it printed is read."""
        while True:
            self._turn()
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                while self._from_command():
                    pass
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8

    def _turn(self) -> None:
        for key, events in self._selector.select(0.5):
            if isinstance(key.data, Link):
                key.data.ready(events)
            elif key.data is None:
                key.fileobj.clear()  # type: ignore[union-attr]
            else:
                key.data()
        self._link.tick()

    def _from_command(self) -> bool:
        """Show and log what the command printed; tell whether there was something."""
        try:
            if not _readable(self._master):
                return False
            data = os.read(self._master, 65536)
        except OSError:
            data = b""  # nobody holds the other side any more
        if not data:
            if self._master in self._selector.get_map():
                self._selector.unregister(self._master)
            return False
        _write(1, data)
        for stamp, line in self._lines.feed(data, time.time()):
            self._log(line, stamp)
        return True

    def _from_user(self) -> None:
        data = os.read(0, 4096)
        if not data:
            self._selector.unregister(0)
        _write(self._master, data or END_OF_INPUT)

    def _log(self, line: bytes, stamp: Optional[float] = None) -> None:
        if self._link.pending < MAX_PENDING:
            self._link.log(time.time() if stamp is None else stamp, line)
        else:
            self._lost += 1

    def _finish(self) -> None:
        for stamp, line in self._lines.rest():
            self._log(line, stamp)
        self._log(b"END")
        for descriptor in (0, self._master):
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
        self._link.close()
        limit = time.monotonic() + LAST_WORDS
        while not self._link.closed and time.monotonic() < limit:
            self._turn()
        if self._lost or not self._link.closed:
            print("walt-log-monitor: the server did not take all lines", file=sys.stderr)
        self._link.drop()

    def _raw(self) -> Any:
        if self._terminal is None:
            return None
        saved = termios.tcgetattr(self._terminal)
        tty.setraw(self._terminal)
        return saved

    def _resize(self) -> None:
        if self._terminal is None:
            return
        size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, b"\0" * 8)
        try:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # the command has just ended


def _become(argv: list[str]) -> None:
    """Be the command, in the child; its terminal does not print ctrl-C as ^C into the log."""
    try:
        settings = termios.tcgetattr(0)
        settings[3] &= ~termios.ECHOCTL
        termios.tcsetattr(0, termios.TCSANOW, settings)
        os.execvp(argv[0], argv)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        os.write(2, f"walt-log-monitor: {argv[0]}: {error.strerror}\r\n".encode())
    os._exit(126)


def _pass_on(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass  # it has just ended


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data):]
        except OSError:
            return  # nobody reads any more


def run() -> None:
    """Run the command of the command line."""
    argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if argv else sys.stderr)
        sys.exit(0 if argv else 2)
    if shutil.which(argv[0]) is None:
        print(f"walt-log-monitor: {argv[0]}: no such command", file=sys.stderr)
        sys.exit(127)
    try:
        address = server_address(ENVIRONMENT)
    except NoServer as error:
        sys.exit(f"walt-log-monitor: {error}")
    sys.exit(Monitor(argv, address, 0 if os.isatty(0) else None).run())


def run_deprecated() -> None:
    """Be walt-monitor, the former name."""
    print("Warning: walt-monitor is deprecated, use walt-log-monitor.", file=sys.stderr)
    run()


if __name__ == "__main__":
    run()
