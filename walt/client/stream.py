"""Client streams: a request, its parameters, then frames both ways (design §8)."""

from __future__ import annotations

import json
import os
import select
import socket
import time

from walt.client import settings
from walt.client.answers import senseless
from walt.client.connection import broken
from walt.client.errors import Failure, Refused
from walt.client.session import connect
from walt.common import frames

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LOST = "the connection to the server was lost"
NODE_COMMAND = "REQ_NODE_CMD"
UNREACHABLE = 255  # what ssh answers when there was no shell at all


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of a file's name (PEP 383)
        return False
    return True


class Stream:
    """A stream request in progress. Raises Failure for a name that cannot be sent."""

    def __init__(self, request: str, parameters: Mapping[str, Any]) -> None:
        for value in parameters.values():
            if isinstance(value, str) and not _is_text(value):
                raise Failure(
                    f"the name {value!r} is not UTF-8, which the server could not take;"
                    " rename it, or copy the directory that it is in"
                )
        self.socket: Any = connect(settings.stream_target())  # of the system, or TLS
        self._decoder = frames.Decoder()
        self._outgoing = bytearray()
        line = json.dumps(dict(parameters, username=settings.username()))
        self.socket.setblocking(False)
        self._outgoing += f"{request}\n{line}\n".encode()
        self.flush()

    @property
    def late(self) -> bool:
        """Whether the server has not taken all that was sent."""
        return bool(self._outgoing) or getattr(self.socket, "late", False)

    @property
    def pending(self) -> int:
        """Bytes that the server has not taken yet."""
        return len(self._outgoing)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame, now or when the socket takes it (`flush`)."""
        self._outgoing += frames.encode(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Give the socket what it takes."""
        try:
            while self._outgoing:
                del self._outgoing[:self.socket.send(self._outgoing)]
            if getattr(self.socket, "late", False):
                self.socket.flush()
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()  # reading tells how it ended

    def received(self, until: float | None = None) -> list[tuple[bytes, bytes]] | None:
        """Return the frames of the next bytes, waiting for them; None when the server closed.

        Raises Failure when the link breaks, TimeoutError at the moment `until`, of
        time.monotonic.
        """
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready, late, _ = select.select(
                [self.socket], [self.socket] if self.late else [], [], left
            )
            if until is not None and not ready and not late:
                raise TimeoutError
            self.flush()
            try:
                data = self.socket.recv(1 << 18)
                return list(self._decoder.feed(data)) if data else None
            except BlockingIOError:
                continue
            except (OSError, frames.BadFrame) as error:
                raise broken(error) from None

    def close(self) -> None:
        """Close the connection: the remote side ends."""
        self.socket.close()


def result_status(payload: bytes) -> int:
    """Return the exit status in a RESULT frame; an error in it is raised as Refused.

    Raises Failure when there is neither.
    """
    try:
        result = json.loads(payload)
        if result.get("error"):
            raise Refused(str(result["error"]), str(result.get("code", "")))
        return int(result.get("status", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise senseless("the end of a stream has no status") from None


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes to a descriptor of ours, whole, even if it does not block."""
    while data:
        try:
            data = data[os.write(descriptor, data):]
        except BlockingIOError:
            select.select([], [descriptor], [])


def wake_up_pipe() -> socket.socket:
    """Return a socket that becomes readable at each signal: handlers themselves do nothing.

    `sleep_again` ends that, before it is closed.
    """
    import signal

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    return ours


def sleep_again(woken: socket.socket) -> None:
    """Let signals have their way again, without a socket."""
    import signal

    os.close(signal.set_wakeup_fd(-1))
    woken.close()
