"""Bring the schema up to date: numbered SQL files, each applied once (design D3)."""

from __future__ import annotations

from importlib.resources import files

from twisted.logger import Logger

from walt.server.adapters.postgres import former
from walt.server.adapters.postgres.connection import Database, Transaction

_log = Logger()


def scripts() -> list[tuple[int, str]]:
    """Return the numbered SQL files of the package, in order."""
    folder = files("walt.server.adapters.postgres.schema")
    found = [
        (int(path.name.split("-")[0]), path.read_text())
        for path in folder.iterdir() if path.name.endswith(".sql")
    ]
    return sorted(found)


async def create_database(maintenance: Database) -> None:
    """Create the database `walt` of an embedded cluster unless it exists."""
    connection = await maintenance.connect()
    try:
        found = await connection.runQuery("SELECT 1 FROM pg_database WHERE datname = 'walt'")
        if not found:
            await connection.runOperation("CREATE DATABASE walt")
    finally:
        connection.close()


async def migrate(database: Database, *, keep_former: bool = True) -> list[int]:
    """Apply the files that were not yet applied; return their numbers.

    A database of an older WalT is taken over, as a whole or not at all; see `former`.
    """

    async def work(transaction: Transaction) -> list[int]:
        is_former = await former.is_former(transaction)
        if is_former:
            await former.put_aside(transaction)
        await transaction.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions"
            " (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())"
        )
        await transaction.execute("LOCK TABLE schema_versions IN EXCLUSIVE MODE")
        done = {row[0] for row in await transaction.query("SELECT version FROM schema_versions")}
        applied = []
        for version, sql in scripts():
            if version in done:
                continue
            _log.info("database schema: step {version}, which may rewrite tables", version=version)
            await transaction.execute(sql)
            await transaction.execute(
                "INSERT INTO schema_versions (version) VALUES (%s)", (version,)
            )
            applied.append(version)
        if is_former:
            await former.take_over(transaction, keep=keep_former)
        return applied

    applied = await database.transaction(work)
    if applied:
        _log.info("database schema: applied {versions}", versions=applied)
    return applied
