"""The legacy line protocol, for the NS and VS calls of old images (design D6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import signature
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import Invalid, WaltError
from walt.common.literals import MAX_LINE, parse
from walt.rpc.base import abort
from walt.server.wire import pickled

_log = Logger()

# What packages in images expect: a float of at least 8.0 (spec node-protocols §0.3, trap 15).
LEGACY_VERSION = b"10.0\n"
MODES = ("pickle4", "line-repr-eval")
MAX_BUFFER = MAX_LINE + 4096  # what a peer may send ahead of the answers it waits for
REQUESTS = (b"10", b"REQ_API_SESSION")

Method = Callable[..., Awaitable[Any]]
Apis = Mapping[str, Mapping[str, Method]]


class LegacyProtocol(Protocol):
    """`10`, API name, then one literal a line (or pickle); calls are answered in order.

    `apis` holds the methods of NSAPI and VSAPI this peer may call. A CSAPI
    session gets our version and is closed: its client must be upgraded.
    """

    def __init__(self, apis: Apis, version: str) -> None:
        self._apis = apis
        self._version = version
        self._data = b""
        self._pickles: pickled.Reader | None = None
        self._closed = False
        self._methods: Mapping[str, Method] | None = None
        self._greeted = False
        self._call: Deferred[Any] | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._pickles is None:
            self._data += data
        else:
            self._pickles.add(data)
        if len(self._data) + len(self._pickles or b"") > MAX_BUFFER:
            self._abort()
            return
        self._advance()

    def _advance(self) -> None:
        while self._call is None and not self._closed:
            if self._pickles is not None:
                if not self._take_pickle(self._pickles):
                    return
                continue
            line, newline, rest = self._data.partition(b"\n")
            if not newline:
                if len(line) > MAX_LINE:
                    self._abort()
                return
            self._data = rest
            self._line(line.strip())

    def _line(self, line: bytes) -> None:
        if not self._greeted:
            self._greeted = True
            if line not in REQUESTS:
                self._close()
        elif self._methods is None:
            self._open(line.decode(errors="replace"))
        elif line:
            try:
                message = parse(line)
            except Invalid:
                self._close()
            else:
                self._message(message)

    def _take_pickle(self, pickles: pickled.Reader) -> bool:
        """Handle the next pickle; False when it is not complete."""
        try:
            message = pickles.take()
        except Invalid:
            self._close()
            return False
        if message is pickled.MORE:
            return False
        self._message(message)
        return True

    def _open(self, api: str) -> None:
        if api == "CSAPI":
            self._write(f"{self._version}\n".encode())
            self._close()
        elif api in self._apis:
            self._methods = self._apis[api]
            self._write(LEGACY_VERSION)
        else:
            self._close()

    def _message(self, message: Any) -> None:
        if not isinstance(message, tuple) or not message:
            self._close()
            return
        if len(message) == 2 and message[0] == "SET_MODE" and message[1] in MODES:
            self._change_mode(message[1] == "pickle4")
            return
        if len(message) != 4 or message[0] != "API_CALL":
            self._close()  # 'CLOSE', or anything else
            return
        _, name, args, kwargs = message
        method = (self._methods or {}).get(name) if isinstance(name, str) else None
        if method is None or not isinstance(args, tuple) or not isinstance(kwargs, dict):
            self._answer_error("no such method, or no arguments")
            return

        async def work() -> Any:
            try:
                signature(method).bind(*args, **kwargs)
            except TypeError as error:
                raise Invalid(f"{name}: {error}") from None
            return await method(*args, **kwargs)

        self._call = Deferred.fromCoroutine(work())
        self._call.addCallbacks(self._answer, self._failed)

    def _change_mode(self, pickles: bool) -> None:
        """Read what comes from now on, and what has come already, as pickles or as lines."""
        if pickles and self._pickles is None:
            self._pickles = pickled.Reader()
            self._pickles.add(self._data)
            self._data = b""
        elif not pickles and self._pickles is not None:
            self._data, self._pickles = self._pickles.rest(), None

    def _answer(self, value: Any) -> None:
        # Read by words in the nodes' shell scripts: one space after the comma.
        if self._pickles is not None:
            self._write(pickled.dump(("RESULT", value)))
        else:
            self._write(f"('RESULT', {value!r})\n".encode())
        self._next()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # the peer is gone
        if failure.check(WaltError):
            self._answer_error(str(failure.value)[:1000])
        else:
            _log.failure("legacy call failed", failure)
            self._answer_error("internal error; see the log of the server")

    def _answer_error(self, text: str) -> None:
        if self._pickles is not None:  # the peer raises what it gets
            self._write(pickled.dump(("RESULT", RuntimeError(text))))
        else:
            self._write(f"('EXCEPTION', {text!r})\n".encode())
        self._next()

    def _next(self) -> None:
        self._call = None
        self._advance()

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _close(self) -> None:
        self._closed = True
        if self.transport is not None:
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._closed = True
        abort(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._closed = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
