"""Weeks of log lines that are old enough move to files, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import Busy, WaltError
from walt.server.domain.logs.archive import Owner, Part, Written
from walt.server.domain.logs.interfaces import IArchiveRecords, ILogArchive

_log = Logger()

EVERY = 3600.0  # seconds from one look to the next
RETRY_AFTER = 600.0  # seconds, when the archive could not be used
DROP_AGAIN_AFTER = 20.0  # seconds, when somebody reads while a week is to be dropped
DROPS = 90  # tries in vain, half an hour, after which it is told
CHANGES = 3  # times that lines came while a week was written, after which it is told
LONGEST_PAUSE = 86400.0  # seconds, until such a week is written again


class LogArchiving:
    """Moves weeks that ended more than `after` days ago, and keeps what the archive has in order.

    A week is dropped from the database once its files were read back, in the transaction that
    records them: a cut at any step leaves it in one of both places. `retention` is in days, None
    to keep everything; `named` gives names that were never used.
    """

    def __init__(
        self, records: IArchiveRecords, archive: ILogArchive, clock: IReactorTime, after: int,
        retention: int | None, named: Callable[[], str],
    ) -> None:
        self._records, self._archive, self._clock = records, archive, clock
        self._after, self._retention, self._named = after, retention, named
        self._work: Deferred[Any] | None = None
        self._timer: Any = None
        self._again = False  # a device was forgotten since files were looked at
        self._changes: dict[str, tuple[int, float]] = {}  # by table: how often, when to go on
        self.problem: str | None = None  # why the last pass failed
        self.moved = 0  # lines that moved since the start

    def start(self) -> None:
        """Begin, and look again from time to time."""
        self._timer = None
        self._work = Deferred.fromCoroutine(self._pass())
        self._work.addErrback(_told).addCallback(self._over)

    def stop(self) -> None:
        """Leave the rest for the next start."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    def soon(self) -> None:
        """Look for lines of forgotten devices at once: a device was forgotten."""
        self._again = True
        if self._timer is not None:
            self._timer.cancel()
            self.start()

    def _over(self, result: Any) -> None:
        if self._work is None:
            return
        self._work = None
        if self._again and self.problem is None:
            self.start()
            return
        self._timer = self._clock.callLater(
            EVERY if self.problem is None else RETRY_AFTER, self.start
        )

    async def _pass(self) -> None:
        try:
            problem = await self._look()
        except Busy as error:
            problem = None
            _log.info("archiving of logs goes on later: {error}", error=error)
        except WaltError as error:
            problem = str(error)
        except CancelledError:
            raise
        except Exception:
            _log.failure("archiving log lines")
            problem = "an internal error, which is in the server's log"
        self._tell(problem)

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            _log.error("log lines stay in the database: {problem}", problem=problem)
        self.problem = problem

    async def _look(self) -> str | None:
        """Do all that is to be done; return what went wrong with one week alone."""
        owner = await self._records.owner()
        await self._clean(owner)
        await self._without_forgotten(owner)
        while (part := await self._records.due(self._after, self._put_off())) is not None:
            if await self._move(part, owner):
                self._changes.pop(part.table, None)
            else:
                self._put_off_more(part)
            await self._without_forgotten(owner)
        await self._clean(owner)
        for table, (changes, _) in self._changes.items():
            if changes >= CHANGES:
                return (
                    f"lines came {changes} times while the week of {table} was written; is the"
                    " clock of a node wrong? It is tried again within a day"
                )
        return None

    def _put_off(self) -> list[str]:
        now = self._clock.seconds()
        return [table for table, (_, moment) in self._changes.items() if moment > now]

    def _put_off_more(self, part: Part) -> None:
        changes = self._changes.get(part.table, (0, 0.0))[0] + 1
        pause = min(LONGEST_PAUSE, EVERY * 2 ** min(changes - 1, 10))
        # A pass that begins after just that time goes on with it.
        self._changes[part.table] = changes, self._clock.seconds() + pause - 1
        _log.info("lines came for the week of {week}: it is archived later", week=part.week)

    async def _clean(self, owner: Owner) -> None:
        """Remove what a cut left, and files that were given up."""
        if self._retention is not None:
            await self._records.retire(self._retention)
        # First: what could still be recorded is not removed.
        prefixes, gone = await self._records.abandoned(), await self._records.gone()
        if not prefixes and not gone:
            return
        await self._archive.remove(gone, prefixes, owner)
        await self._records.removed(gone)
        for prefix in prefixes:
            await self._records.forget_attempt(prefix)

    async def _move(self, part: Part, owner: Owner) -> bool:
        """Move one week; tell whether it was dropped."""
        prefix = f"logs-{part.week:%Y-%m-%d}-{self._named()}"
        await self._records.begin(prefix)
        written = await self._archive.write(part, prefix, owner)
        if not await self._drop(part, prefix, written, owner):
            return False
        lines = sum(file.lines for file in written.files)
        self.moved += lines
        _log.info(
            "archived {lines} log lines of the week of {week}", lines=lines, week=part.week
        )
        return True

    async def _drop(self, part: Part, prefix: str, written: Written, owner: Owner) -> bool:
        """Drop what was written, as soon as nobody reads. What was written stays right."""
        for tries in itertools.count(1):
            try:
                return bool(await self._records.finish(part, prefix, written))
            except Busy as error:
                if tries == DROPS:
                    self._tell(
                        f"the week of {part.week} is in files, and cannot be dropped from the"
                        " database while somebody reads log lines, as in a pager that was left"
                        f" open: {error}"
                    )
                waiting: Deferred[None] = deferLater(self._clock, DROP_AGAIN_AFTER)
                await waiting
            if self._again:
                await self._without_forgotten(owner)
        raise AssertionError

    async def _without_forgotten(self, owner: Owner) -> None:
        self._again = False
        while (found := await self._records.with_forgotten()) is not None:
            await self._rewrite(*found, owner)

    async def _rewrite(self, former: str, streams: list[int], owner: Owner) -> None:
        """Write a file again without the lines of forgotten devices."""
        # The week is part of the name: logs-2026-11-02-….
        prefix = f"{former[:15]}-{self._named()}"
        await self._records.begin(prefix)
        files = await self._archive.rewrite(former, prefix, owner, streams)
        await self._records.replace(former, prefix, files)


def _told(failure: Failure) -> None:
    if not failure.check(CancelledError):  # `stop`
        _log.failure("archiving log lines", failure)
