"""Commands and shells on nodes (spec user-surface §4.6, design §8)."""

from __future__ import annotations

import os
import select
import signal
import sys

from walt.client import terminal
from walt.client.session import Stream, result_status
from walt.common import frames

REQUEST = "REQ_NODE_CMD"


def one(node, command, with_terminal):
    """Run a command on one node with our input and output; return its exit status."""
    on_terminal = with_terminal and terminal.both_terminals()
    parameters = {"node": node, "command": command, "node_terminal": with_terminal}
    if on_terminal:
        rows, columns = terminal.window()
        parameters["terminal"] = {
            "term": os.environ.get("TERM") or "xterm", "rows": rows, "columns": columns,
        }
    stream = Stream(REQUEST, parameters)
    if not on_terminal:
        return _relay(stream)
    import json

    def resized(number, frame):
        rows, columns = terminal.window()
        stream.send(frames.WINDOW, json.dumps({"rows": rows, "columns": columns}).encode())

    signal.signal(signal.SIGWINCH, resized)
    with terminal.RawMode():
        return _relay(stream)


def _relay(stream):
    inputs = [stream.socket, 0]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if stream.socket in ready:
            received = stream.received()
            if received is None:
                print("The connection to the server was lost.", file=sys.stderr)
                return 1
            for kind, payload in received:
                if kind == frames.DATA:
                    _write(1, payload)
                elif kind == frames.MESSAGE:
                    _write(2, payload)
                elif kind == frames.RESULT:
                    return result_status(payload)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if data:
                stream.send(frames.DATA, data)
            else:
                inputs.remove(0)
                stream.send(frames.END)


def _write(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]


def several(names, command):
    """Run a command on several nodes at once; print outputs whole, in the order given.

    Standard input is not forwarded. Returns 0 when it succeeded everywhere, else 1.
    """
    streams = {}
    for name in names:
        stream = Stream(REQUEST, {"node": name, "command": command})
        stream.send(frames.END)
        streams[stream.socket] = (name, stream)
    done, statuses, output = {}, {}, {name: [] for name in names}
    order = list(names)
    while streams:
        ready, _, _ = select.select(list(streams), [], [])
        for sock in ready:
            name, stream = streams[sock]
            received = stream.received()
            if received is None:
                statuses[name] = 1
                output[name].append((2, b"The connection to the server was lost.\n"))
                del streams[sock]
                continue
            for kind, payload in received:
                if kind == frames.DATA:
                    output[name].append((1, payload))
                elif kind == frames.MESSAGE:
                    output[name].append((2, payload))
                elif kind == frames.RESULT:
                    statuses[name] = _status(payload, output[name])
                    del streams[sock]
        done = {name for name in order if name in statuses}
        while order and order[0] in done:
            _print(order[0], output.pop(order.pop(0)))
    return 1 if any(statuses.values()) else 0


def _status(payload, output):
    from walt.client.errors import Refused

    try:
        return result_status(payload)
    except Refused as error:
        output.append((2, f"{error}\n".encode()))
        return 1


def _print(name, pieces):
    if sys.stderr.isatty():
        print(terminal.bold(f"-- {name} --"), file=sys.stderr)
        sys.stderr.flush()
    for descriptor, data in pieces:
        _write(descriptor, data)
