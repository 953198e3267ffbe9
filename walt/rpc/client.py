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

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet import endpoints, ssl
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
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

LOCAL_SOCKET = "/run/walt/rpc.sock"
# Connecting again does not help when the server refuses who we are.
_FINAL = (VersionMismatch, Denied, Invalid)


def unix_endpoint(reactor: Any, path: str = LOCAL_SOCKET) -> IStreamClientEndpoint:
    """Return the way to the server of this machine."""
    return endpoints.UNIXClientEndpoint(reactor, path)


def tls_endpoint(
    reactor: Any, host: str, *, authority: bytes, certificate: bytes, key: bytes, port: int = RPC
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
    """One connection; the call-backs come from another object."""

    def __init__(self, call_backs: CallBacks) -> None:
        super().__init__()
        self._call_backs = call_backs

    def find(self, name: bytes) -> tuple[type[WaltCommand], Callable[..., Any]] | None:
        """Return the call-back of a command."""
        found = responders(self._call_backs.__class__).get(name)
        return (found[0], getattr(self._call_backs, found[1])) if found is not None else None


class WaltClient(ClientService):
    """A connection that is kept; `call` waits for it.

    `program` names the calling program in the server's log, `username` the
    user it acts for (default: what the connection proves). `retry` gives the
    pause before the n-th attempt, in seconds.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, *, program: str,
        username: str | None = None, call_backs: CallBacks | None = None,
        retry: Callable[[int], float] | None = None,
    ) -> None:
        call_backs = call_backs or CallBacks()
        factory = Factory.forProtocol(lambda: _Connection(call_backs))
        factory.noisy = False
        super().__init__(
            endpoint, factory, retry or backoffPolicy(0.2, 10.0), clock=reactor,
            prepareConnection=self._greet,
        )
        self._program = program
        self._user = username
        self._refused: WaltError | None = None

    async def call(self, command: type[WaltCommand], **arguments: Any) -> dict[str, Any]:
        """Return the answer of a command.

        Raises the errors of `walt.common.errors` that the server sends, and
        Unavailable when the connection is lost meanwhile.
        """
        try:
            connection: Any = await self.whenConnected()
        except Exception:
            raise self._refused or Unavailable("there is no connection to the server") from None
        try:
            answer: dict[str, Any] = await connection.callRemote(command, **arguments)
        except (ConnectionDone, ConnectionLost):
            raise Unavailable("the connection to the server was lost during the call") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the server does not know {command.commandName.decode()}"
            ) from None
        except amp.RemoteAmpError as error:
            raise _local(error) from None
        return answer

    def _greet(self, connection: Any) -> Deferred[Any]:
        values = {"username": self._user} if self._user else {}
        greeting: Deferred[Any] = connection.callRemote(
            Hello, program=self._program, version=walt.__version__, protocol=PROTOCOL, **values
        )
        greeting.addErrback(self._not_greeted, connection)
        return greeting

    def _not_greeted(self, failure: Failure, connection: Any) -> Failure:
        connection.transport.loseConnection()
        if failure.check(*_FINAL):
            self._refused = failure.value  # type: ignore[assignment]
            self.stopService()
        return failure


def _local(error: amp.RemoteAmpError) -> WaltError:
    code = error.errorCode.decode(errors="replace")
    return ERRORS.get(code, WaltError)(str(error.description))
