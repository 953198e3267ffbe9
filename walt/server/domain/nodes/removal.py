"""What becomes of the log lines of a device that is forgotten (spec server §4.13)."""

from __future__ import annotations

from walt.common.errors import Conflict, LimitExceeded
from walt.common.names import PLATFORM_USER
from walt.server.domain.logs.lines import LogService
from walt.server.domain.logs.model import LogQuery


async def check_loss(
    logs: LogService, issuer: str, name: str, command: str, keeping: str | None = None
) -> None:
    """Raise Conflict when log lines of an issuer would be lost; consoles do not count.

    `command` is what forgets the issuer all the same, `keeping` what keeps its lines.
    """
    query = LogQuery(issuers=frozenset({issuer}), exclude_consoles=True)
    try:
        lines = await logs.count(query, PLATFORM_USER)
    except LimitExceeded:
        what = f"many log lines of {name} (counting them takes too long)"
    else:
        if not lines:
            return
        what = f"{lines} log lines of {name}" if lines > 1 else f"1 log line of {name}"
    alternative = f"\nTo keep them, use: {keeping}" if keeping is not None else ""
    raise Conflict(f"{what} would be lost; if that is fine, use: {command}{alternative}")
