"""REQ_NODE_CMD, REQ_DEVICE_PING, REQ_DEVICE_SHELL: programs for a client (S-156, S-157)."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any, Generic, TypeVar

from walt.common import frames
from walt.common.errors import Invalid
from walt.common.texts import load_json
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.deeds import note_on_others
from walt.server.domain.nodes.plans import OpenSessions
from walt.server.domain.nodes.sessions import ISession, ISessions, Terminal
from walt.server.runtime.producing import Pace
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
MAX_COMMAND = 60_000

_Owner = TypeVar("_Owner")  # what makes the requests of one server


class NodeCommands:
    """What the requests of one server share."""

    def __init__(
        self, registry: DeviceRegistry, sessions: ISessions, platform: PlatformLog,
        open_sessions: OpenSessions,
    ) -> None:
        self.registry = registry
        self.sessions = sessions
        self.platform = platform
        self.open_sessions = open_sessions


def parse_terminal(value: Any) -> Terminal | None:
    """Check the JSON description of a client's terminal. Raises Invalid."""
    if value is None:
        return None
    term = value.get("term") if isinstance(value, dict) else None
    if not isinstance(term, str) or not _TERM.fullmatch(term):
        raise Invalid("a terminal needs a type, rows and columns")
    return Terminal(term, *_size(value))


def _size(value: dict[str, Any]) -> tuple[int, int]:
    rows, columns = value.get("rows"), value.get("columns")
    if type(rows) is not int or type(columns) is not int or not (
        0 < rows < 10_000 and 0 < columns < 10_000
    ):
        raise Invalid("rows and columns must be whole numbers from 1 to 9999")
    return rows, columns


def _named(parameters: dict[str, Any], key: str, owner: NodeCommands) -> Device:
    name = parameters.get(key)
    if not isinstance(name, str):
        raise Invalid(f"{key} must be a text")
    return owner.registry.named(name)


def node_address(
    parameters: dict[str, Any], owner: NodeCommands, deed: str, request: FramedRequest
) -> str:
    """Return the address of the parameter `node`. Raises Invalid or NotFound.

    The request is a session on that node from now on. What is done to a node of somebody else
    is noted in the log of the platform.
    """
    node = _named(parameters, "node", owner)
    if not node.is_node or node.ip is None:
        raise Invalid(f"{node.name} is not a node with an address")
    note_on_others(owner.platform, node, deed, request.username)
    request.connection.at_end(owner.open_sessions.opened(node.mac, request.username, deed))
    return node.ip


def device_address(parameters: dict[str, Any], owner: NodeCommands) -> str:
    """Return the address of the parameter `device`. Raises Invalid or NotFound."""
    device = _named(parameters, "device", owner)
    if device.ip is None:
        raise Invalid(f"the address of {device.name} is not known yet")
    return device.ip


class SessionRequest(FramedRequest, Generic[_Owner]):
    """A program whose input and output belong to the client; subclasses start it."""

    def __init__(self, owner: _Owner, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._owner = owner
        self._session: ISession | None = None

    def opened(self, parameters: dict[str, Any]) -> None:
        session = self._session = self.start(parameters, self._owner)
        transport: Any = self.connection.transport
        transport.registerProducer(Pace(session.pause, session.resume, stop=lambda: None), True)
        session.throttle(transport)

    @abstractmethod
    def start(self, parameters: dict[str, Any], owner: _Owner) -> ISession:
        """Check the parameters and start the program; return its ISession."""

    def errors(self, data: bytes) -> None:
        """Send what the program wrote on its standard error."""
        self.connection.write(frames.encode(frames.MESSAGE, data))

    def ended(self, status: int) -> None:
        """The program ended."""
        self._session = None
        transport: Any = self.connection.transport
        if transport is not None:
            transport.unregisterProducer()
            self.result(status=status)

    def frame(self, kind: bytes, payload: bytes) -> None:
        if self._session is None:
            return
        if kind == frames.DATA:
            self._session.write(payload)
        elif kind == frames.END:
            self._session.end_of_input()
        elif kind == frames.WINDOW:
            try:
                self._session.resize(*_size(load_json(payload)))
            except (ValueError, AttributeError, Invalid):
                self.connection.abort()

    def lost(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class NodeCommandRequest(SessionRequest[NodeCommands]):
    """Parameters: node, command, node_terminal, terminal {term, rows, columns}."""

    def start(self, parameters: dict[str, Any], owner: NodeCommands) -> ISession:
        """Run a command on a node by ssh."""
        command = parameters.get("command", "")
        if not isinstance(command, str):
            raise Invalid("command must be a text")
        if len(command) > MAX_COMMAND or "\0" in command:
            raise Invalid("this command is too long, or holds a NUL")
        return owner.sessions.node_command(
            node_address(
                parameters, owner, "command run" if command else "shell opened", self
            ), command,
            node_terminal=parameters.get("node_terminal") is True,
            terminal=parse_terminal(parameters.get("terminal")),
            output=self.data, errors=self.errors, ended=self.ended,
        )


class PingRequest(SessionRequest[NodeCommands]):
    """Parameters: device."""

    def start(self, parameters: dict[str, Any], owner: NodeCommands) -> ISession:
        """Ping a device."""
        return owner.sessions.ping(
            device_address(parameters, owner),
            output=self.data, errors=self.errors, ended=self.ended,
        )


class DeviceShellRequest(SessionRequest[NodeCommands]):
    """Parameters: device, user, terminal {term, rows, columns}."""

    def start(self, parameters: dict[str, Any], owner: NodeCommands) -> ISession:
        """Open a shell on a device that is not a node, by ssh."""
        user = parameters.get("user")
        if not isinstance(user, str) or not _ACCOUNT.fullmatch(user):
            raise Invalid("this is not the name of an account")
        address = device_address(parameters, owner)
        return owner.sessions.device_shell(
            address, user, terminal=parse_terminal(parameters.get("terminal")),
            output=self.data, errors=self.errors, ended=self.ended,
        )
