"""Base classes of the AMP contract.

One mechanism carries long values (design D5): a value above 65,535 bytes is
split into ``key``, ``key+1``, ``key+2``… on its way out and joined on its way
in, for every command, argument, answer and error text.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from walt.common import ampbox
from walt.common.errors import ERRORS, InternalError, Invalid, LimitExceeded, WaltError

_log = Logger()


class WaltCommand(amp.Command):
    """A command of the public schema.

    `side` is the side that answers: cs, ns, ss, vs (the server, for a client,
    a node, a tool of the server, a virtual host) or client (call-backs).
    `since` is the product version that introduced it.
    """

    side = ""
    since = "11.0"
    # AMP sends the code of the first class that matches: the base class comes last.
    errors: ClassVar[dict[type[Exception], bytes]] = {
        error: error.code.encode()
        for error in sorted(ERRORS.values(), key=lambda error: error is WaltError)
    }

    @classmethod
    def parseArguments(cls, box: Any, protocol: Any) -> dict[str, Any]:
        """Return the values of a call's arguments. Raises Invalid, naming the wrong one."""
        values: dict[str, Any] = {}
        strings = dict(box)
        for name, argument in cls.arguments:
            try:
                argument.fromBox(name, strings, values, protocol)
            except KeyError:
                raise Invalid(f"argument {name.decode()} is missing") from None
            except (ValueError, TypeError):
                raise Invalid(f"argument {name.decode()} has a wrong type") from None
            except Invalid as error:
                raise Invalid(f"argument {name.decode()}: {error}") from None
        return values


class ApiProtocol(amp.AMP):
    """An AMP connection that carries long values and contains errors.

    A bug in a responder becomes a clean INTERNAL error with a reference that
    the log has too; the connection stays usable. `max_box` bounds the bytes of
    one box, joined values included.
    """

    max_box = ampbox.MAX_WHOLE_VALUE
    _box_size = 0
    _refused = False

    def sendBox(self, box: Any) -> None:
        """Write a box, long values split."""
        if self.transport is not None:
            self.transport.write(ampbox.encode(box))

    def lengthLimitExceeded(self, length: int) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def proto_key(self, string: bytes) -> str:
        self._count(len(string))
        return super().proto_key(string)

    def proto_value(self, string: bytes) -> str:
        self._count(len(string))
        return super().proto_value(string)

    def _count(self, size: int) -> None:
        self._box_size += size + 2
        if self._box_size > self.max_box and self.transport is not None:
            self._refused = True
            ITCPTransport(self.transport).abortConnection()

    def ampBoxReceived(self, box: Any) -> None:
        """Join the pieces of long values, then dispatch."""
        self._box_size = 0
        if self._refused:
            return
        if any(b"+" in key for key in box):
            for key in [key for key in box if key + b"+1" in box]:
                whole = ampbox.join_value(key, box)
                assert whole is not None
                box[key] = whole
        super().ampBoxReceived(box)

    def dispatchCommand(self, box: Any) -> Deferred[Any]:
        """Run a responder; undeclared errors become INTERNAL ones."""
        command = box.get(amp.COMMAND, b"")
        try:
            answer = super().dispatchCommand(box)
        except Exception:
            answer = fail(Failure())
        answer.addErrback(self._contain, command)
        return answer

    def _contain(self, failure: Failure, command: bytes) -> Failure:
        if failure.check(amp.RemoteAmpError):
            return failure
        if failure.check(CancelledError):
            # The peer is gone: nobody reads this answer.
            raise amp.RemoteAmpError(b"CANCELLED", "the call was cancelled", False)
        if failure.check(WaltError):
            error: WaltError = failure.value  # type: ignore[assignment]
        else:
            reference = f"{id(failure):x}"[-6:]
            _log.failure(
                "undeclared error in {command} (reference {reference})", failure,
                command=command.decode(errors="replace"), reference=reference,
            )
            error = InternalError(
                f"internal error (reference {reference}); the server's log has the details"
            )
        raise amp.RemoteAmpError(error.code.encode(), str(error), False)


def bounded(count: int, limit: int, what: str) -> None:
    """Raise LimitExceeded when there are more than `limit` of `what`."""
    if count > limit:
        raise LimitExceeded(f"{count} {what} exceed the limit of {limit}")
