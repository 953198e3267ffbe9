"""The records of a query of log lines."""

from __future__ import annotations

import sys

from walt.client.errors import Failure

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from walt.common.records import Record


def received(query: dict[str, Any], until: float | None = None) -> Iterator[list[Record]]:
    """Yield the records of a query as they come, by groups, until the server ends it.

    Raises TimeoutError at the moment `until`, of time.monotonic.
    """
    from walt.client.stream import Stream, result_status
    from walt.common import frames
    from walt.common.records import decode

    stream = Stream("REQ_DUMP_LOGS", query)
    pending = b""
    try:
        while True:
            found = stream.received(until)
            if found is None:
                raise Failure("communication issue: the server closed the connection")
            for kind, payload in found:
                if kind == frames.DATA:
                    *lines, pending = (pending + payload).split(b"\n")
                    for line in lines:
                        yield decode(line)
                elif kind == frames.MESSAGE:
                    sys.stderr.write(payload.decode(errors="replace"))
                elif kind == frames.RESULT:
                    result_status(payload)
                    return
    finally:
        stream.close()
