"""What NFS exports is exported by nbfsd, too, as far as its format goes.

nbfsd reads files of a directory: a line is a tree, a subnet, and the identifier of the file system.
It reads them again when a datagram says so (spec node-protocols §4.5). It is not ours: it may be
absent, slow or mute, and no boot waits for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import in_words
from walt.common.files import write_if_changed
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.interfaces import INfsExporter
from walt.server.runtime.asking import ask_unix_datagram
from walt.server.runtime.foreign import Foreign
from walt.server.runtime.kept import Health
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.watching import NoAnswer

_log = Logger()

NAME = "nbfs"
FILE = "walt.exports"
REQUEST, AGREED = b"RELOAD_CONF", b"OK"
LONGEST_TOLD = 80  # bytes of a wrong answer
LIMIT = 2.0  # seconds until an answer is missing: boots wait for the first one
EVERY = 15.0  # seconds between questions that were not answered


def header(owner: Path) -> str:
    """Return the first line of the file of the server whose state directory is `owner`."""
    return f"# Written by the WalT server of {owner}; changes are lost.\n"


def render(plan: ExportPlan) -> str:
    """Return the lines of images that somebody reads. Nothing here is writable, nor hidden."""
    return "".join(
        f"{image.path} {plan.subnet}(fsid={image.fsid})\n"
        for image in sorted(plan.images) if image.readers
    )


def _agreed(datagram: bytes) -> bool:
    if datagram.strip() != AGREED:
        raise NoAnswer(f"it answers {datagram[:LONGEST_TOLD]!r} to RELOAD_CONF")
    return True


@implementer(INfsExporter)
class NbfsExporter(Foreign):
    """Let `nfs` export a plan, and nbfsd as well.

    `directory` is where nbfsd looks for files of exports, `control` its socket; `own` is a
    directory of ours for the other end of it. Nothing is written where the directory is missing:
    there is no nbfsd. With `enabled` false, what a former server has left is taken back. It has
    `limit` seconds to answer, and is asked again `every` seconds.
    """

    def __init__(
        self, reactor: IReactor, nfs: INfsExporter, *, enabled: bool, directory: Path,
        control: Path, own: Path, owner: Path, limit: float = LIMIT, every: float = EVERY,
    ) -> None:
        super().__init__(reactor, NAME, every, good=True)
        self._limit = limit
        self._reactor, self._nfs, self._enabled = reactor, nfs, enabled
        self._file, self._control, self._own = directory / FILE, control, own / "answer.sock"
        self._header = header(owner)
        self._lock = DeferredLock()
        self._lines: str | None = None  # what the file does not say yet, though it must
        self._unread = False  # whether the file changed since nbfsd read it

    @property
    def health(self) -> Health:
        """Return whether it read what it must export."""
        known = self._health()
        if self._control.exists():
            return known
        return known._replace(running=False, state="stopped")

    async def apply(self, plan: ExportPlan) -> Mapping[str, str]:
        """Export exactly what the plan says; see INfsExporter. Nodes need NFS alone."""
        self._write(render(plan) if self._enabled else "")
        failures = await self._nfs.apply(plan)
        if self._good:  # else no boot waits
            await self._read_again()
        return failures

    def give_up(self) -> None:
        """See INfsExporter."""
        self._nfs.give_up()

    async def withdraw(self) -> None:
        """Export nothing any more; see INfsExporter."""
        self._write("")
        await self._nfs.withdraw()
        await self._read_again()

    def _write(self, lines: str) -> None:
        self._lines = lines
        try:
            wanted = self._file.parent.is_dir() and (lines or self._is_ours())
            if wanted and write_if_changed(self._file, self._header + lines):
                self._unread = True
        except OSError as error:
            self._note(f"{self._file}: {in_words(error)}")
        else:
            self._lines = None

    def _is_ours(self) -> bool:
        """Tell whether this server, and no other one of the machine, wrote the file."""
        try:
            with open(self._file) as stream:
                return stream.readline(len(self._header) + 1) == self._header
        except (FileNotFoundError, UnicodeDecodeError):
            return False

    async def _look(self) -> None:
        """Repeat what was not answered."""
        if self._lines is not None:
            self._write(self._lines)
        await self._read_again()

    async def _read_again(self) -> None:
        """Have nbfsd read the file, if that changed and somebody may listen."""
        await self._lock.acquire()
        try:
            if self._unread:
                self._unread = False
                # One that is not there reads the file when it starts.
                if self._control.exists():
                    await self._ask()
            if self._lines is None and not self._unread and self._works():
                _log.info("nbfsd exports what it must again")
        except (NoAnswer, OSError) as error:
            self._unread = True
            self._note(in_words(error))
        finally:
            self._lock.release()

    async def _ask(self) -> None:
        self._own.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        asking = ask_unix_datagram(self._reactor, self._control, self._own, REQUEST, _agreed)
        try:
            await Deferred.fromCoroutine(asking).addTimeout(self._limit, self._reactor)
        except TimeoutError:
            raise NoAnswer(f"no answer to RELOAD_CONF within {self._limit:g} s") from None

    def _note(self, reason: str) -> None:
        if self._fails(reason):
            _log.warn("nbfsd does not export what it must: {reason}", reason=reason)
