"""Begins the record of a process: of the server, or of one of its workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import epoll
from typing import TYPE_CHECKING, Any

from walt.server.trackexec import VARIABLE
from walt.server.trackexec.hook import Hook
from walt.server.trackexec.recorder import SPACE, Recorder

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor

PACKAGE = "walt"

OnTrouble = Callable[[str], None]


def record_server(directory: Path, on_trouble: OnTrouble, space: int = SPACE) -> Recorder:
    """Record what package `walt` executes in this process, below `directory/<now>/server`.

    `directory` is that of all records, its link `latest` leads to the newest. Nothing is
    written before the recorder is started: the process may become a daemon first. Raises
    OSError when nothing can be written there.
    """
    run = directory / time.strftime("%y%m%d-%H%M%S")
    recorder = _record(run / "server", on_trouble, space)
    link = directory / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(run.name)
    link.replace(directory / "latest")
    os.environ[VARIABLE] = str(run)
    return recorder


def record_worker() -> None:
    """Record this process as well, when the server that started it does."""
    run = os.environ.pop(VARIABLE, None)
    if run is None:
        return

    def tell(text: str) -> None:
        print(text, file=sys.stderr)

    try:
        _record(Path(run) / f"worker-{os.getpid()}", tell, SPACE).start()
    except OSError as error:
        tell(f"this worker is not recorded: {error.strerror}")


def _record(directory: Path, on_trouble: OnTrouble, space: int) -> Recorder:
    recorder = Recorder(directory, on_trouble, space)
    Hook(PACKAGE, [__package__], recorder.record, recorder.numbered).install()
    return recorder


def watch(reactor: EPollReactor, recorder: Recorder) -> None:
    """Write while a reactor runs, and know when it waits. Of `epoll`, the only one on Linux."""
    reactor._poller = _Poller(reactor._poller, recorder)
    reactor.callWhenRunning(recorder.start)
    reactor.addSystemEventTrigger("after", "shutdown", recorder.stop)


class _Poller:
    """An `epoll` object that tells when it waits."""

    def __init__(self, poller: epoll, recorder: Recorder) -> None:
        self._poller = poller
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Wait as `epoll.poll` does."""
        self._recorder.idle()
        try:
            return self._poller.poll(timeout, most)
        finally:
            self._recorder.busy()
