"""How the daemons of the server are."""

from __future__ import annotations

from typing import Any, Protocol

from walt.server.runtime import kept


class Supervised(Protocol):
    """What has a daemon as its child; it follows the service of the server."""

    @property
    def health(self) -> kept.Health:
        """Whether it runs and answers."""


class Health:
    """The daemons whose health people may see: those of nodes, then the database, if it is ours."""

    def __init__(self) -> None:
        self.daemons: list[Supervised] = []
        self.database: Supervised | None = None

    def services(self) -> list[dict[str, Any]]:
        """Return one row for each daemon; see `runtime.kept.Health`."""
        shown = [*self.daemons, *([] if self.database is None else [self.database])]
        return [
            {
                "name": health.name, "state": health.state,
                "running": health.running, "pid": health.pid,
                "restarts": health.restarts, "status": health.last_status,
                "trouble": health.trouble, "trouble_time": health.trouble_time,
            }
            for health in (daemon.health for daemon in shown)
        ]
