"""The serial console of a virtual node (spec user-surface §1.7)."""

from __future__ import annotations

import os
import select

from walt.client import terminal
from walt.client.chunks import console_bytes
from walt.client.errors import Failure
from walt.client.log_lines import decoded
from walt.client.stream import Stream, result_status, write_all
from walt.common import frames
from walt.common.records import Blocks

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    import socket

    from walt.client.session import Session

CLEARING = (b"\x1bc", b"\x1b[2J")
CTRL_A = b"\x01"
RESET = b"\x1bc"
HOME_AND_CLEAR = b"\x1b[H\x1b[2J"


def attach(session: Session, node: str) -> int:
    """Relay between the console and our terminal (or pipes) until ctrl-a d or end of input."""
    session.without_indicator()
    if not terminal.both_terminals():
        return _relay(session, node)
    print(f"You are going to be attached to the console of {node}; only new output shows.")
    print("Type ctrl-a d to leave, ctrl-a a to send ctrl-a.")
    print("See `walt help show node-console`.")
    if terminal.ask("Press Enter to go on, or ctrl-C to give up. ") is None:
        return 1
    try:
        with terminal.RawMode():
            write_all(1, HOME_AND_CLEAR)
            return _relay(session, node)
    finally:
        write_all(1, RESET)
        print("Disconnected from the console.")


def _relay(session: Session, node: str) -> int:
    stream = Stream(
        "REQ_DUMP_LOGS", {"realtime": True, "issuers": node, "streams": "^virtualconsole$"}
    )
    keys, screen, listening = Keys(), Screen(), False
    while True:
        readers: list[socket.socket | int] = [stream.socket, *([0] if listening else [])]
        ready, _, _ = select.select(readers, [], [])
        if stream.socket in ready:
            received = stream.received()
            if received is None:
                raise Failure("the connection to the server was lost")
            for kind, payload in received:
                if kind == frames.DATA:
                    listening = True  # the first one may be empty: the server shows all from now
                    write_all(1, screen.shown(payload))
                elif kind == frames.MESSAGE:
                    write_all(2, payload)
                elif kind == frames.RESULT:
                    return result_status(payload)
        if 0 in ready:
            data = os.read(0, 4096)
            to_send = keys.typed(data) if data else None
            if to_send is None:
                return 0
            if to_send:
                session.call("cs.nodes.console_input", node=node, data=to_send)


class Screen:
    """Turns the log lines of a console into its bytes, without what clears a terminal."""

    def __init__(self) -> None:
        self._arriving = Blocks()

    def shown(self, payload: bytes) -> bytes:
        """Return the console's bytes held by the blocks that `payload` completes."""
        return b"".join(
            _console_bytes(text)
            for block in decoded(self._arriving, payload) for text in block.texts()
        )


def _console_bytes(text: str) -> bytes:
    chunk = console_bytes(text)
    if chunk is None:
        chunk = text.encode(errors="replace") + b"\r\n"
    for sequence in CLEARING:
        chunk = chunk.replace(sequence, b"")
    return chunk


class Keys:
    """Recognises ctrl-a commands, when they come alone (typed, not pasted).

    A slow link may bring ctrl-a and its letter in one piece.
    """

    def __init__(self) -> None:
        self._escaped = False

    def typed(self, data: bytes) -> bytes | None:
        """Return the bytes to send, or None to quit."""
        if self._escaped:
            self._escaped = False
            key, rest = data[:1], data[1:]
            if key == b"d":
                return None
            more = self.typed(rest) if rest else b""
            sent = CTRL_A if key in (b"a", CTRL_A) else b""
            return None if more is None else sent + more
        if data[:1] != CTRL_A or len(data) > 2:
            return data
        self._escaped = True
        return self.typed(data[1:]) if data[1:] else b""
