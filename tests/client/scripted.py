"""The client against answers prepared beforehand, written by the real AMP commands.

`run` runs one command line in this process, its connections being socket
pairs whose other ends hold the answers already; what the client wrote is then
parsed by the real commands. So both codecs are held together.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from twisted.protocols import amp

import walt
from walt.client import main, settings
from walt.common import ampbox, frames
from walt.common.errors import WaltError
from walt.rpc.base import WaltCommand
from walt.rpc.commands.session import PROTOCOL, Hello

BUFFER = 64 << 20  # so that whole tables fit in a socket
USER = "alice"
HELLO = (Hello, {"version": walt.__version__, "protocol": PROTOCOL, "username": USER})

Answer = tuple[type[WaltCommand], "dict[str, Any] | WaltError"]
Frames = Iterable[tuple[bytes, bytes]]


@dataclass
class Outcome:
    """What one command line did."""

    status: int
    out: str
    err: str
    calls: list[tuple[str, dict[str, Any]]]
    streams: list[tuple[str, dict[str, Any], list[tuple[bytes, bytes]]]]


def answer_bytes(script: Iterable[Answer]) -> bytes:
    """Return the answers of a session, as the real commands write them.

    A call-back (side `client`) goes out in its place, without being asked.
    """
    out, asked = [], 0
    for command, values in script:
        if command.side == "client":
            box = command.makeArguments(dict(values), None)  # type: ignore[call-overload]
            box[amp.COMMAND] = command.commandName
        else:
            asked += 1
            number = b"%x" % asked
            if isinstance(values, WaltError):
                box = amp.AmpBox({
                    amp.ERROR: number, amp.ERROR_CODE: command.allErrors[type(values)],
                    amp.ERROR_DESCRIPTION: str(values).encode(),
                })
            else:
                box = command.makeResponse(dict(values), None)
                box[amp.ANSWER] = number
        out.append(ampbox.encode(box))
    return b"".join(out)


def parse_calls(data: bytes, script: Iterable[Answer]) -> list[tuple[str, dict[str, Any]]]:
    """Return (wire name, arguments) of each call, parsed by the real commands."""
    commands = {command.commandName: command for command, _ in script}
    calls = []
    for box in ampbox.Decoder().feed(data):
        for key in [key for key in box if key + b"+1" in box]:
            box[key] = ampbox.join_value(key, box)
        command = commands[box[b"_command"]]
        declared = {name for name, _ in command.arguments}
        extra = set(box) - declared - {b"_ask", b"_command"}
        assert not extra, f"{command.commandName!r} has no argument {extra}"
        values = command.parseArguments(amp.AmpBox(box), None)
        calls.append((box[b"_command"].decode(), values))
    return calls


class _Connections:
    """Gives the client its prepared connections, in order."""

    def __init__(self, sessions: list[list[Answer]], streams: list[Frames]) -> None:
        self.sessions = [(script, self._pair(answer_bytes(script))) for script in sessions]
        self.streams = [
            self._pair(b"".join(frames.encode(kind, data) for kind, data in one))
            for one in streams
        ]
        self._next_session = iter(self.sessions)
        self._next_stream = iter(self.streams)

    @staticmethod
    def _pair(data: bytes) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, 32, BUFFER)  # SO_SNDBUFFORCE
        ours.sendall(data)
        theirs.setsockopt(socket.SOL_SOCKET, 32, BUFFER)
        return ours, theirs

    def connect(self, target: str) -> socket.socket:
        if (target.path or "").endswith("/streams.sock"):
            return next(self._next_stream)[1]
        return next(self._next_session)[1][1]

    def close(self) -> None:
        for ours, theirs in [pair for _, pair in self.sessions] + self.streams:
            ours.close()
            theirs.close()


def written(ours: socket.socket) -> bytes:
    """Return everything that the client wrote."""
    ours.setblocking(False)
    out = b""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        while data := ours.recv(1 << 20):
            out += data
    return out


def parse_stream(data: bytes) -> tuple[str, dict[str, Any], list[tuple[bytes, bytes]]]:
    """Return request, parameters and frames of a stream connection."""
    name, line, rest = data.split(b"\n", 2)
    return name.decode(), json.loads(line), list(frames.Decoder().feed(rest))


@contextlib.contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Set the variables that the client reads."""
    settings.forget_configuration()
    try:
        with mock.patch.dict(os.environ, {"HOME": "/nonexistent", **changes}):
            yield
    finally:
        settings.forget_configuration()


def run(
    *words: str, session: Iterable[Answer] = (), sessions: list[list[Answer]] | None = None,
    streams: list[Frames] | None = None, variables: dict[str, str] | None = None,
) -> Outcome:
    """Run one command line; `session` holds the answers after hello's."""
    scripts = sessions if sessions is not None else [list(session)]
    connections = _Connections([[HELLO, *script] for script in scripts], streams or [])
    out, err = io.StringIO(), io.StringIO()
    named = {"WALT_SERVER": "unix:/prepared/rpc.sock", "WALT_USERNAME": USER}
    with environment(**{**named, **(variables or {})}), contextlib.redirect_stdout(out), \
            contextlib.redirect_stderr(err), \
            mock.patch("walt.client.session.connect", connections.connect), \
            mock.patch("walt.client.stream.connect", connections.connect):
        status = main.run(list(words))
    calls = [
        call for script, (ours, _) in connections.sessions
        for call in parse_calls(written(ours), script)
    ]
    asked = [parse_stream(data) for ours, _ in connections.streams if (data := written(ours))]
    connections.close()
    return Outcome(
        status, out.getvalue(), err.getvalue(),
        [call for call in calls if call[0] != "hello"], asked,
    )
