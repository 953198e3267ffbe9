"""Stream request 12: boot files for the kexec tool and for remote virtual nodes of WalT 10.

`READY`, a pickled dictionary with `node_mac` or `node_ip` and `path`, then `OK`, the
size and the bytes, or one line that says what is wrong (spec node-protocols §6.2).
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure

from walt.common.errors import Invalid, NotFound
from walt.common.readers import end_if_idle
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.network_services.interfaces import IBootFiles
from walt.server.streams.base import Peer, Request, StreamProtocol
from walt.server.wire import pickled

_log = Logger()


class FakeTftpRequest(Request):
    """One file, of the node that asks; `files` provides IBootFiles.

    Users of the platform may ask for those of any node.
    """

    def __init__(
        self, files: IBootFiles, registry: DeviceRegistry, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(connection, peer)
        self._registry = registry
        self._files = files
        self._pickles = pickled.Reader()
        self._done = False

    def started(self) -> None:
        self.connection.write(b"READY\n")

    def received(self, data: bytes) -> None:
        if self._done:
            return
        self._pickles.add(data)
        try:
            parameters = self._pickles.take()
        except Invalid:
            self._done = True
            self.connection.abort()
            return
        if parameters is pickled.MORE:
            return
        self._done = True
        self.connection.header_complete()
        self._answer(parameters if isinstance(parameters, dict) else {})

    def _answer(self, parameters: dict[Any, Any]) -> None:
        node = parameters.get("node_mac") or parameters.get("node_ip")
        if not isinstance(node, str):
            self._say(b"NO MAC OR IP SPECIFIED\n")
            return
        path = parameters.get("path", "")
        try:
            if not isinstance(path, str) or not self._may_have(node):
                raise NotFound("no such file for this peer")
            found = self._files.open(node, path)
        except NotFound:
            self._say(b"NO SUCH FILE\n")
            return
        end_if_idle(self.connection.transport)
        self.connection.write(b"OK\n%d\n" % found.size)
        sending = FileSender().beginFileTransfer(found.stream, self.connection.transport)

        def sent(_: object) -> None:
            found.stream.close()
            self.connection.close()

        def cut(failure: Failure) -> None:
            found.stream.close()
            _log.debug("a node left before the end of its boot file: {why}", why=failure.value)

        sending.addCallbacks(sent, cut)

    def _may_have(self, node: str) -> bool:
        """Tell whether a node, by address or MAC, is the peer."""
        if self.peer.trusted:
            return True
        if self.peer.ip is None:
            return False
        device = self._registry.by_ip(self.peer.ip)
        return node == self.peer.ip or (device is not None and node.lower() == device.mac)

    def _say(self, line: bytes) -> None:
        self.connection.write(line)
        self.connection.close()
