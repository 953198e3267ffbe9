"""A service of the machine that is no child of this one, and is looked at at intervals."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

from walt.server.runtime.kept import Health
from walt.server.runtime.looking import Looking


class Foreign(Service):
    """What is known of it: whether it does its work, else why not.

    A kind says what is looked at (`_look`), and calls `_works` or `_fails` with what it found.
    """

    def __init__(self, reactor: IReactorTime, name: str, every: float, *, good: bool) -> None:
        """`every` is in seconds; `good` is what it is thought to be until it is looked at."""
        self.setName(name)
        self._seconds, self._every, self._good = reactor.seconds, every, good
        self._looking = Looking(reactor, self._look)
        self._trouble: str | None = None
        self._trouble_time: float | None = None

    @property
    def health(self) -> Health:
        """Return whether it works."""
        return self._health()

    def _health(self, *, pid: int | None = None, restarts: int = 0) -> Health:
        return Health(
            str(self.name), self._good, pid, restarts, None, None,
            "running" if self._good else "not answering", self._trouble, self._trouble_time,
        )

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._looking.start(self._every)

    def stopService(self) -> None:
        """Look no more; it goes on."""
        super().stopService()
        self._looking.stop()

    async def _look(self) -> None:
        raise AssertionError("a kind says what is looked at")

    def _works(self) -> bool:
        """Note that it does its work; return whether that is news after a trouble."""
        news = self._trouble is not None and not self._good
        self._good = True
        return news

    def _fails(self, reason: str) -> bool:
        """Note what is wrong; return whether that is news."""
        news = self._good or self._trouble != reason
        self._good, self._trouble, self._trouble_time = False, reason, self._seconds()
        return news
