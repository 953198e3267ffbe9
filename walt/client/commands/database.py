"""The database of the server, for root of its machine (`walt advanced sql`)."""

from __future__ import annotations

import os
import sys

from walt.client.errors import Failure
from walt.client.session import Session
from walt.client.terminal import Terminal

READ_ONLY = "-c default_transaction_read_only=on"
MISSING = "psql is missing on this machine; run: apt-get install postgresql-client"


def psql(write: bool) -> int:
    """Become psql: a dialogue on a terminal, else the statements of standard input.

    Without `write` statements that would change something fail. Raises Failure.
    """
    session = Session(Terminal())
    variables: dict[str, str] = session.json("ss.database.reach", "variables")
    session.close()
    if not write:
        variables["PGOPTIONS"] = READ_ONLY
    if sys.stdin.isatty() and sys.stdout.isatty():
        print(r"Type \dt for the list of tables, \q to leave.")
        sys.stdout.flush()
    # An error in statements from a pipe ends with a status, as everywhere.
    argv = ["psql", "--set", "ON_ERROR_STOP=1"]
    if sys.stdin.isatty():
        argv = ["psql"]
    try:
        os.execvpe(argv[0], argv, {**os.environ, **variables})  # noqa: S606 (a vector)
    except FileNotFoundError:
        raise Failure(MISSING) from None
