"""The kernel's NFS server is asked whether it answers, and its unit started when it does not."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.common.errors import WaltError, in_words
from walt.server.adapters.nfs.probe import ask_nothing
from walt.server.runtime.asking import Place
from walt.server.runtime.kept import Health
from walt.server.runtime.looking import Looking
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.watching import NoAnswer

_log = Logger()

NAME = "nfs-server"
EVERY, LIMIT = 15.0, 10.0  # seconds between questions, and until an answer is missing
FAILURES = 2  # in a row before its unit is started again; the first one, at the start
START_LIMIT = 90.0  # seconds that systemd may take
SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)


class KernelServer(Service):
    """Ask it at intervals; see the module.

    `unit` is its name for systemd (`services.nfsd.service-name`), `address` where nodes reach
    it; `systemd` exists where systemd runs: elsewhere nothing is started.
    """

    def __init__(
        self, reactor: IReactorTime, runner: ProcessRunner, *, unit: str, address: str,
        place: Place = contextlib.nullcontext, systemd: Path = SYSTEMD,
    ) -> None:
        self.setName(NAME)
        self._reactor, self._runner, self._unit = reactor, runner, unit
        self._ask = partial(ask_nothing, reactor, address, place=place)
        self._systemd = systemd
        self._looking = Looking(reactor, self._check)
        self._good = False
        self._failures, self._restarts = 0, 0
        self._trouble: str | None = None
        self._trouble_time: float | None = None

    @property
    def health(self) -> Health:
        """Return whether it answers, and how often its unit was started."""
        state = "running" if self._good else "not answering"
        return Health(
            NAME, self._good, None, self._restarts, None, None, state, self._trouble,
            self._trouble_time,
        )

    def startService(self) -> None:
        """Begin to ask."""
        super().startService()
        self._looking.start(EVERY)

    def stopService(self) -> None:
        """Ask no more; the kernel's server goes on."""
        super().stopService()
        self._looking.stop()

    def answered(self) -> Deferred[bool]:
        """Ask it now; tell whether it answers."""
        return Deferred.fromCoroutine(self._problem()).addCallback(lambda problem: not problem)

    async def _problem(self) -> str | None:
        """Ask it; return what is wrong, None when it answers."""
        try:
            await Deferred.fromCoroutine(self._ask()).addTimeout(LIMIT, self._reactor)
        except TimeoutError:
            return f"no answer within {LIMIT:g} s"
        except (NoAnswer, ConnectError, OSError) as error:
            return in_words(error)
        return None

    async def _check(self) -> None:
        problem = await self._problem()
        if problem is not None:
            await self._bad(problem)
            return
        if self._trouble is not None and not self._good:
            _log.info("the kernel's NFS server answers again")
        self._good, self._failures = True, 0

    async def _bad(self, reason: str) -> None:
        first = self._trouble is None and not self._good
        self._failures += 1
        if self._good or first:
            _log.warn("the kernel's NFS server does not answer: {reason}", reason=reason)
        self._good, self._trouble, self._trouble_time = False, reason, self._reactor.seconds()
        if not first and self._failures < FAILURES:
            return
        self._failures = 0
        if not self._systemd.exists():
            return
        self._restarts += 1
        _log.info("starting {unit}", unit=self._unit)
        try:
            await self._runner.run(["systemctl", "restart", "--", self._unit], timeout=START_LIMIT)
        except WaltError as error:
            self._trouble = f"{reason}; {in_words(error)}"
            _log.error("{unit} cannot be started: {error}", unit=self._unit, error=in_words(error))
