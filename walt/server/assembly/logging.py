"""The daemon's own log: one line an event, levels from `info` up.

Who reads it has a terminal: what strangers sent is shown there, not obeyed.
"""

from __future__ import annotations

import sys
from typing import IO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    formatTime,
)

from walt.common.controls import visible


def observer(out: IO[str] = sys.stdout) -> ILogObserver:
    """Return what twistd's option `--logger` wants: lines on standard output."""
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for quiet in ("twisted.protocols.amp", "twisted.python.log", "twisted.internet", "-"):
        levels.setLogLevelForNamespace(quiet, LogLevel.warn)
    return FilteringLogObserver(FileLogObserver(out, _line), [levels])


def _line(event: LogEvent) -> str | None:
    text = formatEventAsClassicLogText(event, formatTime)
    return None if text is None else visible(text)
