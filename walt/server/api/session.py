"""One RPC connection: who calls, what it may call, what it is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

import walt
from walt.common.errors import Denied, Invalid, VersionMismatch, not_yours
from walt.common.names import PLATFORM_USER, is_user_name
from walt.rpc.base import ApiProtocol, WaltCommand, abort, responders
from walt.rpc.commands.session import (
    PROTOCOL,
    GetClientPackage,
    Hello,
    SetBusyLabel,
    ShowProgress,
    StderrWrite,
    StdoutWrite,
)
from walt.server.domain.requester import IRequester, acting
from walt.server.domain.shares import Shares

_log = Logger()

# Peers that are not clients (nodes, anybody on the network) send short calls only.
MAX_BOX_OF_OTHERS = 64 * 1024
HELLO_PATIENCE = 30.0  # seconds
MAX_CALLS = 500  # of one peer in progress; the next ones wait

LocatorFactory = Callable[["Session"], Sequence[amp.CommandLocator]]


@implementer(IRequester)
class Session(ApiProtocol):
    """An AMP connection to the server, and the requester of its calls.

    `sides` are the sides of the schema that this peer may call (design D7);
    `account` is the user that the connection proves, if any: the credentials
    of a unix socket, or a certificate, which is `bound` to its user. `refusal`
    tells this peer why it may not call something; `observe` gets the name, the
    seconds and the error code of each call; `shares` limits the sessions of a
    user; with a `clock`, a client that does not say hello is not kept, and many calls are served in
    turns. A peer with `most_calls` in progress, one that does not read its answers, and one whose
    answer of many rows is made, is neither read nor served.
    Calls in progress are cancelled when the peer leaves.
    """

    def __init__(
        self, locators: LocatorFactory, sides: frozenset[str], *, peer: str,
        account: str | None = None, bound: bool = False, refusal: str = "",
        observe: Callable[[bytes, float, str], object] = lambda name, seconds, code: None,
        shares: Shares | None = None, clock: IReactorTime | None = None,
        most_calls: int = MAX_CALLS,
    ) -> None:
        super().__init__(clock)
        self._most_calls = most_calls
        self.sides = sides
        self.peer = peer
        self.username = account or ""
        self._bound = bound
        self._refusal = refusal
        self._observe = observe
        self._shares = shares
        self._late: Any = None
        self._greeted = False
        self._counted: str | None = None  # the user in whose share this is
        self._calls: set[Deferred[Any]] = set()
        self._found: dict[bytes, tuple[type[WaltCommand], Callable[..., Any]]] = {}
        self._locators = locators(self)
        self._connected = True
        self._at_end: list[Callable[[], object]] = []
        if "cs" not in sides:
            self.max_box = MAX_BOX_OF_OTHERS

    def connectionMade(self) -> None:
        """Wait for a hello, if this may be a client."""
        super().connectionMade()
        if self._clock is not None and "cs" in self.sides:
            self._late = self._clock.callLater(HELLO_PATIENCE, abort, self.transport)

    # -- calls -----------------------------------------------------------

    def find(self, name: bytes) -> tuple[type[WaltCommand], Callable[..., Any]] | None:
        """Return what answers a command. Raises Denied, VersionMismatch."""
        found = self._found.get(name)
        if found is None:
            found = self._locate(name)
            if found is None:
                return None
            self._check(name)
            if name.startswith(b"cs."):
                found = found[0], self._on_behalf(found[1])
            self._found[name] = found
        return found

    def _on_behalf(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return what serves a call in a context that tells whose it is."""
        def called(**values: Any) -> Any:
            context = copy_context()
            context.run(acting.set, self.username)
            result = context.run(method, **values)
            return context.run(Deferred.fromCoroutine, result) if iscoroutine(result) else result

        return called

    def _locate(self, name: bytes) -> tuple[type[WaltCommand], Callable[..., Any]] | None:
        for locator in (self, *self._locators):
            known = responders(type(locator)).get(name)
            if known is not None:
                return known[0], getattr(locator, known[1])
        return None

    def _check(self, name: bytes) -> None:
        side = name.split(b".", 1)[0].decode(errors="replace")
        if name == Hello.commandName:
            return
        if side not in self.sides:
            raise Denied(
                f"{name.decode(errors='replace')} may not be called from {self.peer};"
                f" {self._refusal}"
            )
        if side == "cs" and not self._greeted and name != GetClientPackage.commandName:
            raise VersionMismatch(
                "say hello first: this server wants to know the client's version"
            )

    def served(self, name: bytes, seconds: float, code: str) -> None:
        """Count a call."""
        self._observe(name, seconds, code)

    def full(self, full: bool) -> None:
        """Serve no further calls of a peer that does not read the answers."""
        if full:
            self.intake.hold()
        else:
            self.intake.release()

    def running(self, command: type[WaltCommand], call: Deferred[Any]) -> None:
        """Remember a call, so that it ends with the connection."""
        if command.many:
            self.intake.hold()
            call.addBoth(self._over)
        self._calls.add(call)
        call.addBoth(self._finished, call)
        if len(self._calls) == self._most_calls:
            self.intake.hold()  # the peer waits until some of its calls are over

    def _over(self, result: Any) -> Any:
        self.intake.release()
        return result

    def _finished(self, result: Any, call: Deferred[Any]) -> Any:
        full = len(self._calls) == self._most_calls
        self._calls.discard(call)
        if full and self._connected:
            self.intake.release()
        return result

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Cancel what this peer was waiting for."""
        self._connected = False
        super().connectionLost(reason)
        self.end()

    def end(self) -> None:
        """The peer is gone."""
        self._connected = False
        if self._late is not None and self._late.active():
            self._late.cancel()
        if self._counted is not None and self._shares is not None:
            self._shares.leave(self._counted)
        calls, self._calls = self._calls, set()
        for action in self._at_end:
            action()
        self._at_end.clear()
        for call in calls:
            call.cancel()

    @Hello.responder
    def hello(
        self, program: str, version: str, protocol: int, username: str | None = None
    ) -> dict[str, Any]:
        """Check versions and user names."""
        if program == "walt" and version != walt.__version__:
            raise VersionMismatch(
                f"this server runs WalT {walt.__version__}, your client is {version};"
                " in a terminal, walt offers to install the version of the server"
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
        if self._bound and user != self.username:
            raise not_yours(self.username, user)
        if not user and "cs" in self.sides:
            raise Invalid("state a user name in hello")
        self._count_as(user)
        if self._late is not None and self._late.active():
            self._late.cancel()
        self.username = user
        self._greeted = True
        return {"version": walt.__version__, "protocol": PROTOCOL, "username": user}

    def _count_as(self, user: str) -> None:
        """Take a place of a user's share. Who may call nothing of clients takes none: the
        name is not proved, and the user would be locked out. Raises LimitExceeded.
        """
        if self._shares is None or "cs" not in self.sides or user == self._counted:
            return
        self._shares.enter(user)
        if self._counted is not None:
            self._shares.leave(self._counted)
        self._counted = user

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
