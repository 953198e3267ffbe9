"""Who sends waits for who receives (twisted.internet.interfaces.IPushProducer)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from walt.server.runtime.waiting import Waiters


@implementer(IPushProducer)
class Pace:
    """Passes pauses on to what feeds a transport.

    `stop` is called when the transport is gone; where that is None the source goes on, and what
    it still sends is dropped.
    """

    def __init__(
        self, pause: Callable[[], object], resume: Callable[[], object],
        stop: Callable[[], object] | None = None,
    ) -> None:
        self._pause, self._resume = pause, resume
        self._stop = stop if stop is not None else resume

    def pauseProducing(self) -> None:
        """The other side is late."""
        self._pause()

    def resumeProducing(self) -> None:
        """The other side caught up."""
        self._resume()

    def stopProducing(self) -> None:
        """The other side is gone."""
        self._stop()


@implementer(IPushProducer)
class Gate:
    """Closed while the other side is late. `resumed` and `stopped` are told, if given."""

    def __init__(
        self, resumed: Callable[[], object] | None = None,
        stopped: Callable[[], object] | None = None,
    ) -> None:
        self._resumed, self._stopped = resumed, stopped
        self._waiters: Waiters[None] = Waiters()
        self.closed = False

    def opened(self) -> Deferred[None]:
        """Return a Deferred that fires when the gate is open."""
        return self._waiters.wait() if self.closed else succeed(None)

    def pauseProducing(self) -> None:
        """The other side is late."""
        self.closed = True

    def resumeProducing(self) -> None:
        """The other side caught up."""
        self.closed = False
        self._waiters.release(None)
        if self._resumed is not None and not self.closed:
            self._resumed()

    def stopProducing(self) -> None:
        """The other side is gone: who waits goes on waiting, unless `stopped` ends that."""
        if self._stopped is not None:
            self._stopped()
