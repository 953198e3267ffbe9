"""Log lines, stored and live (spec user-surface §2.5)."""

from __future__ import annotations

import time
from collections import namedtuple
from datetime import datetime

from walt.client.errors import Failure
from walt.client.exceptions import TimeoutException
from walt.client.history import parse_range
from walt.client.log_lines import received
from walt.client.scripting.link import LINK

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from walt.client.scripting.issuers import Issuers

Log = namedtuple("Log", ("timestamp", "line", "issuer", "stream"))


def get_logs(
    issuers: str, realtime: bool, history: str | None, timeout: float, objects: Issuers
) -> Iterator[Log]:
    """Return an iterator over log lines; what is wrong with the request is told at once.

    `objects` gives the objects they come from.
    `timeout` is in seconds, none below 0. Raises Failure; TimeoutException while iterating.
    """
    if not realtime and history is None:
        raise Failure("get_logs needs realtime=True, a history range, or both")
    names = LINK.json("cs.logs.issuers", "names", issuers=issuers)
    if not names:
        raise Failure("there is no node in this set")
    query: dict[str, Any] = {
        "issuers": ",".join(names), "streams": None, "lines": None,
        "history": history is not None, "realtime": realtime,
    }
    if history is not None:
        query["start"], query["end"] = parse_range(LINK, history)
    return _lines(query, time.monotonic() + timeout if timeout >= 0 else None, objects)


def _lines(query: dict[str, Any], until: float | None, objects: Issuers) -> Iterator[Log]:
    try:
        for records in received(query, until):
            for timestamp, issuer, stream, line in records:
                yield Log(datetime.fromtimestamp(timestamp), line, objects[issuer], stream)
                if until is not None and time.monotonic() >= until:
                    raise TimeoutException
    except TimeoutError:
        raise TimeoutException from None
