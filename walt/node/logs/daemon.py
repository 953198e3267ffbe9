"""walt-logs-daemon: one connection a stream, for all the short-lived walt-log-echo of a node.

Reads requests from a FIFO, /var/lib/walt/logs.fifo, and sends their lines to the server. A
stream that was not used for 15 s is closed. While the server is away, lines are kept; when
there are too many of them, who writes to the FIFO waits.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import stat
import sys
import time
from typing import Callable

from walt.node.logs.lines import Lines
from walt.node.logs.links import Link, Wakeup
from walt.node.logs.requests import BadRequest, parse
from walt.node.logs.server import ENVIRONMENT, Address, NoServer, server_address

FIFO = "/var/lib/walt/logs.fifo"
IDLE = 15.0  # seconds without a line, after which a stream is closed
MAX_PENDING = 4 << 20  # bytes that have not left; above, the FIFO is not read
TICK = 1.0  # seconds
LAST_WORDS = 5.0  # seconds that the streams have to end when the daemon is stopped


def open_fifo(path: str) -> int:
    """Make the FIFO if needed, open it, return its descriptor; anybody may write to it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    if not os.path.exists(path):
        os.mkfifo(path)
    # A FIFO that we also may write to never ends when a writer leaves.
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    os.fchmod(fifo, 0o622)
    return fifo


class LogsDaemon:
    """Forwards lines from a FIFO until `stop`; `clock` gives epoch seconds."""

    def __init__(
        self, fifo: int, address: Address, clock: Callable[[], float] = time.time
    ) -> None:
        self._fifo = fifo
        self._address = address
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup()
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._links: dict[bytes, Link] = {}
        self._ending: list[Link] = []
        self._requests = Lines()
        self._reading = False
        self._stopped = False

    def stop(self) -> None:
        """End `run`; a signal handler may call this."""
        self._stopped = True
        self._wakeup.wake()

    def run(self) -> bool:
        """Forward lines until `stop`; tell whether all of them left."""
        while not self._stopped:
            self._read_or_not()
            self._turn()
        limit = time.monotonic() + LAST_WORDS
        while self._read() and time.monotonic() < limit:
            pass
        self._take(self._requests.rest())
        self._silence()
        for link in self._links.values():
            self._end(link)
        self._links = {}
        while self._ending and time.monotonic() < limit:
            self._turn()
        lost = [link for link in self._ending if link.pending]
        for link in self._ending:
            link.drop()
        return not lost

    def _read_or_not(self) -> None:
        """Leave the FIFO alone while too much is pending."""
        links = [*self._links.values(), *self._ending]
        wanted = sum(link.pending for link in links) < MAX_PENDING
        if wanted and not self._reading:
            self._selector.register(self._fifo, selectors.EVENT_READ)
            self._reading = True
        elif not wanted:
            self._silence()

    def _silence(self) -> None:
        if self._reading:
            self._selector.unregister(self._fifo)
            self._reading = False

    def _turn(self) -> None:
        for key, events in self._selector.select(TICK):
            if isinstance(key.data, Link):
                key.data.ready(events)
            elif key.fileobj is self._wakeup:
                self._wakeup.clear()
            else:
                self._read()
        idle_since = time.monotonic() - IDLE
        for name, link in list(self._links.items()):
            if not link.pending and link.last_used < idle_since:
                del self._links[name]
                self._end(link)
        for link in (*self._links.values(), *self._ending):
            link.tick()
        self._ending = [link for link in self._ending if not link.closed]

    def _end(self, link: Link) -> None:
        link.close()
        self._ending.append(link)

    def _read(self) -> bool:
        """Take what is in the FIFO; tell whether there was something."""
        try:
            data = os.read(self._fifo, 65536)
        except BlockingIOError:
            return False
        self._take(self._requests.feed(data, self._clock()))
        return True

    def _take(self, requests: list[tuple[float, bytes]]) -> None:
        for moment, request in requests:
            if request:
                self._accept(request, moment)

    def _accept(self, request: bytes, moment: float) -> None:
        try:
            stream, stamp, text = parse(request)
        except BadRequest as error:
            shown = request[:80].decode(errors="backslashreplace")
            print(f"{error}: {shown!r}", file=sys.stderr, flush=True)
            return
        link = self._links.get(stream)
        if link is None:
            link = self._links[stream] = Link(stream, self._address, self._selector)
        link.log(moment if stamp is None else stamp, text)


def run() -> None:
    """Run the daemon of the command line until it is told to end."""
    parser = argparse.ArgumentParser(
        prog="walt-logs-daemon", description="Forward log lines of this node to its WalT server."
    )
    parser.add_argument("--fifo", default=FIFO, help="where lines come from (default: %(default)s)")
    parser.add_argument(
        "--environment", default=ENVIRONMENT, help="file that tells the server (%(default)s)"
    )
    options = parser.parse_args()
    try:
        daemon = LogsDaemon(open_fifo(options.fifo), server_address(options.environment))
    except NoServer as error:
        sys.exit(f"walt-logs-daemon: {error}")
    except OSError as error:
        sys.exit(f"walt-logs-daemon: {options.fifo}: {error.strerror}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    try:
        complete = daemon.run()
    finally:
        # Without it, walt-log-echo speaks to the server itself.
        os.unlink(options.fifo)
    if not complete:
        sys.exit("walt-logs-daemon: the server did not take the last lines")


if __name__ == "__main__":
    run()
