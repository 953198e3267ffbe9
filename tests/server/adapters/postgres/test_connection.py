"""Transactions, lost servers, limits: on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.patience import patient
from tests.system import cluster
from walt.common.errors import Unavailable
from walt.server.adapters.postgres import connection as connection_module
from walt.server.adapters.postgres.cluster import Cluster, binaries
from walt.server.adapters.postgres.connection import Database, Transaction
from walt.server.adapters.postgres.migrate import scripts


class BrokenReactor:
    """A reactor that refuses to watch the next `broken` sockets, as epoll does closed ones."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.broken = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def addReader(self, reader: Any) -> None:
        if self.broken:
            self.broken -= 1
            raise FileNotFoundError(2, "No such file or directory")
        self._reactor.addReader(reader)


class DatabaseTests(TestCase):
    skip = cluster.why_not()
    timeout = patient(60)

    def setUp(self) -> Any:
        from twisted.internet import reactor

        self.reactor = reactor
        self.cluster = cluster.shared()
        self.dsn = self.cluster.fresh()
        self.database = Database(reactor, self.dsn, patience=10)
        self.addCleanup(self.database.close)
        return Deferred.fromCoroutine(self.database.execute("CREATE TABLE t (n integer UNIQUE)"))

    async def numbers(self) -> list[int]:
        """Return what the table holds."""
        return [row[0] for row in await self.database.query("SELECT n FROM t ORDER BY n")]

    async def asleep(self, number: int = 1) -> None:
        """Wait until so many statements sleep in the database."""
        with contextlib.closing(psycopg2.connect(self.dsn)) as looking, looking.cursor() as cursor:
            looking.autocommit = True
            while cursor.rowcount != number:
                await deferLater(self.reactor, 0.01)  # type: ignore[arg-type]
                cursor.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND state = 'active' AND wait_event = 'PgSleep'"
                )

    async def test_names(self) -> None:
        """Addresses are looked for in a thread; each of them is tried, then the next server."""
        threads: list[threading.Thread] = []
        tried: list[str] = []

        def addresses(name: str) -> list[str]:
            threads.append(threading.current_thread())
            if name == "none.example":
                raise socket.gaierror(-2, "Name or service not known")
            return ["127.0.0.2", "127.0.0.3"]

        async def connect(place: str, limit: float) -> Any:
            tried.append(place)
            return await usual(place, limit)

        self.patch(connection_module, "addresses_of", addresses)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        database = Database(
            self.reactor, f"host=none.example,db.example port={port} dbname=x", patience=0.3
        )
        usual = database._connect_to
        self.patch(database, "_connect_to", connect)
        error = await self.assertFailure(
            Deferred.fromCoroutine(database.query("SELECT 1")), Unavailable
        )
        self.assertNotIn(threading.main_thread(), threads)
        self.assertIn("cannot reach the database", str(error))
        self.assertEqual(
            ["none" in place for place in tried[:2]], [True, False]
        )

    async def test_a_replica_that_is_waited_for(self) -> None:
        """A COMMIT that waits for replicas ends with words; the connection is given up."""
        database = Database(self.reactor, self.dsn, commit_limit=0.3)
        self.addCleanup(database.close)
        await database.execute("INSERT INTO t VALUES (1)")
        self.cluster.set("synchronous_standby_names", "nobody")
        self.addCleanup(self.cluster.set, "synchronous_standby_names", "")
        # Each process of PostgreSQL hears of a setting at a time of its own.
        told = ""
        while not told:
            try:
                await database.execute("INSERT INTO t (n) SELECT coalesce(max(n), 0) + 10 FROM t")
            except Unavailable as error:
                told = str(error)
        self.assertIn("synchronous_standby_names", told)
        self.cluster.set("synchronous_standby_names", "")
        await database.execute("INSERT INTO t VALUES (3)")
        self.assertLessEqual({1, 3}, set(await self.numbers()))

    async def test_rolled_back(self) -> None:
        """A failure in the middle undoes all, and the connection is used again."""

        async def work(one: Transaction) -> None:
            await one.execute("INSERT INTO t VALUES (1)")
            await one.execute("INSERT INTO t VALUES (1)")

        await self.assertFailure(
            Deferred.fromCoroutine(self.database.transaction(work)),
            psycopg2.errors.UniqueViolation,
        )
        self.assertEqual(await self.numbers(), [])

    async def test_many_at_once(self) -> None:
        """More transactions than connections take turns."""
        await gatherResults([
            Deferred.fromCoroutine(self.database.execute("INSERT INTO t VALUES (%s)", (n,)))
            for n in range(50)
        ])
        self.assertEqual(await self.numbers(), list(range(50)))
        rows = await self.database.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        )
        self.assertLessEqual(rows[0][0], 4)

    async def test_cancelled(self) -> None:
        """Cancelling a query undoes its transaction and keeps the pool usable."""
        for number in range(1, 7):
            sleeping = Deferred.fromCoroutine(self.database.execute(
                "INSERT INTO t SELECT 1 FROM pg_sleep(30)"
            ))
            # Those of cancelled statements sleep on: nobody reads what they have to say.
            await self.asleep(number)
            sleeping.cancel()
            await self.assertFailure(sleeping, CancelledError)
        self.assertEqual(await self.numbers(), [])

    async def test_killed_server(self) -> None:
        """A lost statement is Unavailable; the next one waits for the server to be back."""
        await self.database.execute("INSERT INTO t VALUES (1)")
        sleeping = Deferred.fromCoroutine(self.database.query("SELECT pg_sleep(30)"))
        await self.asleep()
        self.cluster.kill()
        await self.assertFailure(sleeping, Unavailable)
        waiting = Deferred.fromCoroutine(self.database.execute("INSERT INTO t VALUES (2)"))
        self.assertNoResult(waiting)
        self.cluster.start()
        await waiting
        self.assertEqual(await self.numbers(), [1, 2])

    async def test_broken_descriptors(self) -> None:
        """A reactor that does not know a socket any more: the connection is lost, not the call."""
        reactor: Any = BrokenReactor(self.reactor)
        database = Database(reactor, self.cluster.fresh(), patience=10)
        self.addCleanup(database.close)
        await database.execute("CREATE TABLE t (n integer)")
        reactor.broken = 1
        await self.assertFailure(
            Deferred.fromCoroutine(database.execute("INSERT INTO t VALUES (1)")), Unavailable
        )
        # While connecting, it is tried again.
        database.close()
        reactor.broken = 3
        await database.execute("INSERT INTO t VALUES (2)")
        self.assertEqual(await database.query("SELECT n FROM t"), [(2,)])
        self.assertEqual(reactor.broken, 0)

    async def test_silent_server(self) -> None:
        """A server that takes connections and says nothing is given up."""
        directory = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, directory)
        silent = socket.socket(socket.AF_UNIX)
        self.addCleanup(silent.close)
        silent.bind(f"{directory}/.s.PGSQL.5432")
        silent.listen()
        nobody = Database(
            self.reactor, f"host={directory} dbname=x", patience=0.3, connect_limit=0.2
        )
        await self.assertFailure(Deferred.fromCoroutine(nobody.query("SELECT 1")), Unavailable)

    async def test_nobody_there(self) -> None:
        """A server that never answers is Unavailable after a while."""
        nobody = Database(self.reactor, "host=/nonexistent dbname=x", patience=0.3)
        await self.assertFailure(Deferred.fromCoroutine(nobody.query("SELECT 1")), Unavailable)


class ClusterTests(SynchronousTestCase):
    def test_migrations_are_numbered(self) -> None:
        """1, 2, 3… in order."""
        numbers = [number for number, _ in scripts()]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))

    def test_not_installed(self) -> None:
        """The error names the package."""
        from pathlib import Path

        error = self.assertRaises(Unavailable, binaries, Path("/nonexistent"))
        self.assertIn("apt-get install postgresql", str(error))

    def test_private(self) -> None:
        """No TCP port, another user, data safe on disk, an end that does not wait for clients."""
        from pathlib import Path

        spec = Cluster(Path("/s"), Path("/r"), None).spec()  # type: ignore[arg-type]
        self.assertIn("listen_addresses=", spec.argv)
        self.assertNotIn("fsync=off", spec.argv)
        self.assertIn("postgres", spec.credentials)
        self.assertEqual(spec.stop_signals[0][0], "INT")


class TripsTests(SynchronousTestCase):
    def trips(self, *sizes: int) -> list[tuple[str, int]]:
        """Return what is sent for statements of so many values, and how many values each time."""
        sent: list[tuple[str, int]] = []

        class Connection:
            def runOperation(self, sql: str, values: Any) -> Deferred[None]:
                sent.append((sql, sum(len(value) for value in values)))
                return succeed(None)

        transaction: Any = Connection()
        self.successResultOf(Deferred.fromCoroutine(Transaction(transaction).execute_all(
            (str(number), [["x"] * size]) for number, size in enumerate(sizes)
        )))
        return sent

    def test_few_values(self) -> None:
        """They go together."""
        self.assertEqual(self.trips(), [])
        self.assertEqual(self.trips(1, 0, 2), [("0;\n1;\n2", 3)])

    def test_many_values(self) -> None:
        """No turn of the reactor writes down what several large statements take."""
        most = connection_module.MOST_VALUES
        self.assertEqual(self.trips(1, 3 * most, 1, most, most - 1, 1, 1), [
            ("0", 1), ("1", 3 * most), ("2", 1), ("3", most), ("4;\n5", most), ("6", 1),
        ])
