"""What every IWebSessionStore does: the fake and the file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.access import FakeWebSessions
from walt.common.errors import Unavailable
from walt.server.adapters.web.sessions import WebSessionFile
from walt.server.domain.access.interfaces import IWebSessionStore
from walt.server.domain.access.web_model import Entry, WebSession

ANN = WebSession("c0", "4e", Entry("ann", None, "http://127.0.0.1:12381"), 1.5e9, 1.6e9, 1000)
BOB = WebSession("c1", "4f", Entry("bob", "5e", "http://127.0.0.1:80", True), 1.5e9, 1.5e9)


class WebSessionContract(Contract):
    """`make` returns a fresh IWebSessionStore."""

    @abstractmethod
    def make(self) -> IWebSessionStore:
        """Given by each implementation; the class tells what."""

    def test_kept(self) -> None:
        """What was saved last is there, whole."""
        store = self.make()
        verifyObject(IWebSessionStore, store)
        self.assertEqual(self.of(store.load()), [])
        self.of(store.save([ANN, BOB]))
        self.assertEqual(self.of(store.load()), [ANN, BOB])
        self.of(store.save([BOB]))
        self.assertEqual(self.of(store.load()), [BOB])

    def of(self, coroutine: Any) -> Any:
        """Return the result of a coroutine that waits for nobody."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))


class FakeTests(WebSessionContract, SynchronousTestCase):
    def make(self) -> IWebSessionStore:
        store: IWebSessionStore = FakeWebSessions()
        return store


class FileTests(WebSessionContract, SynchronousTestCase):
    def make(self) -> IWebSessionStore:
        self.path = Path(self.mktemp())
        store: IWebSessionStore = WebSessionFile(self.path, here)
        return store

    def test_damage(self) -> None:
        """People log in again; nothing else happens."""
        store = self.make()
        for text in ("", "{", "[]", '{"version": 1}', '{"version": 2}',
                     '{"version": 2, "sessions": [{}]}', "\udcff"):
            self.path.write_bytes(text.encode(errors="surrogateescape"))
            self.assertEqual(self.of(store.load()), [])

    def test_no_place(self) -> None:
        """It is told."""
        store = WebSessionFile(Path(self.mktemp()) / "nowhere" / "file", here)
        self.failureResultOf(Deferred.fromCoroutine(store.save([ANN])), Unavailable)


async def here(work: Callable[[], Any]) -> Any:
    """Run it at once."""
    return work()
