"""A file that a client sends on a stream."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from walt.common import frames
from walt.common.errors import LimitExceeded, WaltError
from walt.common.room import check_room

_log = Logger()


class Upload:
    """Writes what a client sends into the new file `path`, of `most` bytes.

    The disk is looked at with each piece: what comes on other streams fills it, too.
    `whole` fires when it is there; it fails with LimitExceeded when it cannot be kept.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._file: BinaryIO | None = open(path, "xb")  # noqa: SIM115 (closed by END or close)
        self._directory = path.parent
        self._most = most
        self._size = 0
        self.whole: Deferred[None] = Deferred()

    def frame(self, kind: bytes, payload: bytes) -> None:
        """Take a frame of the client."""
        if self._file is None:
            return
        if kind == frames.DATA:
            self._size += len(payload)
            try:
                if self._size > self._most:
                    raise LimitExceeded(f"an archive has at most {self._most >> 30} GiB")
                check_room(self._directory, len(payload))
                self._file.write(payload)
            except OSError as error:
                self._refuse(LimitExceeded(f"the server cannot keep this: {error.strerror}"))
            except LimitExceeded as error:
                self._refuse(error)
        elif kind == frames.END:
            try:
                self._file.close()
            except OSError as error:
                self._refuse(LimitExceeded(f"the server cannot keep this: {error.strerror}"))
                return
            self._file = None
            self.whole.callback(None)

    def _refuse(self, error: WaltError) -> None:
        self.close()
        self.whole.errback(error)

    def close(self) -> None:
        """Take no more."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                _log.info("closing an archive: {error}", error=error.strerror)
