"""Commands and shells on nodes (spec user-surface §4.6, design §8)."""

from __future__ import annotations

import json
import os
import select
import sys

from walt.client import terminal
from walt.client.errors import Failure, Refused
from walt.client.stream import (
    LOST,
    NODE_COMMAND,
    Stream,
    result_status,
    sleep_again,
    wake_up_pipe,
    write_all,
)
from walt.client.visible import own
from walt.common import frames
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Writer = Callable[[int, bytes], None]

AT_ONCE = 100  # nodes that run a command at the same time


class Prefix:
    """Writes whole lines, each after the name of the node that it comes from.

    On a terminal a line shows what the terminal would obey: a carriage return could put
    another name in front of it.
    """

    def __init__(self, node: str) -> None:
        self._prefix = f"{node}: ".encode()
        self._begun: dict[int, bytes] = {}  # by descriptor, what has no end of line yet

    def __call__(self, descriptor: int, data: bytes) -> None:
        """Write the lines that these bytes complete."""
        *lines, self._begun[descriptor] = (self._begun.get(descriptor, b"") + data).split(b"\n")
        if os.isatty(descriptor):
            lines = [
                visible(line.removesuffix(b"\r").decode(errors="replace")).encode()
                for line in lines
            ]
        write_all(descriptor, b"".join(self._prefix + line + b"\n" for line in lines))

    def close(self) -> None:
        """Write the last lines, which have no end."""
        for descriptor in [descriptor for descriptor, line in self._begun.items() if line]:
            self(descriptor, b"\n")


def one(node: str, command: str, with_terminal: bool, prefix: bool = False) -> int:
    """Run a command on one node with our input and output; return its exit status."""
    parameters = {"node": node, "command": command, "node_terminal": with_terminal}
    if not prefix:
        return _session(NODE_COMMAND, parameters, with_terminal)
    writer = Prefix(node)
    try:
        return relay(Stream(NODE_COMMAND, parameters), write=writer)
    finally:
        writer.close()


def device_shell(device: str, user: str) -> int:
    """Open a shell on a device that is not a node; return the exit status of ssh."""
    return _session("REQ_DEVICE_SHELL", {"device": device, "user": user}, True)


def image_shell(session: str) -> int:
    """Use the shell of an image session; return its exit status."""
    return _session("REQ_DOCKER_PROMPT", {"session": session}, True)


def _session(request: str, parameters: dict[str, Any], with_terminal: bool) -> int:
    if not (with_terminal and terminal.both_terminals()):
        return relay(Stream(request, parameters))
    import signal

    rows, columns = terminal.window()
    parameters["terminal"] = {
        "term": os.environ.get("TERM") or "xterm", "rows": rows, "columns": columns,
    }
    stream = Stream(request, parameters)
    resized = wake_up_pipe()
    signal.signal(signal.SIGWINCH, lambda number, frame: None)
    try:
        with terminal.RawMode():
            return relay(stream, resized)
    finally:
        sleep_again(resized)


def relay(
    stream: Stream, resized: socket.socket | None = None, write: Writer = write_all
) -> int:
    """Carry input and output until the remote side ends; return the exit status.

    Nothing is read from our input while the server is late, and its output is
    always read: neither side can block the other.
    """
    has_input = True
    while True:
        readers: list[socket.socket | int] = [stream.socket]
        if has_input and not stream.late:
            readers.append(0)
        if resized is not None:
            readers.append(resized)
        ready, writable, _ = select.select(readers, [stream.socket] if stream.late else [], [])
        if writable:
            stream.flush()
        if resized is not None and resized in ready:
            resized.recv(4096)
            rows, columns = terminal.window()
            stream.send(frames.WINDOW, json.dumps({"rows": rows, "columns": columns}).encode())
        if stream.socket in ready:
            status = _output(stream, write)
            if status is not None:
                return status
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if data:
                stream.send(frames.DATA, data)
            else:
                has_input = False
                stream.send(frames.END)


def _output(stream: Stream, write: Writer = write_all) -> int | None:
    received = stream.received()
    if received is None:
        raise Failure(LOST)
    for kind, payload in received:
        if kind == frames.DATA:
            write(1, payload)
        elif kind == frames.MESSAGE:
            write(2, payload)
        elif kind == frames.RESULT:
            return result_status(payload)
    return None


def output_only(stream: Stream) -> int:
    """Print what the remote side prints until it ends; return the exit status."""
    while True:
        stream.flush()
        status = _output(stream)
        if status is not None:
            return status


class _Run:
    """One node's part of a command run on several."""

    def __init__(self, node: str, command: str, prefix: bool) -> None:
        self.node = node
        self.status: int | None = None
        self.error = ""  # why it has no status of its own
        self._pieces: list[tuple[int, bytes]] = []
        self._prefix = Prefix(node) if prefix else None
        self.stream = Stream(NODE_COMMAND, {"node": node, "command": command})
        self.stream.send(frames.END)

    def advance(self) -> None:
        """Keep what the node printed, or write it at once after its name; `status` ends it."""
        try:
            received = self.stream.received()
            if received is None:
                raise Failure(LOST)
            for kind, payload in received:
                if kind == frames.RESULT:
                    self.status = result_status(payload)
                else:
                    self._take(2 if kind == frames.MESSAGE else 1, payload)
        except (Failure, Refused) as error:
            self.error = str(error)
            self.status = 1
        if self.status is not None:
            self.stream.close()
            if self._prefix is not None:
                self._prefix.close()

    def _take(self, descriptor: int, data: bytes) -> None:
        if self._prefix is not None:
            self._prefix(descriptor, data)
        else:
            self._pieces.append((descriptor, data))

    def show(self) -> None:
        """Print what was kept."""
        if self._prefix is not None:
            return
        if sys.stderr.isatty():
            sys.stdout.flush()
            title = terminal.bold(f"-- {visible(self.node)} --", sys.stderr)
            own(title + "\n", sys.stderr)
            sys.stderr.flush()
        for descriptor, data in self._pieces:
            write_all(descriptor, data)
        self._pieces.clear()

    def tell_failure(self) -> None:
        """Say on standard error how the node failed, if it did."""
        if self.status:
            print(f"{self.node}: {self.error or f'exit status {self.status}'}", file=sys.stderr)


def several(names: list[str], command: str, prefix: bool = False) -> int:
    """Run a command on several nodes at once; print outputs whole, in the order given.

    With `prefix`, lines are printed as they come, each after the name of its node.
    Standard input is not forwarded. A line on standard error tells of each node that
    failed. Returns 0 when it succeeded everywhere, else 1.
    """
    waiting = list(names)
    running: dict[socket.socket, _Run] = {}
    to_show: list[_Run] = []
    all_runs: list[_Run] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            run = _Run(waiting.pop(0), command, prefix)
            running[run.stream.socket] = run
            to_show.append(run)
            all_runs.append(run)
        for sock in select.select(list(running), [], [])[0]:
            running[sock].advance()
            if running[sock].status is not None:
                del running[sock]
        while to_show and to_show[0].status is not None:
            to_show.pop(0).show()
    for run in all_runs:
        run.tell_failure()
    return 1 if any(run.status for run in all_runs) else 0


def ping(device: str) -> int:
    """Ping a device from the server; return the exit status of ping."""
    stream = Stream("REQ_DEVICE_PING", {"device": device})
    return relay(stream)
