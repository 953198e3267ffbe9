"""One shell kept on each node of a run: a command costs a round trip, not a new connection.

The shell reads commands from its input and evaluates each in a subshell. What a command prints ends
with a random marker on both outputs, which no command can know; the one on the standard output
comes with the exit status.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import threading
import time

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.scripting.running import MOST, Result, TooMuch
from walt.client.stream import LOST, NODE_COMMAND, Stream, result_status
from walt.common import frames
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Shells(Protocol):
        """What steps need of nodes: commands, and files that commands left."""

        def run(self, node: str, command: str, limit: float) -> Result:
            """Run a command of the shell; see Channels."""

        def fetch(self, node: str, path: str, write: Callable[[bytes], object], limit: float
                  ) -> int:
            """Give the bytes of a file to `write`; see Channels."""

        def close(self) -> None:
            """Leave all nodes."""

OPENS = 60.0  # seconds until a node must have answered
IDLE = 1.0  # seconds after which a shell is asked whether it is still there
NOTHING, NO_FILE = 3, 4  # statuses of _FETCH
_FETCH = (
    f"[ -e {{0}} ] || exit {NOTHING}; [ -f {{0}} ] || exit {NO_FILE}; exec cat {{0}}"
)
MARKER = 32  # characters


class NotBegun(Failure):
    """A node could not be reached: the command was not sent."""


class _Channel:
    """The shell of one node. Raises Failure when the connection breaks."""

    def __init__(self, node: str, most: int) -> None:
        self._most = most
        self._stream = Stream(NODE_COMMAND, {"node": node, "command": "exec sh"})
        self.used = 0.0

    def run(
        self, command: str, until: float, write: Callable[[bytes], object] | None = None
    ) -> Result:
        """Run a command until a moment of time.monotonic, its standard output to `write`.

        Raises TimeoutError, TooMuch. After any error it is no channel any more.
        """
        marker = secrets.token_hex(MARKER // 2)
        self._stream.send(frames.DATA, (
            f"(eval {shlex.quote(command)}) </dev/null; printf '\\n%s %d\\n' {marker} $?;"
            f" printf '\\n%s\\n' {marker} >&2\n"
        ).encode())
        printed = {frames.DATA: bytearray(), frames.MESSAGE: bytearray()}
        out, err = printed[frames.DATA], printed[frames.MESSAGE]
        last, errors_end = f"\n{marker} ".encode(), f"\n{marker}\n".encode()
        kept = len(last) + 8
        while True:
            received = self._stream.received(until)
            if received is None:
                raise Failure(LOST)
            for kind, payload in received:
                if kind == frames.RESULT:
                    result_status(payload)
                    raise Failure(
                        err.decode(errors="replace").strip()[-500:] or "the shell of the node ended"
                    )
                if kind in printed:
                    printed[kind] += payload
            if len(err) + (len(out) if write is None else 0) > self._most:
                raise TooMuch(
                    f"the command printed more than {self._most >> 20} MiB: write that into a file"
                    " of the node, and save the file"
                )
            at = out.rfind(last, max(0, len(out) - kept))
            if at >= 0 and out.endswith(b"\n") and err.endswith(errors_end):
                break
            if write is not None and at < 0 and len(out) > kept:
                write(bytes(out[:-kept]))
                del out[:-kept]
        status = int(out[at + len(last):-1])
        del out[at:]
        del err[-len(errors_end):]
        if write is not None:
            write(bytes(out))
            out.clear()
        self.used = time.monotonic()
        return Result(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def close(self) -> None:
        """Leave the node: what runs in the foreground is ended."""
        self._stream.close()


class Channels:
    """Shells of nodes, opened when they are needed; each node serves one thread at a time.

    Of what a command prints `most` bytes are kept; a shell that was not used for `idle` seconds is
    asked whether it is still there.
    """

    def __init__(self, *, most: int = MOST, idle: float = IDLE) -> None:
        self._most, self._idle = most, idle
        self._open: dict[str, _Channel] = {}
        self._locks: dict[str, threading.Lock] = {}

    def run(self, node: str, command: str, limit: float) -> Result:
        """Run a command of the shell on a node within `limit` seconds; its input is empty.

        Raises NotBegun when it was not sent; TimeoutException, Failure, TooMuch: it may have run.
        """
        return self._run(node, command, limit, None)

    def fetch(
        self, node: str, path: str, write: Callable[[bytes], object], limit: float
    ) -> int:
        """Give the bytes of a file of a node to `write`; return 0, or NOTHING, NO_FILE.

        Raises as `run` does, Failure also for a file that cannot be read whole.
        """
        result = self._run(node, _FETCH.format(shlex.quote(path)), limit, write)
        if result.status not in (0, NOTHING, NO_FILE):
            raise Failure(result.error.strip()[-500:] or f"status {result.status}")
        return int(result.status)

    def _run(
        self, node: str, command: str, limit: float, write: Callable[[bytes], object] | None
    ) -> Result:
        until = time.monotonic() + limit
        with self._locks.setdefault(node, threading.Lock()):
            channel = self._channel(node, until)
            try:
                return channel.run(command, until, write)
            except BaseException as error:
                self._drop(node)
                if isinstance(error, TimeoutError):
                    raise TimeoutException from None
                raise

    def _channel(self, node: str, until: float) -> _Channel:
        """Return a shell that has just answered. Raises NotBegun."""
        known = self._open.get(node)
        if known is not None and time.monotonic() - known.used < self._idle:
            return known
        soon = min(until, time.monotonic() + OPENS)
        if known is not None:
            try:
                known.run(":", soon)
                return known
            except (Failure, OSError):
                self._drop(node)  # it is gone since it was used
        try:
            channel = self._open[node] = _Channel(node, self._most)
            channel.run(":", soon)
        except (Failure, OSError) as error:
            self._drop(node)
            raise NotBegun(f"{node}: {in_words(error) or 'no answer'}") from error
        return channel

    def _drop(self, node: str) -> None:
        channel = self._open.pop(node, None)
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.close()

    def close(self) -> None:
        """Leave all nodes."""
        for node in list(self._open):
            self._drop(node)
