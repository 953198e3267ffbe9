"""A live reader."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from tests.system.live import ROOT, LivePlatform


class Reader(ProcessProtocol):
    """Notes the ages of the lines it is shown: each begins with the time it was sent."""

    def __init__(self) -> None:
        self.ages: list[float] = []
        self.ended: Deferred[None] = Deferred()
        self._partial = b""

    @classmethod
    async def of(cls, platform: LivePlatform, stream: str) -> Reader:
        """Start `walt log show` on a stream of all nodes; it has begun when this returns."""
        reader = cls()
        argv = [
            sys.executable, "-m", "walt.client.main", "log", "show", "--realtime", "--issuers",
            "all-nodes", "--streams", f"^{stream}$", "--format", "{line}",
        ]
        platform.reactor.spawnProcess(
            reader, argv[0], argv,
            {**os.environ, **platform.environment(), "PYTHONPATH": str(ROOT)},
        )
        await platform.sleep(1)
        return reader

    async def end(self) -> list[float]:
        """Interrupt the command; return the ages in seconds, sorted."""
        transport: Any = self.transport
        transport.signalProcess("INT")
        await self.ended
        return sorted(self.ages)

    def outReceived(self, data: bytes) -> None:
        now = time.time()
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.ages += [now - float(line.split()[0]) for line in lines if line]

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)
