"""Asks a DNS server for names until it knows them all, and for a known one all the time.

    python -m bench.names.asker SERVER KNOWN

Names to come are read from the standard input, a line each. Prints `ready` when it asks, and a
line of JSON at the end: `moments` when each was known (of time.monotonic), `asked` and `lost`
questions about the known one.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall, react
from twisted.names import dns

EVERY = 0.005  # seconds between two questions about the known name
AGAIN = 0.05  # seconds between two rounds of questions about those to come
AT_ONCE = 200  # questions of a round
LIMIT = 2.0  # seconds: a question without an answer is lost
LONGEST = 60.0  # seconds


class Asker(DatagramProtocol):
    """Asks; `done` fires when all names are known, or after LONGEST."""

    def __init__(self, reactor: Any, server: str, known: str, wanted: list[str]) -> None:
        self._reactor, self._server, self._known = reactor, server, known
        self._wanted = dict.fromkeys(wanted)
        self._open: dict[int, tuple[str, float]] = {}
        self._number = 0
        self.moments: list[float] = []
        self.asked = self.lost = 0
        self.done: Deferred[None] = Deferred()

    def startProtocol(self) -> None:
        for work, every in ((self._ask_known, EVERY), (self._ask_wanted, AGAIN)):
            LoopingCall(work).start(every)
        self._reactor.callLater(LONGEST, self._end)

    def _end(self) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _ask(self, name: str) -> None:
        self._number = self._number % 65535 + 1
        message = dns.Message(self._number, recDes=0)
        message.addQuery(name, dns.A)
        self._open[self._number] = name, time.monotonic()
        self.transport.write(message.toStr(), (self._server, 53))

    def _ask_known(self) -> None:
        late = time.monotonic() - LIMIT
        for number, (name, moment) in list(self._open.items()):
            if moment > late:
                break  # they are in the order of their questions
            del self._open[number]
            self.lost += name == self._known
        self.asked += 1
        self._ask(self._known)

    def _ask_wanted(self) -> None:
        for name in list(self._wanted)[:AT_ONCE]:
            self._wanted[name] = self._wanted.pop(name)  # the others come first the next time
            self._ask(name)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        message = dns.Message()
        message.fromStr(datagram)
        name, _ = self._open.pop(message.id, ("", 0.0))
        if name == self._known:
            self.lost += not message.answers
        elif message.answers and name in self._wanted:
            del self._wanted[name]
            self.moments.append(time.monotonic())
            if not self._wanted:
                # What was asked last is answered, too.
                self._reactor.callLater(1.0, self._end)


async def main(reactor: Any, server: str, known: str) -> None:
    """Ask."""
    asker = Asker(reactor, server, known, sys.stdin.read().split())
    reactor.listenUDP(0, asker, maxPacketSize=65535)
    print("ready", flush=True)
    await asker.done
    print(json.dumps({"moments": asker.moments, "asked": asker.asked, "lost": asker.lost}))


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
