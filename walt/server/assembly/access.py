"""Joins the certificate authority, the rules of access and the TLS settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from walt.common.errors import Unavailable
from walt.server.adapters.postgres.certificates import PostgresCertificates
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.tls.authority import Authority
from walt.server.adapters.tls.contexts import ServerTls
from walt.server.adapters.web.sessions import WebSessionFile
from walt.server.config.model import ServerConfig
from walt.server.domain.access.codes import EnrolmentCodes
from walt.server.domain.access.enrolment import Access
from walt.server.domain.access.web_sessions import WebSessions
from walt.server.domain.logs.lines import PlatformLog
from walt.server.runtime.reactors import IReactor

_log = Logger()
T = TypeVar("T")

CHECK_EVERY = 6 * 3600.0  # seconds between looks at the age of the server's certificate
EXPIRED_EVERY = 60.0  # seconds between looks for certificates of clients that have expired


class Certificates:
    """Keeps the server's certificate fresh; `access` holds those of clients, `web` the browsers
    that are in.
    """

    def __init__(
        self, reactor: IReactor, config: ServerConfig, database: Database, platform: PlatformLog
    ) -> None:
        self._reactor = reactor
        self._lock = DeferredLock()
        self.names = [
            *config.names, os.uname().nodename, "walt-server", "localhost", "127.0.0.1",
            str(config.server_ip),
        ]
        self.tls = ServerTls()
        self._authority = Authority(config.paths.state / "tls", self.names)
        self.access = Access(
            self._authority, PostgresCertificates(database),
            EnrolmentCodes(time.time, os.urandom), time.time,
            lambda text: platform.write("access", text), self._aside,
            lambda seconds: deferLater(reactor, seconds),
        )
        self.access.rotated.observe(self._reload)
        self.web = WebSessions(
            WebSessionFile(config.paths.state / "web-sessions.json", self._in_thread),
            time.time, os.urandom, lambda serial: self.access.holder_of(serial) is not None,
            lambda text: platform.write("access", text),
        )
        self.access.ended.observe(self.web.end_of)

    async def start(self) -> list[LoopingCall]:
        """Make and read what is needed; the calls returned keep it so. Raises Unavailable."""
        await self._aside(self._authority.prepare, time.time())
        self._reload()
        await self.access.load()
        await self.web.load()
        calls = []
        for work, seconds in (
            (lambda: Deferred.fromCoroutine(self._check()), CHECK_EVERY),
            (self.access.end_expired, EXPIRED_EVERY), (self.web.end_old, EXPIRED_EVERY),
        ):
            call = LoopingCall(work)
            call.clock = self._reactor
            call.start(seconds, now=False)
            calls.append(call)
        return calls

    async def _aside(self, work: Callable[[float], T], now: float) -> T:
        """Run what writes keys in a thread: it waits for the disk."""
        async with self._lock:
            return await self._in_thread(work, now)

    async def _in_thread(self, work: Callable[..., T], *values: float) -> T:
        done: T = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), work, *values
        )
        return done

    async def _check(self) -> None:
        try:
            if await self._aside(self._authority.prepare, time.time()):
                self._reload()
                _log.info("the server's TLS certificate was made anew")
        except Unavailable as error:
            _log.error("{error}", error=str(error))

    def _reload(self) -> None:
        self.tls.reload(*self._authority.server_files, self._authority.trusted())
