"""The database of an older WalT (4 to 10) becomes one of ours, in the transaction that makes it.

Its tables move to the schema `walt_former`, ours are made, and their rows come from there.
"""

from __future__ import annotations

from importlib.resources import files

from twisted.logger import Logger

from walt.server.adapters.postgres.connection import Transaction

_log = Logger()


def _script(name: str) -> str:
    return files("walt.server.adapters.postgres.former_schema").joinpath(name).read_text()


async def is_former(transaction: Transaction) -> bool:
    """Tell whether this is a database of an older WalT: its tables, without our versions."""
    ((found,),) = await transaction.query(
        "SELECT to_regclass('public.devices') IS NOT NULL"
        " AND to_regclass('public.logstreams') IS NOT NULL"
        " AND to_regclass('public.schema_versions') IS NULL"
    )
    return bool(found)


async def put_aside(transaction: Transaction) -> None:
    """Move its tables out of the way of ours."""
    _log.info("this is the database of an older WalT: it is taken over, which may take minutes")
    await transaction.execute(_script("aside.sql"))


async def take_over(transaction: Transaction, *, keep: bool) -> None:
    """Fill our new tables.

    `keep`: the former ones stay in their schema, for who has no copy of them.
    """
    await transaction.execute(_script("take_over.sql"))
    if keep:
        _log.info(
            "the tables of the older WalT stay as schema walt_former; when nobody needs them any"
            " more: DROP SCHEMA walt_former CASCADE"
        )
    else:
        await transaction.execute("DROP SCHEMA walt_former CASCADE")
    off = await transaction.query(
        "SELECT d.name, p.port FROM poeoff p JOIN devices d USING (mac) ORDER BY d.name, p.port"
    )
    if off:
        # How these switches are told to was not recorded then.
        _log.warn(
            "these ports were without power when the older WalT ended, and stay so until somebody"
            " powers them at the switch: {ports}",
            ports=", ".join(f"{name} port {port}" for name, port in off),
        )
    ((devices, images, lines),) = await transaction.query(
        "SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM images),"
        " (SELECT count(*) FROM logs)"
    )
    _log.info(
        "taken over: {devices} devices, {images} images, {lines} log lines",
        devices=devices, images=images, lines=lines,
    )
