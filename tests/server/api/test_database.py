"""Who learns how the database is reached."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Denied
from walt.server.adapters.postgres.connection import Database
from walt.server.api.server import DatabaseApi


class DatabaseTests(SynchronousTestCase):
    def test_root_alone(self) -> None:
        """Whom the socket proves, whatever name is stated."""
        answer = {"PGHOST": "/run"}
        self.assertEqual(DatabaseApi("root", lambda: answer).reach(), {"variables": answer})
        for account in ("ann", "", None):
            self.assertRaises(Denied, DatabaseApi(account, lambda: answer).reach)

    def test_variables(self) -> None:
        """Those of psql, for what a connection is told; the rest is the server's matter."""
        database = Database(None, "host=db1 port=5433 dbname=walt password='a b' connect_timeout=3")
        self.assertEqual(database.variables(), {
            "PGHOST": "db1", "PGPORT": "5433", "PGDATABASE": "walt", "PGPASSWORD": "a b",
        })
