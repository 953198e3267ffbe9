"""One RPC connection: who calls, what it may call, what it is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

import walt
from walt.common.errors import Denied, Invalid, VersionMismatch
from walt.common.names import PLATFORM_USER, is_user_name
from walt.rpc.base import ApiProtocol
from walt.rpc.commands.session import (
    PROTOCOL,
    Hello,
    SetBusyLabel,
    ShowProgress,
    StderrWrite,
    StdoutWrite,
)
from walt.server.domain.requester import IRequester

_log = Logger()

Responder = Callable[..., Any]
# Peers that are not clients (nodes, anybody on the network) send short calls only.
MAX_BOX_OF_OTHERS = 64 * 1024

LocatorFactory = Callable[["Session"], Sequence[amp.CommandLocator]]


@implementer(IRequester)
class Session(ApiProtocol):
    """An AMP connection to the server, and the requester of its calls.

    `sides` are the sides of the schema that this peer may call (design D7);
    `account` is the user that the unix socket's credentials name, if any.
    Calls in progress are cancelled when the peer leaves.
    """

    def __init__(
        self, locators: LocatorFactory, sides: frozenset[str], *, peer: str,
        account: str | None = None,
    ) -> None:
        super().__init__()
        self.sides = sides
        self.peer = peer
        self.username = account or ""
        self._greeted = False
        self._calls: set[Deferred[Any]] = set()
        self._locators = locators(self)
        self._connected = True
        self._at_end: list[Callable[[], object]] = []
        if "cs" not in sides:
            self.max_box = MAX_BOX_OF_OTHERS

    # -- calls -----------------------------------------------------------

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return what answers a command, None if there is no such command."""
        if name == Hello.commandName:
            return super().locateResponder(name)
        for locator in self._locators:
            responder = locator.locateResponder(name)
            if responder is not None:
                return self._permitted(name, responder)
        return None

    def _permitted(self, name: bytes, responder: Responder) -> Responder:
        side = name.split(b".", 1)[0].decode()
        if side not in self.sides:
            return lambda box: self._deny(name)
        if side == "cs" and not self._greeted:
            return lambda box: self._not_greeted()
        return responder

    def _deny(self, name: bytes) -> None:
        raise Denied(
            f"{name.decode(errors='replace')} may not be called from {self.peer};"
            " clients of other machines need a certificate of this platform"
        )

    def _not_greeted(self) -> None:
        raise VersionMismatch("say hello first: this server wants to know the client's version")

    def dispatchCommand(self, box: Any) -> Deferred[Any]:
        """Run a responder; remember it, so that it ends with the connection."""
        running = super().dispatchCommand(box)
        if not running.called:
            self._calls.add(running)
            running.addBoth(self._finished, running)
        return running

    def _finished(self, result: Any, running: Deferred[Any]) -> Any:
        self._calls.discard(running)
        return result

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Cancel what this peer was waiting for."""
        self._connected = False
        super().connectionLost(reason)
        calls, self._calls = self._calls, set()
        for action in self._at_end:
            action()
        self._at_end.clear()
        for running in calls:
            running.addErrback(lambda failure: failure.trap(CancelledError, amp.RemoteAmpError))
            running.cancel()

    @Hello.responder
    def hello(
        self, program: str, version: str, protocol: int, username: str | None = None
    ) -> dict[str, Any]:
        """Check versions and user names."""
        if program == "walt" and version != walt.__version__:
            raise VersionMismatch(
                f"this server runs WalT {walt.__version__}, your client is {version};"
                f" install it with: pip install walt=={walt.__version__}"
            )
        if protocol != PROTOCOL:
            raise VersionMismatch(
                f"this server speaks protocol {PROTOCOL} (WalT {walt.__version__}), you speak"
                f" {protocol}"
            )
        user = username or self.username
        if user == PLATFORM_USER or (user and not is_user_name(user)):
            raise Invalid(
                f'"{user[:80]}" cannot be a user name: use lower-case letters, digits and'
                f" dashes; {PLATFORM_USER} is reserved"
            )
        if not user and "cs" in self.sides:
            raise Invalid("state a user name in hello")
        self.username = user
        self._greeted = True
        return {"version": walt.__version__, "protocol": PROTOCOL, "username": user}

    # -- requester -------------------------------------------------------

    def stdout(self, text: str) -> None:
        """Show a line on the client's standard output."""
        self._tell(StdoutWrite, text=text + "\n")

    def stderr(self, text: str) -> None:
        """Show a line on the client's standard error."""
        self._tell(StderrWrite, text=text + "\n")

    def busy(self, label: str) -> None:
        """Change the client's busy label."""
        self._tell(SetBusyLabel, label=label[:1000])

    def progress(self, text: str) -> None:
        """Tell how a long task goes."""
        self._tell(ShowProgress, text=text[:1000])

    def at_end(self, action: Callable[[], object]) -> None:
        """Call `action` when this connection is lost, at once if it is."""
        if self._connected:
            self._at_end.append(action)
        else:
            action()

    def _tell(self, command: type[amp.Command], **values: str) -> None:
        if self._connected:
            self.callRemote(command, **values)
