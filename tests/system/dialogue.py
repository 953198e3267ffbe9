"""A person at a terminal, for commands that ask."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol


class Dialogue(ProcessProtocol):
    """Answers prompts in their order, on a pseudo-terminal."""

    def __init__(self, *steps: tuple[bytes, bytes]) -> None:
        self._steps = list(steps)
        self._unread = bytearray()
        self.seen = bytearray()
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.seen += data
        self._unread += data
        while self._steps and self._steps[0][0] in self._unread:
            _, answer = self._steps.pop(0)
            self._unread.clear()
            self.transport.write(answer)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)
