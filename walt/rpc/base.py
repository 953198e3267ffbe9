"""Base classes of the AMP contract.

One mechanism carries long values (design D5): a value above 65,535 bytes is
split into ``key``, ``key+1``, ``key+2``… on its way out and joined on its way
in, for every command, argument, answer and error text.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from walt.common import ampbox
from walt.common.errors import (
    ERRORS,
    InternalError,
    Invalid,
    WaltError,
    disk_refuses,
)
from walt.rpc.intake import Intake
from walt.rpc.outbox import Outbox

_log = Logger()

_Method = TypeVar("_Method", bound=Callable[..., Any])


class WaltCommand(amp.Command):
    """A command of the public schema.

    `side` is the side that answers: cs, ns, ss, vs (the server, for a client,
    a node, a tool of the server, a virtual host) or client (call-backs).
    `since` is the product version that introduced it. An answer with `many` rows takes several
    turns, and memory: each peer gets one after the other.
    """

    side = ""
    since = "11.0"
    many = False
    # AMP sends the code of the first class that matches: the base class comes last.
    errors: ClassVar[dict[type[Exception], bytes]] = {
        error: error.code.encode()
        for error in sorted(ERRORS.values(), key=lambda error: error is WaltError)
    }

    @classmethod
    def responder(cls, methodfunc: _Method) -> _Method:
        """Mark a method that answers this command; one method may answer several."""
        others = getattr(methodfunc, "answers", ())
        methodfunc.answers = (*others, cls)  # type: ignore[attr-defined]
        return methodfunc

    @classmethod
    def parseArguments(cls, box: Any, protocol: Any) -> dict[str, Any]:
        """Return the values of a call's arguments. Raises Invalid, naming the wrong one."""
        values: dict[str, Any] = {}
        for wire_name, name, argument in python_names(cls):
            raw = box.get(wire_name)
            try:
                if raw is not None:
                    values[name] = argument.fromStringProto(raw, protocol)
                elif argument.optional:
                    values[name] = None
                else:
                    raise Invalid("it is missing")
            except (ValueError, TypeError):
                raise Invalid(f"argument {name} has a wrong type") from None
            except Invalid as error:
                raise Invalid(f"argument {name}: {error}") from None
        return values


@functools.cache
def python_names(command: type[WaltCommand]) -> list[tuple[bytes, str, amp.Argument]]:
    """Return the arguments of a command: name on the wire, in Python, and type."""
    return [(name, name.decode(), argument) for name, argument in command.arguments]


@functools.cache
def responders(locator: type) -> Mapping[bytes, tuple[type[WaltCommand], str]]:
    """Return the commands that a class answers: wire name to (command, name of the method)."""
    found = {}
    for name in dir(locator):
        for command in getattr(getattr(locator, name, None), "answers", ()):
            found[command.commandName] = (command, name)
    return found


def abort(transport: Any) -> None:
    """Close a connection at once, if it is there."""
    if transport is not None:
        transport.abortConnection()


class ApiProtocol(amp.AMP):
    """An AMP connection that carries long values and contains errors.

    A bug in a responder becomes a clean INTERNAL error with a reference that
    the log has too; the connection stays usable. `max_box` bounds the bytes of
    one box, joined values included. With a `clock`, calls that arrive together are
    served in several turns of its reactor.
    """

    max_box = ampbox.MAX_WHOLE_VALUE

    def __init__(self, clock: IReactorTime | None = None) -> None:
        super().__init__()
        self._clock = clock

    @functools.cached_property
    def intake(self) -> Intake:
        """What arrived and is not served yet."""
        return Intake(
            self.ampBoxReceived, self._may_read, self._broken, self.max_box, self._clock
        )

    @functools.cached_property
    def outbox(self) -> Outbox:
        """What waits to be written."""
        return Outbox(cast(IConsumer, self.transport), self.full)

    def sendBox(self, box: Any) -> None:
        """Write a box, long values split."""
        if self.transport is not None:
            self.outbox.send(ampbox.parts(box))

    def dataReceived(self, data: bytes) -> None:
        """Serve every complete box. What is no box, or too long, ends the connection."""
        self.intake.feed(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Serve nothing any more."""
        self.intake.end()
        super().connectionLost(reason)

    def _may_read(self, may: bool) -> None:
        transport: Any = self.transport
        if transport is None:
            return  # calls come otherwise
        if may:
            transport.resumeProducing()
        else:
            transport.pauseProducing()

    def _broken(self, error: Exception) -> None:
        _log.info("a peer of the RPC sent what is no call: {error}", error=str(error)[:200])
        abort(self.transport)

    def ampBoxReceived(self, box: Any) -> None:
        """Join the pieces of long values, then serve a call or take an answer."""
        for key in [key for key in box if b"+" in key and key.endswith(b"+1")]:
            name = key[:-2]
            whole = ampbox.join_value(name, box)
            if whole is not None:
                box[name] = whole
        if amp.ANSWER in box or amp.ERROR in box:
            try:
                super().ampBoxReceived(box)
            except KeyError:
                raise ampbox.BadBox("an answer to nothing") from None
        elif amp.COMMAND in box:
            self._serve(box)
        else:
            raise ampbox.BadBox("neither a call nor an answer")

    def find(self, name: bytes) -> tuple[type[WaltCommand], Callable[..., Any]] | None:
        """Return a command and what answers it, None if there is none; a WaltError refuses."""
        found = responders(type(self)).get(name)
        return (found[0], getattr(self, found[1])) if found is not None else None

    def running(self, command: type[WaltCommand], call: Deferred[Any]) -> None:
        """A call takes time. Subclasses may remember it."""

    def full(self, full: bool) -> None:
        """The peer takes less than it is sent, or does so no more. Subclasses may serve it later.
        """

    def served(self, name: bytes, seconds: float, code: str) -> None:
        """A call is over; `code` is empty when it succeeded. Subclasses may count it."""

    def _serve(self, box: Any) -> None:
        name, ask, begun = box[amp.COMMAND], box.get(amp.ASK), time.perf_counter()
        try:
            found = self.find(name)
            if found is None:
                self._refuse(
                    ask, amp.UNHANDLED_ERROR_CODE, f"Unhandled Command: {name[:100]!r}"
                )
                return
            command, method = found
            result = method(**command.parseArguments(box, self))
            if isinstance(result, dict):
                self._answer(ask, command, result)
                self.served(name, time.perf_counter() - begun, "")
                return
            call = maybeDeferred(lambda: result)
        except Exception:
            self._failed(Failure(), name, ask, begun)
            return

        def succeeded(result: dict[str, Any]) -> None:
            self._answer(ask, command, result)
            self.served(name, time.perf_counter() - begun, "")

        call.addCallback(succeeded).addErrback(self._failed, name, ask, begun)
        if not call.called:
            self.running(command, call)

    def _answer(self, ask: bytes | None, command: type[WaltCommand], result: Any) -> None:
        answer = command.makeResponse(result, self)
        if ask is not None:
            answer[amp.ANSWER] = ask
            self.sendBox(answer)

    def _refuse(self, ask: bytes | None, code: bytes, text: str) -> None:
        if ask is not None:
            self.sendBox({
                amp.ERROR: ask, amp.ERROR_CODE: code,
                amp.ERROR_DESCRIPTION: text.encode(errors="replace"),
            })

    def _failed(self, failure: Failure, name: bytes, ask: bytes | None, begun: float) -> None:
        if failure.check(CancelledError):
            return  # the peer is gone: nobody reads this answer
        full = disk_refuses(failure.value)
        if failure.check(WaltError):
            error: WaltError = failure.value  # type: ignore[assignment]
        elif full is not None:
            _log.error("{command}: {text}", command=name.decode(errors="replace")[:100],
                       text=str(full))
            error = full
        else:
            reference = f"{id(failure):x}"[-6:]
            _log.failure(
                "undeclared error in {command} (reference {reference})", failure,
                command=name.decode(errors="replace")[:100], reference=reference,
            )
            error = InternalError(
                f"internal error (reference {reference}); the server's log has the details"
            )
        self._refuse(ask, error.code.encode(), str(error))
        self.served(name, time.perf_counter() - begun, error.code)
