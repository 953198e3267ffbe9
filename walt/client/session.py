"""Blocking AMP calls on one connection, with the server's call-backs meanwhile."""

from __future__ import annotations

import json
import os
import socket
import sys

import walt
from walt.client import settings
from walt.client.errors import Failure, Refused
from walt.common import ampbox

PROTOCOL = 1
CONNECT_PATIENCE = 10.0


def connect(target):
    """Open a socket to a path or a (host, port); Failure says what to do."""
    try:
        if isinstance(target, str):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            one.settimeout(CONNECT_PATIENCE)
            one.connect(target)
        else:
            one = socket.create_connection(target, CONNECT_PATIENCE)
    except PermissionError:
        raise Failure(
            f"you may not use {target}: ask to be added to the group walt of this machine"
        ) from None
    except OSError as error:
        where = target if isinstance(target, str) else "%s port %d" % target
        raise Failure(
            f"network connection failure: no WalT server answers at {where}"
            f" ({error.strerror or error}). Is it started? WALT_SERVER tells which server to use."
        ) from None
    one.settimeout(None)
    return one


class Session:
    """A connection to the server; `call` sends one command and returns its answer."""

    def __init__(self, terminal=None):
        self._socket = connect(settings.rpc_target())
        self._decoder = ampbox.Decoder()
        self._boxes = []
        self._asked = 0
        self._terminal = terminal
        self.call(
            "hello", program="walt", version=walt.__version__, protocol=PROTOCOL,
            username=settings.username(),
        )

    def close(self):
        """Close the connection: what the server does for us is cancelled."""
        self._socket.close()

    def call(self, command, **arguments):
        """Return the answer of a command as a dict of bytes.

        Raises Refused for an error of the server, Failure when the link breaks.
        """
        self._asked += 1
        ask = b"%x" % self._asked
        box = {b"_ask": ask, b"_command": command.encode()}
        for name, value in arguments.items():
            if value is not None:
                box[name.encode()] = encode(value)
        busy = self._terminal.busy() if self._terminal is not None else None
        try:
            self._socket.sendall(ampbox.encode(box))
            while True:
                answer = self._next_box(busy)
                if b"_command" in answer:
                    self._called_back(answer, busy)
                elif answer.get(b"_answer") == ask:
                    return answer
                elif answer.get(b"_error") == ask:
                    raise self._error(answer)
        except (OSError, ampbox.BadBox) as error:
            raise Failure(f"communication issue with the server: {error}") from None
        finally:
            if busy is not None:
                busy.erase()

    def json(self, command, name, **arguments):
        """Call a command and return one JSON value of its answer."""
        return json.loads(self.call(command, **arguments)[name.encode()])

    def _next_box(self, busy):
        while not self._boxes:
            if busy is not None:
                busy.wait(self._socket)
            data = self._socket.recv(1 << 16)
            if not data:
                raise OSError("the server closed the connection")
            self._boxes.extend(self._decoder.feed(data))
        box = self._boxes.pop(0)
        for key in [key for key in box if key + b"+1" in box]:
            box[key] = ampbox.join_value(key, box)
        return box

    def _called_back(self, box, busy):
        command = box[b"_command"]
        if busy is not None and command != b"set_busy_label":
            busy.erase()
        if command == b"stdout.write":
            sys.stdout.write(box[b"text"].decode(errors="replace"))
            sys.stdout.flush()
        elif command == b"stderr.write":
            sys.stderr.write(box[b"text"].decode(errors="replace"))
            sys.stderr.flush()
        elif command == b"set_busy_label" and busy is not None:
            busy.label(box[b"label"].decode(errors="replace"))

    @staticmethod
    def _error(box):
        text = box.get(b"_error_description", b"").decode(errors="replace")
        code = box.get(b"_error_code", b"").decode(errors="replace")
        if code in ("INTERNAL", "UNKNOWN"):
            text = f"unexpected server-side issue: {text}"
        elif code == "UNHANDLED":
            text = "the server does not know this command; client and server differ too much"
        return Refused(text, code)


def encode(value):
    """Return an argument's bytes, as the AMP types of the schema expect them."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"True" if value else b"False"
    if isinstance(value, (int, float)):
        return str(value).encode()
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    return json.dumps(value).encode()


class Stream:
    """A client stream request: parameters, then frames both ways."""

    def __init__(self, request, parameters):
        from walt.common import frames

        self._frames = frames
        self.socket = connect(settings.stream_target())
        self._decoder = frames.Decoder()
        parameters = dict(parameters, username=settings.username())
        self.socket.sendall(request.encode() + b"\n" + json.dumps(parameters).encode() + b"\n")

    def send(self, kind, payload=b""):
        """Send one frame."""
        self.socket.sendall(self._frames.encode(kind, payload))

    def received(self):
        """Return the frames of the next bytes; None when the server closed."""
        data = self.socket.recv(1 << 16)
        if not data:
            return None
        return list(self._decoder.feed(data))

    def close(self):
        """Close the connection: the remote side ends."""
        self.socket.close()


def result_status(payload):
    """Return the exit status in a RESULT frame; an error in it is raised as Refused."""
    result = json.loads(payload)
    if result.get("error"):
        raise Refused(result["error"], result.get("code", ""))
    return int(result.get("status", 0))


def quiet_exit():
    """End without a message when the reader of our output went away (Q-06)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
