"""The archive of logs, as the server uses it: what blocks is done by children."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import LimitExceeded, Unavailable, in_words
from walt.server.adapters.archive.frames import placed
from walt.server.domain.logs.archive import (
    ArchivedFile,
    ArchiveTarget,
    Owner,
    Part,
    Reading,
    Written,
    file_of,
)
from walt.server.domain.logs.interfaces import IArchiveReader, ILogArchive
from walt.server.domain.logs.merging import Placed
from walt.server.domain.shares import ALL_ARCHIVE_READERS, MAX_ARCHIVE_READERS, Shares
from walt.server.runtime.process import Launcher, environment, give, own_code
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.waiting import Waiters
from walt.server.runtime.workers import WorkerPool

_log = Logger()

FILE_SIZE = 1 << 30  # octets after which another file begins: stores copy 5 GiB at most
SILENCE = 600.0  # seconds in which a job gets no lines further
CHECK_SILENCE = 90.0  # seconds without an answer about a file
ANSWER = 300.0  # seconds until the next lines are found
MAX_ANSWER = 256 << 20  # octets
# Where the libraries of stores look for credentials (server.env); no other child gets them.
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
)
MACHINE_ID = Path("/etc/machine-id")
CLAIM = "take-log-archive"
_SIZE = struct.Struct(">I")


def lacks() -> str | None:
    """Return what this Python lacks for archives, with what to do; None when it has all."""
    if importlib.util.find_spec("pyarrow") is not None:
        return None
    return (
        "logs.archive needs the library pyarrow in the Python of the server; run:"
        f" {sys.prefix}/bin/pip install pyarrow"
    )


@implementer(ILogArchive)
class ArchiveFiles:
    """The files of one target. `dsn` is where workers read lines that are to be archived.

    `state` is the directory of the platform, by which it is told from its copies.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, workers: WorkerPool, target: ArchiveTarget,
        dsn: str, *, state: Path | None = None, file_size: int = FILE_SIZE,
        answer: float = ANSWER, silence: float = SILENCE,
    ) -> None:
        self._reactor, self._launcher, self._workers = reactor, launcher, workers
        self.target, self._dsn = target, dsn
        self._holder = holder(state)
        self._file_size, self._answer, self._silence = file_size, answer, silence
        self._shares = Shares(
            MAX_ARCHIVE_READERS, "readers of archived log lines", ALL_ARCHIVE_READERS
        )
        self._readers: dict[_Child, str] = {}
        self._children: set[_Child] = set()  # those that ended, too, until the kernel says so
        self._over: Waiters[None] = Waiters()

    async def _call(
        self, job: str, owner: Owner, **arguments: Any
    ) -> Any:
        lacking = lacks()
        if lacking is not None:
            raise Unavailable(lacking)
        return await self._workers.call(f"log_archive:{job}", {
            "target": self.target._asdict(), "name": str(self.target), **owner._asdict(),
            "holder": self._holder, **arguments,
        }, silence=min(self._silence, CHECK_SILENCE) if job == "check" else self._silence)

    async def write(self, part: Part, prefix: str, owner: Owner) -> Written:
        """Have a worker write and verify."""
        found = await self._call(
            "write", owner, dsn=self._dsn, table=part.table, prefix=prefix,
            file_size=self._file_size,
        )
        return Written([file_of(file) for file in found["files"]], int(found["mark"]))

    async def rewrite(
        self, former: str, prefix: str, owner: Owner, streams: Sequence[int]
    ) -> Sequence[ArchivedFile]:
        """Have a worker write a file again."""
        found = await self._call(
            "rewrite", owner, dsn=self._dsn, former=former, prefix=prefix, streams=list(streams),
            file_size=self._file_size,
        )
        return [file_of(file) for file in found]

    async def remove(
        self, names: Sequence[str], prefixes: Sequence[str], owner: Owner
    ) -> None:
        """Have a worker remove files."""
        await self._call("remove", owner, names=list(names), prefixes=list(prefixes))

    async def problems(self, files: Sequence[tuple[str, int]], owner: Owner) -> list[str]:
        """Have a worker look at the files."""
        found = await self._call("check", owner, files=list(files))
        return [str(problem) for problem in found]

    def read(self, wanted: Reading) -> IArchiveReader:
        """Return a reader, and start its child. Raises LimitExceeded, Unavailable."""
        lacking = lacks()
        if lacking is not None:
            raise Unavailable(lacking)
        self._shares.enter(wanted.reader)
        child = _Child(
            self._reactor, {**wanted._asdict(), "target": self.target._asdict()}, self._answer,
            str(self.target), self._over_with, self._gone,
        )
        self._readers[child] = wanted.reader
        env = environment({**own_code(), **credentials()})
        argv = self._launcher.command(
            [sys.executable, "-m", "walt.server.workers.archive_reader"], network="host"
        )
        try:
            self._reactor.spawnProcess(child, argv[0], argv, env)
        except OSError as error:
            self._over_with(child)
            raise Unavailable(
                f"archived log lines cannot be read now ({in_words(error)}); try again later"
            ) from error
        self._children.add(child)
        return _Reader(child)

    def _over_with(self, child: _Child) -> None:
        reader = self._readers.pop(child, None)
        if reader is not None:
            self._shares.leave(reader)

    def _gone(self, child: _Child) -> None:
        self._children.discard(child)
        if not self._children:
            self._over.release(None)

    def stop(self) -> Deferred[None]:
        """End all readers; fires when no child is left."""
        for reader in list(self._readers):
            reader.end()
        return self._over.wait() if self._children else succeed(None)


def holder(state: Path | None) -> dict[str, str]:
    """Return what tells a platform from its copies, and the file by which one takes over.

    A copy that has the same place on another machine with the same /etc/machine-id is not told.
    """
    if state is None:
        return {"id": "", "claim": ""}
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    found = hashlib.sha256(f"walt {machine} {state}".encode()).hexdigest()[:32]
    return {"id": found, "claim": str(state / CLAIM)}


def credentials() -> dict[str, str]:
    """Return the variables of this process where libraries of stores look for credentials."""
    return {name: os.environ[name] for name in CREDENTIALS if name in os.environ}


class _Child(ProcessProtocol):
    """The server's end of a child that reads."""

    def __init__(
        self, reactor: IReactor, wanted: dict[str, Any], limit: float, where: str,
        over: Callable[[_Child], object], gone: Callable[[_Child], object],
    ) -> None:
        self._reactor, self._wanted, self._limit, self._where = reactor, wanted, limit, where
        self._over, self._gone = over, gone
        self._received = bytearray()
        self._asked: deque[Deferred[bytes]] = deque()
        self._timer: IDelayedCall | None = None
        self._ended = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        give(self.transport, json.dumps(self._wanted).encode() + b"\n")

    def ask(self, question: str) -> Deferred[bytes]:
        """Return the answer, with its kind."""
        if self._ended or self.transport is None:
            return fail(Unavailable(self._lost()))
        asked: Deferred[bytes] = Deferred()
        self._asked.append(asked)
        give(self.transport, question.encode() + b"\n")
        self._watch()
        return asked

    def _lost(self) -> str:
        return f"reading the log archive {self._where} was interrupted; try again"

    def _watch(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._asked:
            self._timer = self._reactor.callLater(self._limit, self._too_long)

    def _too_long(self) -> None:
        self._give_up(LimitExceeded(
            f"the log archive {self._where} gave no answer in {self._limit / 60:g} minutes;"
            " narrow the range of time, or the expression"
        ))
        self.end()

    def _give_up(self, error: Exception) -> None:
        asked, self._asked = self._asked, deque()
        for answer in asked:
            if not answer.called:
                answer.errback(error)

    def outReceived(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._received)
            if size > MAX_ANSWER:
                self.end()
                return
            end = _SIZE.size + size
            if len(self._received) < end:
                return
            answer = bytes(self._received[_SIZE.size:end])
            del self._received[:end]
            if self._asked:
                asked = self._asked.popleft()
                self._watch()
                if not asked.called:
                    asked.callback(answer)

    def errReceived(self, data: bytes) -> None:
        _log.info("reader of archived logs: {text}", text=data.decode(errors="replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        self._finish()
        self._gone(self)

    def _finish(self) -> None:
        self._ended = True
        self._over(self)
        self._give_up(Unavailable(self._lost()))
        self._watch()

    def end(self) -> None:
        """End the child."""
        if not self._ended and self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")
        self._finish()

    def problem(self, text: str) -> Unavailable:
        """Return what a person is told of a file that cannot be read."""
        return Unavailable(
            f"archived log lines cannot be read in {self._where}: {text}. Nothing was changed;"
            " the server's administrator finds in walt help show log-archive what to do. Lines of"
            " other weeks are there: give a range with --history"
        )


@implementer(IArchiveReader)
class _Reader:
    """A reader; while a block is sent, the next one of its file is made."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        # In a tuple: a failure that nobody asks for any more is no error.
        self._coming: dict[int, Deferred[tuple[bytes | Failure]]] = {}

    async def following(self, number: int) -> Placed:
        """Return the next lines of a file."""
        coming = self._coming.pop(number, None)
        if coming is None:
            answer: bytes | Failure = await self._child.ask(f"next {number}")
        else:
            (answer,) = await coming
        found = placed(self._checked(answer))
        if found:
            following = self._child.ask(f"next {number}")
            self._coming[number] = following.addBoth(lambda result: (result,))
        return found

    async def count(self, number: int) -> int:
        """Return how many lines match."""
        return int(self._checked(await self._child.ask(f"count {number}")))

    def _checked(self, answer: bytes | Failure) -> bytes:
        if isinstance(answer, Failure):
            answer.raiseException()
        assert isinstance(answer, bytes)
        if answer[:1] == b"E":
            raise self._child.problem(answer[1:].decode(errors="replace"))
        return answer[1:]

    async def close(self) -> None:
        """End the child."""
        self._child.end()

