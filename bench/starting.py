"""How long PostgreSQL takes of a start of the server."""

from __future__ import annotations

import time

from tests.system.load import Load
from walt.server.adapters.postgres.cluster import as_user, binaries
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher


def postgres(load: Load) -> ChildService:
    """Return PostgreSQL alone, on the cluster of the server."""
    platform = load.platform
    data, sockets = platform.state / "postgres", platform.runtime / "postgres"
    return ChildService(load.reactor, Launcher(), ChildSpec(
        "postgres",
        (str(binaries() / "postgres"), "-D", str(data), "-k", str(sockets),
         "-c", "listen_addresses=", "-c", "shared_buffers=64MB"),
        cwd="/", credentials=as_user(), stop_signals=(("INT", 30.0), ("KILL", 5.0)),
    ))


async def postgres_alone(load: Load) -> float:
    """Return how long PostgreSQL alone takes to start on the same cluster."""
    child = postgres(load)
    start = time.monotonic()
    child.startService()
    await load.recorded()
    took = time.monotonic() - start
    load.database.close()
    await child.stopService()
    return took
