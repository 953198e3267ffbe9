"""The serial console of a virtual node (spec user-surface §1.7)."""

from __future__ import annotations

import ast
import json
import os
import select
import sys

from walt.client import terminal
from walt.client.session import Stream
from walt.common import frames

CLEARING = (b"\x1bc", b"\x1b[2J")
CTRL_A = b"\x01"


def attach(session, node):
    """Relay between the console and our terminal (or pipes) until ctrl-a d or end of input."""
    stream = Stream(
        "REQ_DUMP_LOGS",
        {"realtime": True, "issuers": node, "streams": "^virtualconsole$"},
    )
    if not terminal.both_terminals():
        _relay(session, stream, node)
        return
    print(f"You are going to be attached to the console of {node}; only new output shows.")
    print("Type ctrl-a d to leave, ctrl-a a to send ctrl-a.")
    input("Press Enter to go on, or ctrl-C to give up. ")
    try:
        with terminal.RawMode():
            os.write(1, b"\x1b[H\x1b[2J")
            _relay(session, stream, node)
    finally:
        os.write(1, b"\x1bc")
        print("Disconnected from the console.")


def _relay(session, stream, node):
    keys, pending = Keys(), b""
    while True:
        ready, _, _ = select.select([stream.socket, 0], [], [])
        if stream.socket in ready:
            received = stream.received()
            if received is None:
                return
            for kind, payload in received:
                if kind == frames.DATA:
                    *lines, pending = (pending + payload).split(b"\n")
                    for line in lines:
                        _show(line)
                elif kind == frames.RESULT:
                    _ended(payload)
                    return
        if 0 in ready:
            data = os.read(0, 4096)
            to_send = keys.typed(data) if data else None
            if to_send is None:
                return
            if to_send:
                session.call("cs.nodes.console_input", node=node, data=to_send)


def _show(line):
    chunk = ast.literal_eval(json.loads(line)[3])
    for sequence in CLEARING:
        chunk = chunk.replace(sequence, b"")
    os.write(1, chunk)


def _ended(payload):
    error = json.loads(payload).get("error")
    if error:
        print(error, file=sys.stderr)


class Keys:
    """Recognises ctrl-a commands, when keys come alone (typed, not pasted)."""

    def __init__(self):
        self._escaped = False

    def typed(self, data):
        """Return the bytes to send, or None to quit."""
        if not self._escaped:
            self._escaped = data == CTRL_A
            return b"" if self._escaped else data
        self._escaped = False
        if data == b"d":
            return None
        return CTRL_A if data in (b"a", CTRL_A) else b""
