"""When the server is ready, and how systemd hears of it (sd_notify(3)).

Ready means that what no node boots without answers questions of its own protocol.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from walt.common.errors import Unavailable
from walt.server.runtime.kept import Health

PATIENCE = 120.0  # seconds for all of them: a busy machine starts daemons slowly
PAUSE = 1.0  # seconds between two looks at one that is not there

_ADDRESS = os.environ.pop("NOTIFY_SOCKET", None)  # children (podman) must not see it


def notify(state: str) -> None:
    """Tell systemd, if it wants to know; a datagram never blocks."""
    if not _ADDRESS:
        return
    address = "\0" + _ADDRESS[1:] if _ADDRESS.startswith("@") else _ADDRESS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as endpoint:
        try:
            endpoint.sendto(state.encode(), address)
        except OSError:
            return


class Essential(NamedTuple):
    """A daemon that has to answer: `answered` tells whether it did since its start.

    `patience` is how many seconds it may take.
    """

    answered: Callable[[], Deferred[bool]]
    health: Callable[[], Health]
    patience: float = PATIENCE


async def until_answering(clock: IReactorTime, daemons: Sequence[Essential]) -> None:
    """Return when all of them have answered.

    Raises Unavailable, with the trouble of each one that did not, when none of them need be
    waited for any more.
    """
    limit = clock.seconds() + max((daemon.patience for daemon in daemons), default=0.0)
    missing = [*daemons]
    while missing:
        missing = [daemon for daemon in missing if not await daemon.answered()]
        if missing and clock.seconds() >= limit:
            lines = [_reason(daemon.health()) for daemon in missing]
            raise Unavailable("nodes could not boot: " + "\n".join(lines))
        if missing:
            notify(f"STATUS=waiting for {', '.join(daemon.health().name for daemon in missing)}")
            await deferLater(clock, PAUSE)
    notify("STATUS=")


def _reason(health: Health) -> str:
    if health.trouble:
        return f"{health.name} does not work: {health.trouble}"
    return f"{health.name} does not answer; its lines in the log may tell why"
