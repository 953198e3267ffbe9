"""The step that takes over the database of an older WalT, which was in Debian's cluster."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import Unavailable
from walt.server.adapters.postgres.restore import pending
from walt.server.tools.setup.downtime import Downtime
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.settling import refuse_without_room, settle

SOCKET = Path("/run/postgresql/.s.PGSQL.5432")  # of Debian's cluster
BACKUP = Path("/var/backups/walt/walt-former.dump")
# Older versions have these tables there, and not ours.
_QUESTION = (
    "DO $$ BEGIN IF to_regclass('devices') IS NULL OR to_regclass('logstreams') IS NULL"
    " OR to_regclass('schema_versions') IS NOT NULL THEN RAISE 'no'; END IF; END $$"
)


@dataclass(frozen=True)
class FormerDatabaseStep:
    """What Debian's cluster holds of an older WalT waits for the server to load it.

    `state` is the state directory; a server that has a database of its own takes over nothing.
    """

    machine: Machine
    state: Path
    downtime: Downtime
    title: str = "database of an older WalT"

    def _waits(self) -> bool:
        at = self.machine.at
        if at(self.state / "postgres").exists() or at(pending(self.state)).exists():
            return False
        if not at(SOCKET).exists():
            return False
        try:
            return self.machine.succeeds(
                "psql", "--no-psqlrc", "--quiet", "--dbname=walt", f"--command={_QUESTION}"
            )
        except Unavailable:  # no psql
            return False

    def lacks(self) -> list[str]:
        """See Step."""
        return ["devices, images and logs of the older WalT are not taken over"] \
            if self._waits() else []

    def apply(self) -> None:
        """See Step. The older server ends first: nothing changes any more."""
        if not self._waits():
            return
        backup, place = self.machine.at(BACKUP), self.machine.at(pending(self.state))
        size = self._size()
        refuse_without_room({backup.parent: size, place.parent: size})
        self.downtime.begin()
        backup.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = backup.with_suffix(".new")
        with suppress(FileNotFoundError):
            unfinished.unlink()
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self.machine.run(
            "pg_dump", "--format=custom", "--dbname=walt", f"--file={unfinished}"
        )
        backup = settle(unfinished, backup)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(backup, place.with_suffix(".new"))
        place.with_suffix(".new").chmod(0o600)
        settle(place.with_suffix(".new"), place)

    def _size(self) -> int:
        """Return how many bytes the database has: a dump, which is compressed, has fewer."""
        told = self.machine.run(
            "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname=walt",
            "--command=SELECT pg_database_size('walt')",
        ).strip()
        return int(told) if told.isdigit() else 0

    def undo(self) -> None:
        """The copy stays, as all data."""
