"""Jobs of the archive of logs; see `walt.server.adapters.archive.writing`."""

from __future__ import annotations

from typing import Any

from walt.server.adapters.archive import writing
from walt.server.adapters.postgres.log_weeks import archived_file, week
from walt.server.workers.main import Progress


def write(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Write the lines of the partition `table` of the database `dsn`, and verify them."""
    return writing.write(arguments, week(arguments["dsn"], arguments["table"]), progress)


def rewrite(arguments: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Write a file again without some streams; the database `dsn` knows what is in it."""
    known = archived_file(arguments["dsn"], arguments["former"], arguments["streams"])
    return writing.rewrite(arguments, known, progress)


def remove(arguments: dict[str, Any], progress: Progress) -> None:
    """Remove files."""
    writing.remove(arguments, progress)


def check(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Return what is wrong with an archive."""
    return writing.check(arguments, progress)
