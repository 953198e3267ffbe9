"""Commands on a node, for scripts: their output and exit status are values."""

from __future__ import annotations

import json
import time
from collections import namedtuple

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.remote import LOST, REQUEST
from walt.client.stream import Stream, result_status
from walt.common import frames

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from typing import Any


class Result(namedtuple("Result", ("status", "output", "error"))):
    """How a command ended: its exit status, and the texts that it printed."""

    __slots__ = ()

    def json(self) -> Any:
        """Return the JSON value that the command printed. Raises ValueError."""
        return json.loads(self.output)


def run(node: str, command: str, time_limit: float | None) -> Result:
    """Run a command of the shell on a booted node, once; its input is empty.

    Raises TimeoutException after `time_limit` seconds: the command is ended. Raises Failure
    when the connection breaks; the command may have run.
    """
    until = None if time_limit is None else time.monotonic() + time_limit
    printed = {frames.DATA: bytearray(), frames.MESSAGE: bytearray()}
    stream = Stream(REQUEST, {"node": node, "command": command})
    try:
        stream.send(frames.END)
        while True:
            received = stream.received(until)
            if received is None:
                raise Failure(LOST)
            for kind, payload in received:
                if kind == frames.RESULT:
                    texts = [printed[one].decode(errors="replace") for one in printed]
                    return Result(result_status(payload), *texts)
                if kind in printed:
                    printed[kind] += payload
            if until is not None and time.monotonic() >= until:
                raise TimeoutException
    except TimeoutError:
        raise TimeoutException from None
    finally:
        stream.close()
