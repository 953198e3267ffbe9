"""Stream request 13: images of SD cards for the first generation of VPN nodes.

`READY`, a pickled dictionary with `model` and `entrypoint`, then `ERR ` and a sentence (spec
node-protocols §6.2): those boards came in with a secret of the server, which WalT 10 took away.
"""

from __future__ import annotations

from walt.common.errors import Invalid
from walt.server.streams.base import Peer, Request, StreamProtocol
from walt.server.wire import pickled

ANSWER = (
    b"ERR VPN nodes need no image of an SD card any more: boards of model rpi-5-b enrol when they"
    b" boot in walt-net (walt help show vpn)\n"
)


class VpnImageRequest(Request):
    """Tells whoever asks what there is instead."""

    def __init__(self, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._pickles = pickled.Reader()
        self._done = False

    def started(self) -> None:
        self.connection.write(b"READY\n")

    def received(self, data: bytes) -> None:
        if self._done:
            return
        self._pickles.add(data)
        try:
            if self._pickles.take() is pickled.MORE:
                return
        except Invalid:
            self._done = True
            self.connection.abort()
            return
        self._done = True
        self.connection.header_complete()
        self.connection.write(ANSWER)
        self.connection.close()
