"""A bare AMP server on a unix socket, to compare with: `python -m bench.rpc.echo PATH`."""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols import amp


class Echo(amp.Command):
    """Two arguments in, one out."""

    commandName = b"echo"
    arguments = [(b"one", amp.Unicode()), (b"two", amp.Unicode())]
    response = [(b"both", amp.Unicode())]


class Peer(amp.AMP):
    """Answers echo."""

    @Echo.responder
    def echo(self, one: str, two: str) -> dict[str, str]:
        """Return both arguments."""
        return {"both": one + two}


if __name__ == "__main__":
    reactor.listenUNIX(sys.argv[1], Factory.forProtocol(Peer))  # type: ignore[attr-defined]
    print("ready", flush=True)
    reactor.run()  # type: ignore[attr-defined]
