"""walt-serial-autolog: log what a board prints on a serial line, as the board itself tells."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import termios
import time

from walt.node.logs.daemon import FIFO
from walt.node.logs.lines import Lines
from walt.node.logs.links import Wakeup
from walt.node.serial.directives import Board, Problem

SETTLE = 0.1  # seconds until what the line held before us has come, to be dropped
TRACES = "/var/log/walt/autolog"
MAX_TRACE = 1 << 20  # bytes; then the file begins again, the last one is kept beside it


class Trace:
    """A file that tells what went in or out; nodes keep such files in memory: it is bounded."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "wb", 0)  # noqa: SIM115 (open as long as the program runs)

    def write(self, data: bytes) -> None:
        """Write bytes at once."""
        if self._file.tell() > MAX_TRACE:
            self._file.close()
            os.replace(self._path, f"{self._path}.old")
            self._file = open(self._path, "wb", 0)  # noqa: SIM115
        self._file.write(data)


class Autolog:
    """Reads one line of a board after the other; writes requests to the FIFO of the daemon."""

    def __init__(self, device: int, fifo: int, traces: str) -> None:
        self._device = device
        self._fifo = fifo
        os.makedirs(traces, exist_ok=True)
        self._in = Trace(os.path.join(traces, "in.log"))
        self._out = Trace(os.path.join(traces, "out.log"))
        self._board = Board()
        self._lines = Lines()

    def read(self) -> bool:
        """Take what the board printed; False when its line is gone."""
        try:
            data = os.read(self._device, 4096)
        except OSError:
            data = b""
        self._in.write(data)
        for stamp, line in self._lines.feed(data, time.time()):
            try:
                record = self._board.line(line.decode(errors="backslashreplace"))
            except Problem as problem:
                print(f"walt-serial-autolog: {problem}", file=sys.stderr, flush=True)
                continue
            if record is not None:
                text = f"TSLOG {stamp:.6f} {record.stream} {record.text}\n"
                print(text, end="", flush=True)
                request = text.encode()
                self._out.write(request)
                os.write(self._fifo, request)
        return bool(data)


def run() -> None:
    """Log the serial line of the command line until it is gone, or until a signal."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("Usage: walt-serial-autolog <serial device>", file=sys.stderr)
        sys.exit(2)
    path = sys.argv[1]
    try:
        device = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    except OSError as error:
        sys.exit(f"walt-serial-autolog: {path}: {error.strerror}")
    try:
        fifo = os.open(FIFO, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        sys.exit(f"walt-serial-autolog: nobody reads {FIFO}; start walt-logs-daemon first")
    os.set_blocking(fifo, True)
    time.sleep(SETTLE)
    try:
        termios.tcflush(device, termios.TCIFLUSH)
    except termios.error:
        pass  # no terminal: a pipe or a file
    wakeup = Wakeup()
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        wakeup.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    autolog = Autolog(device, fifo, TRACES + os.path.abspath(path))
    with selectors.DefaultSelector() as selector:
        selector.register(device, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while not stopped:
            for key, _ in selector.select():
                if key.fileobj == device and not autolog.read():
                    return


if __name__ == "__main__":
    run()
