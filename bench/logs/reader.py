"""A live reader."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol


class Reader(ProcessProtocol):
    """Notes the ages of the lines it is shown: each begins with the time it was sent."""

    def __init__(self) -> None:
        self.ages: list[float] = []
        self.ended: Deferred[None] = Deferred()
        self._partial = b""

    def outReceived(self, data: bytes) -> None:
        now = time.time()
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.ages += [now - float(line.split()[0]) for line in lines if line]

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)
