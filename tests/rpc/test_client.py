"""The client library for programs on Twisted: typed calls, call-backs, reconnection."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.fakes.transports import serve
from tests.patience import patient
from walt.common.errors import (
    Denied,
    InternalError,
    Invalid,
    NotFound,
    Unavailable,
    VersionMismatch,
)
from walt.rpc import client as client_module
from walt.rpc import rows
from walt.rpc.client import CallBacks, WaltClient, unix_endpoint
from walt.rpc.commands.devices import GetDevice
from walt.rpc.commands.nodes import ShowNodes, WaitNodes
from walt.rpc.commands.session import StdoutWrite
from walt.server.api.session import Session

reactor: Any = any_reactor


NO_NODES: dict[str, Any] = {"own": [], "free": [], "others": [], "total": 0}


def row(**values: Any) -> dict[str, Any]:
    """Return a row of `cs.nodes.show` with these values, and empty others."""
    empty: dict[str, Any] = {"text": "", "truth": False, "object": {}}
    fields = rows.NODES.rows.row.fields.items()
    return {name: None if one.null else empty[one.kind] for name, one in fields} | values


class Api:
    """Answers a few commands; `asked` has what it was asked to wait for."""

    asked: list[str] = []

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting: Deferred[Any] = Deferred()

    @ShowNodes.responder
    def show(self, all: bool) -> dict[str, Any]:
        self.session.stdout(f"hello {self.session.username}")
        return {"tables": {**NO_NODES, "own": [row(name="x" * 100_000)] if all else []}}

    @WaitNodes.responder
    def wait(self, nodes: str) -> Deferred[Any]:
        Api.asked.append(nodes)
        return self.waiting

    @GetDevice.responder
    def get(self, name: str) -> dict[str, Any]:
        if name == "bug":
            raise RuntimeError("a secret")
        raise NotFound(f"there is no {name}")


class Told(CallBacks):
    """Remembers what the server told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    @StdoutWrite.responder
    def stdout(self, text: str) -> dict[str, Any]:
        self.texts.append(text)
        return {}


class ClientTests(TestCase):
    timeout = patient(20)

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="wt", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "rpc.sock")
        self.sides = frozenset({"cs"})
        self.sessions: list[Session] = []
        self.told = Told()
        self.tries: list[int] = []
        self.patch(Api, "asked", [])

    def retry(self, attempt: int) -> float:
        """Try again soon."""
        self.tries.append(attempt)
        return 0.02

    def listen(self) -> Any:
        """Open the server's socket."""
        port = reactor.listenUNIX(self.path, serve(self.session))
        self.addCleanup(port.stopListening)
        return port

    def session(self) -> Session:
        """Return the server's end of a connection."""
        self.sessions.append(
            Session(lambda one: [Api(one)], self.sides, peer="unix", account="ann")  # type: ignore[list-item]
        )
        return self.sessions[-1]

    def client(self, **options: Any) -> WaltClient:
        """Return a client that is started."""
        client = WaltClient(
            reactor, unix_endpoint(reactor, self.path), program="test",
            call_backs=self.told, retry=self.retry, **options,
        )
        client.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stopService()))
        return client

    async def until(self, condition: Any) -> None:
        """Wait for a condition."""
        while not condition():
            await deferLater(reactor, 0.01, lambda: None)

    async def test_calls(self) -> None:
        """Answers of any size, call-backs, errors as what they are."""
        self.listen()
        client = self.client(username="bob")
        answer = await client.call(ShowNodes, all=True)
        self.assertEqual(len(answer["tables"]["own"][0]["name"]), 100_000)
        await self.until(lambda: self.told.texts == ["hello bob\n"])
        with self.assertRaises(NotFound) as caught:
            await client.call(GetDevice, name="it")
        self.assertEqual(str(caught.exception), "there is no it")
        with self.assertRaises(InternalError) as bug:
            await client.call(GetDevice, name="bug")
        self.assertNotIn("secret", str(bug.exception))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_reconnection(self) -> None:
        """A lost connection fails the call under way; the next call waits for a new one."""
        client = self.client()
        early = Deferred.fromCoroutine(client.call(ShowNodes, all=False))
        await self.until(lambda: self.tries)
        self.listen()
        await early
        lost = Deferred.fromCoroutine(client.call(WaitNodes, nodes="n1"))
        await self.until(lambda: Api.asked == ["n1"])
        self.sessions[0].transport.abortConnection()  # type: ignore[union-attr]
        await self.assertFailure(lost, Unavailable)
        self.assertEqual((await client.call(ShowNodes, all=False))["tables"], NO_NODES)
        self.assertEqual(len(self.sessions), 2)

    async def test_refused(self) -> None:
        """Who may not come in is told why, and does not try again."""
        self.listen()
        for options, sides, error in (
            ({"username": "Bad Name"}, self.sides, Invalid), ({}, frozenset(), Denied),
        ):
            self.sides = sides
            client = self.client(**options)
            with self.assertRaises(error):
                await client.call(ShowNodes, all=False)
        # Who tries again asks first how long to wait.
        self.assertEqual((len(self.sessions), self.tries), (2, []))

    async def test_other_protocol(self) -> None:
        """A server of another protocol number is told as such."""
        self.listen()
        self.patch(client_module, "PROTOCOL", 99)
        with self.assertRaises(VersionMismatch):
            await self.client().call(ShowNodes, all=False)
