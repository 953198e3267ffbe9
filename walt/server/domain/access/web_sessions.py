"""Sessions of browsers: how they begin, what shows them, how they end."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from walt.common.errors import Unavailable
from walt.server.domain.access.interfaces import IWebSessionStore
from walt.server.domain.access.web_links import RANDOM_BYTES, WebLinks, digest
from walt.server.domain.access.web_model import Entry, Secrets, Way, WebSession
from walt.server.domain.events import Source
from walt.server.runtime.coroutines import spawn

_log = Logger()

IDLE = 7 * 86400.0  # seconds without use
LONGEST = 30 * 86400.0  # seconds
MAX_OF_USER, MAX_SESSIONS = 20, 1_000
NOTED_EVERY = 600.0  # seconds: so exactly is the last use of a session known


class WebSessions:
    """The browsers that are in. Those of a store survive a restart of the server.

    `now` returns epoch seconds, `random` that many random bytes, `valid` tells whether a
    certificate, by its serial, is good; `tell` logs one sentence. `ended` tells the digest of the
    cookie of each session that is over, so that its connections end, too.
    """

    def __init__(
        self, store: IWebSessionStore, now: Callable[[], float], random: Callable[[int], bytes],
        valid: Callable[[str], bool], tell: Callable[[str], object], *,
        most: int = MAX_SESSIONS,
    ) -> None:
        self._store = store
        self._most = most
        self._now = now
        self._random = random
        self._valid = valid
        self._tell = tell
        self._known: dict[str, WebSession] = {}
        self._links = WebLinks(now, random)
        self._saving = self._unsaved = False
        self.ended: Source[str] = Source()

    async def load(self) -> None:
        """Take over the sessions of a former server."""
        self._known = {session.cookie: session for session in await self._store.load()}
        self.end_old()

    def invite(self, entry: Entry) -> tuple[str, float]:
        """Return the code of a link, and the moment it ends. Raises LimitExceeded."""
        return self._links.make(entry)

    def begin(
        self, code: str, origin: str, way: Way | None, uid: int | None = None
    ) -> Secrets:
        """Let a browser in that has the code of a link, from an account of this machine, if that
        is known. Raises Denied.
        """
        entry = self._links.take(code, origin, way)
        cookie, key = (self._random(RANDOM_BYTES).hex() for _ in range(2))
        now = self._now()
        session = WebSession(digest(cookie), digest(key), entry, now, now, uid)
        self._make_place(entry.user)
        self._known[session.cookie] = session
        self._save()
        self._tell(f"{entry.user} opened the web pages at {origin}")
        return Secrets(cookie, key, session)

    def _make_place(self, user: str) -> None:
        """End the sessions that were not used for the longest time, where there are too many."""
        by_use = sorted(self._known.values(), key=lambda session: session.used)
        own = [session for session in by_use if session.entry.user == user]
        self._end(own[:max(0, len(own) - MAX_OF_USER + 1)])
        self._end(by_use[:max(0, len(self._known) - self._most + 1)])

    def find(
        self, cookie: str, key: str, origin: str, way: Way | None, uid: int | None = None
    ) -> WebSession | None:
        """Return the session of a browser that shows both secrets at the origin, by the way and
        from the account it came in: who caught the secrets at a port that was free meanwhile comes
        by another.
        """
        found = self._known.get(digest(cookie))
        if found is None or found.key != digest(key):
            return None
        if found.entry.origin != origin or found.entry.way != way:
            return None
        if found.uid is not None and found.uid != uid:
            return None
        if self._old(found):
            self._end([found])
            return None
        if self._now() - found.used > NOTED_EVERY:
            found = self._known[found.cookie] = found._replace(used=self._now())
            self._save()
        return found

    def all(self, user: str) -> list[WebSession]:
        """Return the sessions of a user, the newest first."""
        own = [session for session in self._known.values() if session.entry.user == user]
        return sorted(own, key=lambda session: session.begun, reverse=True)

    def end(self, cookie: str) -> None:
        """End one session, by the digest of its cookie."""
        if cookie in self._known:
            self._end([self._known[cookie]])

    def end_all(self, user: str) -> int:
        """End the sessions and the links of a user; return how many sessions these were."""
        self._links.cancel(lambda entry: entry.user == user)
        return self._end(self.all(user))

    def end_of(self, serial: str) -> None:
        """A certificate is worth nothing any more: what was opened with it ends."""
        self._links.cancel(lambda entry: entry.serial == serial)
        self._end([session for session in self._known.values() if session.entry.serial == serial])

    def end_old(self) -> None:
        """End the sessions whose time is over, or whose certificates are not good any more."""
        self._end([session for session in self._known.values() if self._old(session)])

    def _old(self, session: WebSession) -> bool:
        now = self._now()
        serial = session.entry.serial
        return now - session.used > IDLE or now - session.begun > LONGEST or (
            serial is not None and not self._valid(serial)
        )

    def _end(self, sessions: list[WebSession]) -> int:
        for session in sessions:
            if self._known.pop(session.cookie, None) is not None:
                self.ended.tell(session.cookie)
        if sessions:
            self._save()
        return len(sessions)

    def _save(self) -> None:
        self._unsaved = True
        if not self._saving:
            self._saving = True
            spawn(self._save_all(), "recording web sessions")

    async def _save_all(self) -> None:
        try:
            while self._unsaved:
                self._unsaved = False
                try:
                    await self._store.save(list(self._known.values()))
                except Unavailable as error:  # they go on, until the next start of the server
                    _log.warn("{error}", error=str(error))
        finally:
            self._saving = False
