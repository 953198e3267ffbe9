"""One log stream to the server (spec node-protocols §6.3.1), without ever waiting."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time

from walt.node.logs.server import Address

RETRY_AFTER = 1.0  # seconds from one attempt to connect to the next one


class Link:
    """Sends lines with their times; connects when there are some, and again when it is cut.

    Registers itself with a selector, with itself as data: its owner calls `ready` when the
    selector says so, and `tick` about once a second. Lines whose connection broke before
    they left are sent again, whole.
    """

    def __init__(
        self, stream: bytes, address: Address, selector: selectors.BaseSelector
    ) -> None:
        name = stream.replace(b"\n", b" ")
        self._head = b"REQ_NEW_INCOMING_LOGS\n%s\nTIMESTAMPS_INSIDE\n" % name
        self._address = address
        self._selector = selector
        self._socket: socket.socket | None = None
        self._outgoing = bytearray()  # whole lines, but for the first one, when it left in part
        self._left = b""  # what left of the first line
        self._greeting = b""  # what did not leave of the head
        self._next_attempt = 0.0
        self._closing = False
        self.closed = False
        self.connected = False
        self.last_used = 0.0  # monotonic seconds

    @property
    def pending(self) -> int:
        """How many bytes have not left."""
        return len(self._outgoing)

    def log(self, stamp: float, line: bytes) -> None:
        """Accept a line (no newline in it) with its epoch time."""
        self._outgoing += b"%.6f %s\n" % (stamp, line)
        self.last_used = time.monotonic()
        self.tick()

    def close(self) -> None:
        """End the stream properly when all lines have left; `closed` tells when."""
        if not self._closing:
            self._closing = True
            if self._socket is None and not self._outgoing:
                self.closed = True
                return
            self._outgoing += b"CLOSE\n"
            self.tick()

    def drop(self) -> None:
        """Give up: forget what has not left."""
        self._disconnect()
        self._outgoing.clear()
        self.closed = True

    def tick(self) -> None:
        """Connect, if it is time and there is something to send."""
        now = time.monotonic()
        if self._socket is not None:
            self._watch()
        elif self._outgoing and now >= self._next_attempt:
            self._next_attempt = now + RETRY_AFTER
            self._connect()

    def _connect(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        status = connection.connect_ex(self._address)
        if status not in (0, errno.EINPROGRESS):
            connection.close()
            return
        self._socket = connection
        self._greeting, self._left = self._head, b""
        self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def _watch(self) -> None:
        busy = self._greeting or self._outgoing
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if busy else 0)
        if self._socket is not None:
            self._selector.modify(self._socket, events, self)

    def ready(self, events: int) -> None:
        """Send what the connection takes; notice that the server closed it."""
        try:
            if events & selectors.EVENT_WRITE:
                self._send()
            if events & selectors.EVENT_READ and self._socket and not self._socket.recv(4096):
                self._ended()
        except BlockingIOError:
            pass
        except OSError:
            self._ended()

    def _send(self) -> None:
        connection = self._socket
        if connection is None:
            return
        if self._greeting:
            self._greeting = self._greeting[connection.send(self._greeting):]
            self.connected = True
        elif self._outgoing:
            count = connection.send(self._outgoing[:65536])
            sent = self._left + bytes(self._outgoing[:count])
            self._left = sent[sent.rfind(b"\n") + 1:]
            del self._outgoing[:count]
        self._watch()

    def _ended(self) -> None:
        # The server closes when everything up to CLOSE is stored: nothing remains to be done.
        done = self._closing and not self._outgoing
        self._disconnect()
        if done:
            self.closed = True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket, self.connected = None, False
            self._outgoing[:0] = self._left
            self._left = b""


class Wakeup:
    """A descriptor that becomes readable when a signal came."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """Return what to watch."""
        return self._read

    def wake(self) -> None:
        """Make it readable."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass

    def clear(self) -> None:
        """Make it silent again."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
