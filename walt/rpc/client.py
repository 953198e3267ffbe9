"""A client of the server for programs on Twisted.

    client = WaltClient(reactor, unix_endpoint(reactor), program="night-runs")
    client.startService()
    answer = await client.call(ShowNodes, all=True)
    print(answer["tables"])
    await client.stopService()

Calls are the classes of `walt.rpc.commands`; their arguments and answers are in
docs/amp.md. A lost connection is made again by itself; a call that was under
way fails with Unavailable, and is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet import endpoints, ssl
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

import walt
from walt.common.errors import ERRORS, Denied, Invalid, Unavailable, VersionMismatch, WaltError
from walt.common.ports import RPC
from walt.rpc.base import ApiProtocol, WaltCommand, responders
from walt.rpc.commands.session import (
    PROTOCOL,
    Hello,
    SetBusyLabel,
    ShowProgress,
    StderrWrite,
    StdoutWrite,
)

_log = Logger()

LOCAL_SOCKET = "/run/walt/rpc.sock"
# Connecting again does not help when the server refuses who we are.
FINAL = (VersionMismatch, Denied, Invalid)


def unix_endpoint(reactor: IReactorTime, path: str = LOCAL_SOCKET) -> IStreamClientEndpoint:
    """Return the way to the server of this machine."""
    return endpoints.UNIXClientEndpoint(reactor, path)


def tls_endpoint(
    reactor: IReactorTime, host: str, *, authority: bytes, certificate: bytes, key: bytes,
    port: int = RPC,
) -> IStreamClientEndpoint:
    """Return the way to the server of another machine, with what an enrolment gave, in PEM.

    `host`, a name or an address, is checked against the server's certificate.
    """
    return endpoints.wrapClientTLS(
        ssl.optionsForClientTLS(
            host, trustRoot=ssl.trustRootFromCertificates(
                [ssl.Certificate.loadPEM(authority)]
            ),
            clientCertificate=ssl.PrivateCertificate.fromCertificateAndKeyPair(
                ssl.Certificate.loadPEM(certificate), ssl.KeyPair.load(key, ssl.SSL.FILETYPE_PEM)
            ),
        ),
        endpoints.HostnameEndpoint(reactor, host, port),
    )


class CallBacks(amp.CommandLocator):
    """What the server tells during calls; a program overrides what it wants to know."""

    @StdoutWrite.responder
    def stdout(self, text: str) -> dict[str, Any]:
        """A text for standard output."""
        return {}

    @StderrWrite.responder
    def stderr(self, text: str) -> dict[str, Any]:
        """A text for standard error."""
        return {}

    @SetBusyLabel.responder
    def busy(self, label: str) -> dict[str, Any]:
        """What the server is busy with."""
        return {}

    @ShowProgress.responder
    def progress(self, text: str) -> dict[str, Any]:
        """How a long task goes."""
        return {}


class _Connection(ApiProtocol):
    """One connection; the call-backs come from another object, `lost` fires at its end."""

    def __init__(self, call_backs: CallBacks) -> None:
        super().__init__()
        self._call_backs = call_backs
        self.lost: Deferred[None] = Deferred()

    def find(self, name: bytes) -> tuple[type[WaltCommand], Callable[..., Any]] | None:
        """Return the call-back of a command."""
        found = responders(self._call_backs.__class__).get(name)
        return (found[0], getattr(self._call_backs, found[1])) if found is not None else None

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Fail the calls under way, and tell the client."""
        self.lost.callback(None)
        super().connectionLost(reason)


def backoff(attempt: int) -> float:
    """Return the pause before the n-th attempt to connect, in seconds: 0.2 to 10."""
    return min(10.0, 0.2 * 1.6 ** (attempt - 1))


class WaltClient(Service):
    """A connection that is kept; `call` waits for it.

    `program` names the calling program in the server's log, `username` the
    user it acts for (default: what the connection proves). `retry` gives the
    pause before the n-th attempt, in seconds.
    """

    def __init__(
        self, reactor: IReactorTime, endpoint: IStreamClientEndpoint, *, program: str,
        username: str | None = None, call_backs: CallBacks | None = None,
        retry: Callable[[int], float] = backoff,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        call_backs = call_backs or CallBacks()
        self._factory = Factory.forProtocol(lambda: _Connection(call_backs))
        self._factory.noisy = False
        self._program = program
        self._user = username
        self._retry = retry
        self._connection: _Connection | None = None
        self._refused: WaltError | None = None
        self._settled: Deferred[None] = Deferred()  # connected, refused or stopped
        self._work: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Connect, and keep connected."""
        super().startService()
        self._refused = None
        self._work = Deferred.fromCoroutine(self._keep_connected())

    async def stopService(self) -> None:
        """Close the connection; calls that wait fail with Unavailable."""
        super().stopService()
        self._work.addErrback(lambda failure: failure.trap(CancelledError))
        self._work.cancel()
        connection, self._connection = self._connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.loseConnection()
            await connection.lost
        self._wake()

    async def call(self, command: type[WaltCommand], **arguments: Any) -> dict[str, Any]:
        """Return the answer of a command.

        Raises the errors of `walt.common.errors` that the server sends, and
        Unavailable when the connection is lost meanwhile.
        """
        if self._connection is None and self.running and self._refused is None:
            await shielded(self._settled)
        if self._refused is not None:
            raise self._refused
        if self._connection is None:
            raise Unavailable("there is no connection to the server")
        return await self._ask(self._connection, command, arguments)

    async def _keep_connected(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                connection: Any = await self._endpoint.connect(self._factory)
                await self._greet(connection)
            except FINAL as error:
                self._refused = error
                self._reactor.callLater(0, self._wake)
                return
            except (WaltError, ConnectError, ConnectionDone, ConnectionLost, SSL.Error) as error:
                _log.debug("no connection to the server: {error}", error=error)
                await deferLater(self._reactor, self._retry(attempt), lambda: None)
                continue
            attempt = 0
            self._connection = connection
            # Not from here: who waits may stop this very loop.
            self._reactor.callLater(0, self._wake)
            await shielded(connection.lost)
            self._connection = None

    async def _greet(self, connection: Any) -> None:
        values = {"username": self._user} if self._user else {}
        try:
            await self._ask(connection, Hello, {
                "program": self._program, "version": walt.__version__, "protocol": PROTOCOL,
                **values,
            })
        except BaseException:
            connection.transport.loseConnection()
            raise

    async def _ask(
        self, connection: Any, command: type[WaltCommand], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await connection.callRemote(command, **arguments)
        except (ConnectionDone, ConnectionLost, ConnectionAborted):
            raise Unavailable("the connection to the server was lost during the call") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the server does not know {command.commandName.decode()}"
            ) from None
        except amp.RemoteAmpError as error:
            raise _local(error) from None
        return answer

    def _wake(self) -> None:
        settled, self._settled = self._settled, Deferred()
        settled.callback(None)


def shielded(event: Deferred[None]) -> Deferred[None]:
    """Return a Deferred that fires with another one; cancelled, it leaves that alone."""
    follower: Deferred[None] = Deferred()
    event.addCallback(lambda _: None if follower.called else follower.callback(None))
    return follower


def _local(error: amp.RemoteAmpError) -> WaltError:
    code = error.errorCode.decode(errors="replace")
    return ERRORS.get(code, WaltError)(str(error.description))
