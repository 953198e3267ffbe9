"""REQ_SAVE_IMAGES and REQ_LOAD_IMAGES: images as one file (walt.common.image_archives)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from walt.common import frames
from walt.common.errors import CommandFailed, InternalError, Invalid, WaltError, disk_refuses
from walt.common.image_archives import LARGEST, MOST_IMAGES, is_image_id
from walt.server.domain.images.archives import ImageArchives
from walt.server.domain.nodes.sessions import ISession, ISessions
from walt.server.domain.requester import IRequester
from walt.server.runtime.producing import Pace
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol
from walt.server.streams.upload import Upload

_log = Logger()

ERRORS_KEPT = 2000  # bytes of what a program says when it fails


@implementer(IRequester)
class _Told:
    """The requester of a stream whose data is an archive: all that is told are messages."""

    def __init__(self, request: FramedRequest) -> None:
        self._request = request
        self.username = request.username

    def stdout(self, text: str) -> None:
        """Show a line."""
        self._request.message(f"{text}\n")

    def stderr(self, text: str) -> None:
        """Show an error."""
        self._request.message(f"{text}\n")

    def busy(self, label: str) -> None:
        """Show nothing: bytes on their way are counted by the client."""

    def progress(self, text: str) -> None:
        """Show how far it is."""
        self._request.message(f"{text}\n")

    def at_end(self, action: Callable[[], object]) -> None:
        """Forget it: the request itself ends with the connection."""


class _ArchiveRequest(FramedRequest):
    """Work in a directory of its own, which ends with the connection."""

    def __init__(self, archives: ImageArchives, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(connection, peer)
        self._archives = archives
        self._work: Deferred[None] | None = None

    @abstractmethod
    def checked(self, parameters: dict[str, Any]) -> Callable[[Path], Coroutine[Any, Any, None]]:
        """Return the work that the parameters ask for. Raises Invalid."""

    def opened(self, parameters: dict[str, Any]) -> None:
        work = self.checked(parameters)
        transport: Any = self.connection.transport
        transport.registerProducer(Pace(self.pause, self.resume, stop=lambda: None), True)
        self._work = Deferred.fromCoroutine(self._run(work))

    async def _run(self, work: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
        values: dict[str, Any] = {"status": 0}
        try:
            place = self._archives.open()
            try:
                await work(place)
            finally:
                self.close()
                await self._archives.close(place)
        except CancelledError:
            return
        except WaltError as error:
            values = {"status": error.exit_status, "error": str(error), "code": error.code}
        except Exception as error:
            failure: WaltError = disk_refuses(error) or InternalError(
                "internal error; see the log of the server"
            )
            if isinstance(failure, InternalError):
                _log.failure("an archive of images")
            values = {"status": 1, "error": str(failure), "code": failure.code}
        transport: Any = self.connection.transport
        if transport is not None:
            transport.unregisterProducer()
            self.result(**values)

    def lost(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def pause(self) -> None:
        """The client is late."""

    def resume(self) -> None:
        """The client caught up."""

    def close(self) -> None:
        """Take no more of the client."""


class SaveImagesRequest(_ArchiveRequest):
    """Parameters: ids. The client receives an archive of these images."""

    def __init__(
        self, archives: ImageArchives, programs: ISessions, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(archives, connection, peer)
        self._programs = programs
        self._program: ISession | None = None
        self._errors = b""

    def checked(self, parameters: dict[str, Any]) -> Callable[[Path], Coroutine[Any, Any, None]]:
        """Return the work; see _ArchiveRequest."""
        ids = parameters.get("ids")
        if not isinstance(ids, list) or not 0 < len(ids) <= MOST_IMAGES \
                or not all(map(is_image_id, ids)):
            raise Invalid(f"ids are those of 1 to {MOST_IMAGES} images")

        async def work(place: Path) -> None:
            status = await self._execute(await self._archives.pack(place, ids, _Told(self)))
            if status != 0:
                raise CommandFailed(
                    "the images could not be read: " + self._errors.decode(errors="replace").strip()
                )

        return work

    async def _execute(self, argv: list[str]) -> int:
        """Run a program whose output goes to the client; a client who leaves ends it."""
        ended: Deferred[None] = Deferred()
        result: Deferred[int] = Deferred(
            lambda _: None if self._program is None else self._program.close()
        )

        def over(status: int) -> None:
            self._program = None
            if not result.called:
                result.callback(status)
            ended.callback(None)

        program = self._program = self._programs.program(
            argv, terminal=None, output=self.data, errors=self._failing, ended=over
        )
        program.end_of_input()
        try:
            return await result
        finally:
            await ended

    def _failing(self, data: bytes) -> None:
        self._errors = (self._errors + data)[:ERRORS_KEPT]

    def pause(self) -> None:
        """The client is late."""
        if self._program is not None:
            self._program.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self._program is not None:
            self._program.resume()


class LoadImagesRequest(_ArchiveRequest):
    """Parameters: images, ids by the names that they get. The client sends an archive."""

    def __init__(self, archives: ImageArchives, connection: StreamProtocol, peer: Peer) -> None:
        super().__init__(archives, connection, peer)
        self._upload: Upload | None = None

    def checked(self, parameters: dict[str, Any]) -> Callable[[Path], Coroutine[Any, Any, None]]:
        """Return the work; see _ArchiveRequest."""
        images = parameters.get("images")
        if not isinstance(images, dict) or not 0 < len(images) <= MOST_IMAGES \
                or not all(map(is_image_id, images.values())):
            raise Invalid(f"images are the ids of 1 to {MOST_IMAGES} images, by their names")

        async def work(place: Path) -> None:
            with self._archives.loading(self.username, images) as fullnames:
                archive = place / "archive"
                self._upload = Upload(archive, LARGEST)
                await self._upload.whole
                await self._archives.load(place, archive, fullnames, _Told(self))

        return work

    def frame(self, kind: bytes, payload: bytes) -> None:
        if self._upload is not None and kind in (frames.DATA, frames.END):
            self._upload.frame(kind, payload)

    def close(self) -> None:
        """Take no more of the client."""
        if self._upload is not None:
            self._upload.close()
