"""REQ_TAR_FOR_IMAGE_BUILD: a build whose output the client sees live (spec server §4.6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from walt.common import frames
from walt.common.errors import (
    CommandFailed,
    InternalError,
    Invalid,
    WaltError,
    disk_refuses,
)
from walt.server.domain.images.builds import ImageBuild, ImageBuilds, build_failure
from walt.server.domain.images.repositories import NOT_FETCHED
from walt.server.domain.nodes.sessions import ISessions
from walt.server.domain.requester import IRequester
from walt.server.runtime.producing import Pace
from walt.server.streams.base import FramedRequest, Peer, StreamProtocol
from walt.server.streams.upload import Upload

_log = Logger()

MAX_ARCHIVE = 32 << 30  # bytes
MAX_LINE = 65536  # of what git tells


@implementer(IRequester)
class _Told:
    """The requester of a stream: its lines are data, its errors messages."""

    def __init__(self, request: BuildRequest) -> None:
        self._request = request
        self.username = request.username

    def stdout(self, text: str) -> None:
        """Show a line."""
        self._request.data(f"{text}\n".encode())

    def stderr(self, text: str) -> None:
        """Show an error."""
        self._request.message(f"{text}\n")

    def busy(self, label: str) -> None:
        """Show nothing: the output of the build has the screen."""

    def progress(self, text: str) -> None:
        """Show nothing: the output of the build tells."""

    def at_end(self, action: Callable[[], object]) -> None:
        """Forget it: the request itself ends with the connection."""


class FetchOutput:
    """Lets pass what git tells of a repository that it reads, and nothing of why it does not.

    Errors would tell which addresses and ports of the networks of the server answer.
    """

    _SHOWN = (
        b"Cloning into ", b"remote: ", b"Receiving objects:", b"Resolving deltas:",
        b"Updating files:", b"Filtering content:",
    )

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._pending = b""

    def received(self, data: bytes) -> None:
        """Take bytes of its error output."""
        self._pending += data
        *lines, self._pending = re.split(rb"(?<=[\r\n])", self._pending)
        for line in lines:
            if line.startswith(self._SHOWN):
                self._show(line)
        if len(self._pending) > MAX_LINE:
            self._pending = b""


class BuildRequest(FramedRequest):
    """Parameters: image, and url (with subdir), or neither: the client sends an archive.

    `terminal`: somebody watches how a repository comes.
    """

    def __init__(
        self, builds: ImageBuilds, programs: ISessions, connection: StreamProtocol, peer: Peer
    ) -> None:
        super().__init__(connection, peer)
        self._builds = builds
        self._programs = programs
        self._upload: Upload | None = None
        self._watched = False
        self._program: Any = None
        self._work: Deferred[Any] | None = None

    def opened(self, parameters: dict[str, Any]) -> None:
        image, url = parameters.get("image"), parameters.get("url")
        subdir = parameters.get("subdir") or ""
        if not isinstance(image, str) or not isinstance(subdir, str):
            raise Invalid("image and subdir must be texts")
        if url is not None and not isinstance(url, str):
            raise Invalid("url must be a text")
        build = self._builds.open(self.username, image)
        self._watched = parameters.get("terminal") is True
        if url is None:
            self._upload = Upload(build.archive, MAX_ARCHIVE)
        transport: Any = self.connection.transport
        transport.registerProducer(Pace(self._pause, self._resume, stop=lambda: None), True)
        self._work = Deferred.fromCoroutine(self._run(build, url, subdir))

    async def _run(self, build: ImageBuild, url: str | None, subdir: str) -> None:
        values: dict[str, Any]
        try:
            try:
                ok = await self._build(build, url, subdir)
                values = {"status": 0 if ok else 1}
            finally:
                if self._upload is not None:
                    self._upload.close()
                await build.close()
        except CancelledError:
            return
        except WaltError as error:
            values = {"status": 1, "error": build_failure(error), "code": error.code}
        except Exception as error:
            failure: WaltError = disk_refuses(error) or InternalError(
                "internal error; see the log of the server"
            )
            if isinstance(failure, InternalError):
                _log.failure("building {image}", image=build.fullname)
            values = {"status": 1, "error": str(failure), "code": failure.code}
        transport: Any = self.connection.transport
        if transport is not None:
            transport.unregisterProducer()
            self.result(**values)

    async def _build(self, build: ImageBuild, url: str | None, subdir: str) -> bool:
        if url is not None:
            shown = FetchOutput(self._errors)
            command = await build.fetch_command(url, progress=self._watched)
            if await self._execute(command, shown.received) != 0:
                raise CommandFailed(NOT_FETCHED)
            left_out = build.left_out()
            if left_out is not None:
                self._errors(f"{left_out}\n".encode())
        elif self._upload is not None:
            await self._upload.whole
            await build.unpack()
        command = await build.command(subdir)
        if build.warning is not None:
            self._errors(f"{build.warning}\n".encode())
        status = await self._execute(command, self._errors)
        if status != 0:
            raise CommandFailed(f"the build failed (status {status})")
        return await build.finish(_Told(self))

    async def _execute(self, argv: list[str], errors: Callable[[bytes], None]) -> int:
        """Run a program whose output goes to the client; a client who leaves ends it.

        `errors` gets its error output; returns its status.
        """
        ended: Deferred[None] = Deferred()
        result: Deferred[int] = Deferred(lambda _: self._program.close())

        def over(status: int) -> None:
            self._program = None
            if not result.called:
                result.callback(status)
            ended.callback(None)

        self._program = self._programs.program(
            argv, terminal=None, output=self.data, errors=errors, ended=over
        )
        self._program.end_of_input()
        try:
            return await result
        finally:
            await ended

    def _errors(self, data: bytes) -> None:
        self.connection.write(frames.encode(frames.MESSAGE, data))

    def frame(self, kind: bytes, payload: bytes) -> None:
        if self._upload is not None:
            self._upload.frame(kind, payload)

    def lost(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _pause(self) -> None:
        """The client is late."""
        if self._program is not None:
            self._program.pause()

    def _resume(self) -> None:
        """The client caught up."""
        if self._program is not None:
            self._program.resume()
