"""The kernel's NFS server is asked whether it answers, and its unit started when it does not."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walt.common.errors import WaltError, in_words
from walt.server.adapters.nfs.probe import ask_nothing
from walt.server.runtime.asking import Place
from walt.server.runtime.foreign import Foreign
from walt.server.runtime.kept import Health
from walt.server.runtime.process import ProcessRunner
from walt.server.runtime.watching import NoAnswer

_log = Logger()

NAME = "nfs-server"
EVERY, LIMIT = 15.0, 10.0  # seconds between questions, and until an answer is missing
FAILURES = 2  # in a row before its unit is started again; the first one, at the start
START_LIMIT = 90.0  # seconds that systemd may take
SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)


class KernelServer(Foreign):
    """Ask it at intervals; see the module.

    `unit` is its name for systemd (`services.nfsd.service-name`), `address` where nodes reach
    it; `systemd` exists where systemd runs: elsewhere nothing is started.
    """

    def __init__(
        self, reactor: IReactorTime, runner: ProcessRunner, *, unit: str, address: str,
        place: Place = contextlib.nullcontext, systemd: Path = SYSTEMD,
    ) -> None:
        super().__init__(reactor, NAME, EVERY, good=False)
        self._reactor, self._runner, self._unit = reactor, runner, unit
        self._ask = partial(ask_nothing, reactor, address, place=place)
        self._systemd = systemd
        self._failures, self._restarts = 0, 0

    @property
    def health(self) -> Health:
        """Return whether it answers, and how often its unit was started."""
        return self._health(restarts=self._restarts)

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

    async def _look(self) -> None:
        problem = await self._problem()
        if problem is not None:
            await self._bad(problem)
            return
        if self._works():
            _log.info("the kernel's NFS server answers again")
        self._failures = 0

    async def _bad(self, reason: str) -> None:
        first = self._trouble is None and not self._good
        self._failures += 1
        if self._fails(reason):
            _log.warn("the kernel's NFS server does not answer: {reason}", reason=reason)
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
