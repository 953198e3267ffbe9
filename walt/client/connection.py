"""Bytes to and from a server: sockets, and blocking AMP calls with the server's call-backs."""

from __future__ import annotations

import json
import socket
import sys

from walt.client.answers import Answer
from walt.client.errors import Failure, NoServer, Refused
from walt.common import ampbox

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.terminal import Busy, Terminal
    from walt.client.tls import TlsSocket

    Link = socket.socket | TlsSocket

CONNECT_PATIENCE = 10.0


def open_unix(path: str) -> socket.socket:
    """Open a connection to a socket of this machine. Raises Failure."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_PATIENCE)
    try:
        connection.connect(path)
    except PermissionError:
        raise Failure(
            f"you may not use {path}: ask to be added to the group walt of this machine"
        ) from None
    except OSError as error:
        raise _no_server(path, error) from None
    connection.settimeout(None)
    return connection


def open_tcp(address: tuple[str, int]) -> socket.socket:
    """Open a plain connection to a (host, port). Raises Failure."""
    try:
        connection = socket.create_connection(address, CONNECT_PATIENCE)
    except OSError as error:
        raise _no_server("%s port %d" % address, error) from None
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _no_server(where: str, error: OSError) -> NoServer:
    return NoServer(
        f"network connection failure: no WalT server answers at {where}"
        f" ({error.strerror or error}). Is it started? WALT_SERVER tells which server to use."
    )


def broken(error: BaseException | str) -> Failure:
    """Return what to raise when the link to the server breaks."""
    from walt.common.errors import in_words  # only failures need it: 0.6 ms

    text = error if isinstance(error, str) else in_words(error)
    return Failure(f"communication issue with the server: {text}")


class Connection:
    """A connection to the server; `call` sends one command and returns its answer.

    `terminal` makes the busy indicators; without it nothing is shown meanwhile.
    """

    def __init__(self, link: Link, terminal: Terminal | None = None) -> None:
        self._socket = link
        self._decoder = ampbox.Decoder()
        self._boxes: list[ampbox.Box] = []
        self._asked = 0
        self._terminal = terminal

    def close(self) -> None:
        """Close the connection: what the server does for us is cancelled."""
        self._socket.close()

    def call(self, command: str, /, **arguments: Any) -> Answer:
        """Return the answer of a command as a dict of bytes.

        Arguments are texts, numbers, booleans, bytes, or values to send as
        JSON; None leaves an argument out. Raises Refused for an error of the
        server, Failure when the link breaks.
        """
        self._asked += 1
        ask = b"%x" % self._asked
        box = {b"_ask": ask, b"_command": command.encode()}
        for name, value in arguments.items():
            if value is not None:
                box[name.encode()] = encode(value)
        busy = self._terminal.busy() if self._terminal is not None else None
        try:
            self._send(box)
            while True:
                answer = self._next_box(busy)
                if b"_command" in answer:
                    _called_back(answer, busy)
                elif answer.get(b"_answer") == ask:
                    return answer
                elif answer.get(b"_error") == ask:
                    raise _error(answer)
        finally:
            if busy is not None:
                busy.erase()

    def json(self, command: str, name: str, /, **arguments: Any) -> Any:
        """Call a command and return one JSON value of its answer."""
        return self.call(command, **arguments).json(name)

    def call_as(self, label: str, command: str, /, **arguments: Any) -> Answer:
        """Do a call with another busy label than that of the session."""
        usual = self._terminal
        if usual is not None:
            self._terminal = type(usual)(label)
        try:
            return self.call(command, **arguments)
        finally:
            self._terminal = usual

    def _send(self, box: ampbox.Box) -> None:
        try:
            self._socket.sendall(ampbox.encode(box))
        except OSError as error:
            if not self._arrived():
                raise broken(error) from None

    def _arrived(self) -> bool:
        """Tell whether a server that closed while we were sending said why."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _receive(self) -> bytes:
        return self._socket.recv(1 << 16)

    def gone(self) -> bool:
        """Tell whether the server closed the connection, between two calls."""
        self._socket.setblocking(False)
        try:
            data = self._socket.recv(1 << 16)
            self._boxes.extend(self._decoder.feed(data))
        except BlockingIOError:
            return False
        except (OSError, ampbox.BadBox):
            return True
        finally:
            self._socket.setblocking(True)
        return not data

    def _next_box(self, busy: Busy | None) -> Answer:
        while not self._boxes:
            if busy is not None:
                busy.wait(self._socket)
            try:
                data = self._receive()
                self._boxes.extend(self._decoder.feed(data))
            except (OSError, ampbox.BadBox) as error:
                raise broken(error) from None
            if not data:
                raise broken("it closed the connection")
        return Answer(self._boxes.pop(0))


def _called_back(box: Answer, busy: Busy | None) -> None:
    command = box[b"_command"]
    if busy is not None and command not in (b"set_busy_label", b"progress.show"):
        busy.erase()
    if command == b"stdout.write":
        sys.stdout.write(box[b"text"].decode(errors="replace"))
        sys.stdout.flush()
    elif command == b"stderr.write":
        sys.stdout.flush()
        sys.stderr.write(box[b"text"].decode(errors="replace"))
        sys.stderr.flush()
    elif command == b"progress.show":
        _progress(box[b"text"].decode(errors="replace"), busy)
    elif command == b"set_busy_label" and busy is not None:
        busy.label(box[b"label"].decode(errors="replace"))


def _progress(text: str, busy: Busy | None) -> None:
    if busy is not None:
        busy.label(text)
    else:
        sys.stdout.flush()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _error(box: Answer) -> Refused:
    text, code = box.text(b"_error_description"), box.text(b"_error_code")
    if code in ("INTERNAL", "UNKNOWN"):
        text = f"unexpected server-side issue: {text}"
    elif code == "UNHANDLED":
        text = "the server does not know this command; client and server differ too much"
    return Refused(text, code)


def encode(value: Any) -> bytes:
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
