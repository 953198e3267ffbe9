"""The daemon's own lines, as logs: streams daemon.stdout and daemon.stderr (S-171)."""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, LogLevel, formatEvent
from zope.interface import implementer

from walt.server.domain.logs.lines import LogService

HIDDEN = "__DEBUG__"  # lines with this word are not logged (spec server §10.1)


@implementer(ILogObserver)
class DaemonLog:
    """Writes the events of the daemon into the log streams of the server's device."""

    def __init__(self, logs: LogService, mac: str) -> None:
        self._logs = logs
        self._mac = mac
        self._writing = False

    def __call__(self, event: Any) -> None:
        """Take one event; what logging itself says is left out."""
        level = event.get("log_level", LogLevel.info)
        if self._writing or level < LogLevel.info:
            return
        stream = "daemon.stderr" if level >= LogLevel.warn else "daemon.stdout"
        self._writing = True
        try:
            for line in formatEvent(event).splitlines():
                if HIDDEN not in line:
                    self._logs.write(self._mac, stream, line)
        finally:
            self._writing = False
