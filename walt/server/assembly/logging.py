"""The daemon's own log: one line an event, levels from `info` up.

Who reads it has a terminal: what strangers sent is shown there, not obeyed. Programs that
collect logs get JSON, where the environment says so: `WALT_LOG_FORMAT=json`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter
from typing import IO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.failure import Failure

from walt.common.controls import visible

VARIABLE = "WALT_LOG_FORMAT"
LONGEST = 4096  # characters of a value; a message or a traceback may have four times as many
MOST_VALUES = 30  # of one event


def observer(
    out: IO[str] = sys.stdout, environment: Mapping[str, str] = os.environ
) -> ILogObserver:
    """Return what twistd's option `--logger` wants: lines on standard output."""
    shape = _object if environment.get(VARIABLE) == "json" else _line
    return worth_telling(FileLogObserver(out, shape))


def worth_telling(observer: ILogObserver) -> ILogObserver:
    """Return what hands an observer the events of the daemon's own log, and no others.

    What libraries say of each connection and message is left out up to warnings: strangers
    decide how much there is of it.
    """
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for quiet in ("twisted.protocols.amp", "twisted.python.log", "twisted.internet", "-"):
        levels.setLogLevelForNamespace(quiet, LogLevel.warn)
    return FilteringLogObserver(observer, [levels])


def _line(event: LogEvent) -> str | None:
    text = formatEventAsClassicLogText(event, _moment)
    return None if text is None else visible(text)


def _moment(seconds: float | None) -> str:
    return formatTime(None) if seconds is None else _second(int(seconds))


@lru_cache(1)
def _second(seconds: int) -> str:
    """Return how a second is written: hundreds of lines may have the same."""
    return formatTime(seconds)


def _object(event: LogEvent) -> str | None:
    """Return an event as a JSON object: what it says, and the values that it says it with."""
    message = formatEvent(event)
    if not message:
        return None
    moment = datetime.fromtimestamp(event["log_time"], UTC)
    shown = {
        "time": moment.isoformat(timespec="microseconds"),
        "level": event["log_level"].name,
        "source": event.get("log_namespace", "-"),
        "message": message[:4 * LONGEST],
        **_values(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        shown["error"] = failure.type.__name__ if failure.type is not None else "unknown"
        shown["traceback"] = failure.getTraceback()[-4 * LONGEST:]
    return json.dumps(shown) + "\n"  # in ASCII: nothing in it ends a line or acts on a terminal


def _values(event: LogEvent) -> dict[str, dict[str, object]]:
    names = _names(str(event.get("log_format", "")))
    values = {name: _plain(event[name]) for name in sorted(names & event.keys())[:MOST_VALUES]}
    return {"values": values} if values else {}


def _names(form: str) -> set[str]:
    """Return the names of the values that a message is made of."""
    try:
        return {
            re.split(r"[.\[(]", name, maxsplit=1)[0]
            for _, name, _, _ in Formatter().parse(form) if name
        }
    except ValueError:
        return set()


def _plain(value: object) -> object:
    """Return a value that JSON has: numbers as they are, else what it looks like."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    return formatEvent({"log_format": "{value}", "value": value})[:LONGEST]
