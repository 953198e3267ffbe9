"""A database that was restored from a backup, loaded when the server starts."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger

from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.postgres.cluster import binaries
from walt.server.adapters.postgres.connection import Database
from walt.server.runtime.process import ProcessRunner

_log = Logger()

UNFINISHED = "unfinished"  # beside the dump, while a restore is under way
LONGEST = 6 * 3600.0  # seconds: logs of years


def pending(state: Path) -> Path:
    """Return where a restored dump waits."""
    return state / "restore" / "walt.dump"


def check_restore(state: Path) -> list[str]:
    """Return what is wrong with a restore that was cut."""
    if (state / "restore" / UNFINISHED).exists():
        return [
            "a restore was not finished; run it again: walt advanced restore FILE"
        ]
    return []


async def load_pending(runner: ProcessRunner, database: Database, state: Path) -> None:
    """Load the dump that waits, if there is one, as one transaction.

    Raises Unavailable: the database is then as it was. One that has our tables was loaded by
    a server that did not come to remove the dump.
    """
    dump = pending(state)
    if not dump.exists():
        return
    known = await database.query("SELECT to_regclass('public.devices') IS NOT NULL")
    if known != [(True,)]:
        _log.info("loading the database of a backup")
        try:
            await runner.run(
                [str(binaries() / "pg_restore"), "--single-transaction", "--exit-on-error",
                 "--no-owner", "--no-privileges", "--dbname=", str(dump)],
                timeout=LONGEST, env=database.variables(), network="host",
            )
        except CommandFailed as error:
            raise Unavailable(f"the database of the backup cannot be loaded: {error}") from None
    dump.unlink()
