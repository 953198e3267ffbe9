"""The daemon's own log: one line an event, levels from `info` up."""

from __future__ import annotations

import sys

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)


def observer() -> ILogObserver:
    """Return what twistd's option `--logger` wants: lines on standard output."""
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for quiet in ("twisted.protocols.amp", "twisted.python.log", "twisted.internet", "-"):
        levels.setLogLevelForNamespace(quiet, LogLevel.warn)
    return FilteringLogObserver(textFileLogObserver(sys.stdout), [levels])
