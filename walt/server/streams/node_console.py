"""REQ_NODE_CONSOLE: the console of a virtual node, what it said before included."""

from __future__ import annotations

from functools import partial
from typing import Any

from walt.common import frames
from walt.common.errors import Invalid, WaltError
from walt.server.domain.nodes.deeds import note_on_others
from walt.server.domain.virtual.console import Console
from walt.server.domain.virtual.machines import VirtualNodes
from walt.server.runtime.producing import Gate
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol
from walt.server.streams.node_command import NodeCommands

MAX_HELD = 256 * 1024  # bytes of output that wait for a late reader


class ConsoleRequest(FramedRequest):
    """Parameters: node. Data frames are output and input; there is no end but that of the peer.

    A machine waits for nobody: what a late reader cannot be told is left out, and it is told so.
    """

    def __init__(
        self, virtual: VirtualNodes, owner: NodeCommands, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(connection, peer)
        self._virtual = virtual
        self._owner = owner
        self._gate = Gate(resumed=self._caught_up)
        self._console: Console | None = None
        self._node = ""
        self._typed = False
        self._held = bytearray()
        self._lost = 0

    def opened(self, parameters: dict[str, Any]) -> None:
        name = parameters.get("node")
        if not isinstance(name, str):
            raise Invalid("node must be a text")
        console = self._virtual.console(name)
        node = self._owner.registry.named(name)
        self.connection.at_end(
            self._owner.open_sessions.opened(node.mac, self.username, "console opened")
        )
        self._node, self._console = name, console
        transport: Any = self.connection.transport
        transport.registerProducer(self._gate, True)
        past = console.watch(self._output)
        self.connection.at_end(partial(console.unwatch, self._output))
        self.data(past)

    def _output(self, data: bytes) -> None:
        if not self._gate.closed:
            self.data(data)
            return
        self._held += data
        excess = len(self._held) - MAX_HELD
        if excess > 0:
            self._lost += excess
            del self._held[:excess]

    def _caught_up(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self.message(f"{lost} bytes of output were left out: this reader is too slow\n")
        held, self._held = bytes(self._held), bytearray()
        if held:
            self.data(held)

    def frame(self, kind: bytes, payload: bytes) -> None:
        if kind != frames.DATA or self._console is None or not payload:
            return
        try:
            if not self._typed:
                self._typed = True
                note_on_others(
                    self._owner.platform, self._owner.registry.named(self._node), "console used",
                    self.username,
                )
            self._virtual.console_input(self._node, payload)
        except WaltError as error:  # the node was removed
            self._console = None
            transport: Any = self.connection.transport
            transport.unregisterProducer()
            self.fail(error)

    def lost(self) -> None:
        self._console = None
