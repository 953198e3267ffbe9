"""Connections to PostgreSQL through txpostgres, with reconnection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from txpostgres.txpostgres import Connection, Cursor

from walt.common.errors import Busy, Unavailable
from walt.server.adapters.postgres.places import (
    addresses_of,
    parsed,
    places,
    unresolved,
    with_addresses,
)
from walt.server.adapters.postgres.sockets import LOST, LibpqSocket
from walt.server.runtime.reactors import IReactor

_T = TypeVar("_T")
Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Any]]  # with the values of its places

MOST_VALUES = 8_000  # of several statements in one trip to the database: some ms of work
COMMIT_LIMIT = 30.0  # seconds
LONGEST_PAUSE = 0.1  # seconds between two attempts to connect
CONNECT_LIMIT = 10.0  # seconds until an attempt to connect without any answer is given up

# Operational errors, by their class, that are about what was asked: too long, too complex.
LIMITS = (psycopg2.errors.ProgramLimitExceeded, psycopg2.errors.StatementTooComplex)


class _Connection(Connection):
    """A connection whose loss while it is idle is no error: it is closed, and replaced."""

    def __init__(self, reactor: IReactor) -> None:
        super().__init__(LibpqSocket(reactor, self.close))

    def cursorFinished(self, cursor: Cursor) -> None:
        try:
            super().cursorFinished(cursor)
        except OSError:
            # What the statement itself ended with is worth more than this.
            self.close()

    def close(self) -> None:
        if self.pollable() is not None:
            super().close()
        self.reactor.release()


def abandonable(running: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred that follows a statement and can be cancelled.

    The statement cannot: who cancels has to close the connection.
    """
    follower: Deferred[_T] = Deferred()

    def succeeded(result: _T) -> None:
        if not follower.called:
            follower.callback(result)

    def failed(failure: Failure) -> None:
        if follower.called:
            return
        if failure.check(CancelledError):
            # Not ours: so txpostgres tells that the server ended the statement (a time limit).
            failure = Failure(psycopg2.errors.QueryCanceled("the server ended the statement"))
        follower.errback(failure)

    running.addCallbacks(succeeded, failed)
    return follower


async def _commit(connection: Connection, clock: IReactorTime, limit: float) -> None:
    """Commit. PostgreSQL answers to a COMMIT of what failed that it was undone, as a success."""
    cursor = connection.cursor()
    try:
        await abandonable(cursor.execute("COMMIT")).addTimeout(limit, clock)
        outcome = cursor.statusmessage
    except TimeoutError:
        # Nothing else makes a COMMIT wait (PostgreSQL manual, "synchronous_commit").
        raise psycopg2.OperationalError(
            f"it did not confirm within {limit:g} s what was written: a primary waits for"
            " the replicas of its synchronous_standby_names"
        ) from None
    finally:
        cursor.close()
    if outcome != "COMMIT":
        raise psycopg2.OperationalError(f"a transaction ended with {outcome}")


def was_lost(error: BaseException) -> bool:
    """Tell whether an error is about the connection or the server, not about what was asked.

    A server that crashes and recovers may answer with internal errors before
    the connection ends; libpq speaks of dead connections without a code.
    """
    if isinstance(error, LIMITS):
        return False
    return isinstance(error, (*LOST, psycopg2.InternalError)) or (
        type(error) is psycopg2.DatabaseError and getattr(error, "pgcode", None) is None
    )


def unavailable(error: BaseException) -> Unavailable:
    """Return what to tell of a lost server or connection."""
    return Unavailable(f"the database was lost: {str(error).strip()}")


class Transaction:
    """One open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        rows: list[Row] = await abandonable(self._connection.runQuery(sql, tuple(values)))
        return rows

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement without result."""
        await abandonable(self._connection.runOperation(sql, tuple(values) or None))

    async def execute_all(self, statements: Iterable[Statement]) -> None:
        """Run statements without results one after the other, in one trip to the database.

        Those with thousands of values go by themselves: a turn of the reactor makes and writes
        down what one trip takes. statement_timestamp() is the same in all statements of a trip.
        """
        for trip in _trips(statements):
            await self.execute(
                ";\n".join(sql for sql, _ in trip),
                [value for _, values in trip for value in values],
            )


def _trips(statements: Iterable[Statement]) -> Iterator[list[Statement]]:
    trip: list[Statement] = []
    size = 0
    for statement in statements:
        count = sum(len(value) if isinstance(value, list) else 1 for value in statement[1])
        if trip and size + count > MOST_VALUES:
            yield trip
            trip, size = [], 0
        trip.append(statement)
        size += count
    if trip:
        yield trip


# Parameters of connections and the variables that programs read (PostgreSQL manual, "libpq").
VARIABLES = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE",
    "user": "PGUSER", "password": "PGPASSWORD", "passfile": "PGPASSFILE", "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "sslrootcert": "PGSSLROOTCERT",
    "service": "PGSERVICE", "target_session_attrs": "PGTARGETSESSIONATTRS",
}


class Database:
    """A pool of at most `size` connections to one database.

    A lost server is waited for, `patience` seconds at most; a statement that
    was running when it was lost fails with Unavailable, and its transaction
    did not happen, or whether it did is not known. Of several servers that `dsn`
    names, the one that writes is looked for from the last known one on, so that a
    replica which was promoted is found.
    """

    def __init__(
        self, reactor: IReactor, dsn: str, *, size: int = 4, patience: float = 30.0,
        connect_limit: float = CONNECT_LIMIT, commit_limit: float = COMMIT_LIMIT,
    ) -> None:
        self._reactor = reactor
        self.clock: IReactorTime = reactor
        self._dsn = dsn
        self._places = places(dsn)
        self._place = 0  # the one that is tried next
        self._patience = patience
        self._connect_limit, self._commit_limit = connect_limit, commit_limit
        self._idle: list[Connection] = []
        self._turns = DeferredSemaphore(size)

    def variables(self) -> dict[str, str]:
        """Return how libpq's programs reach the same database: their environment."""
        known = parsed(self._dsn)
        return {VARIABLES[name]: value for name, value in known.items() if name in VARIABLES}

    async def transaction(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Run `work` in one transaction, committed at its end, undone if it raises.

        Raises Unavailable when the database cannot be reached, Busy when a lock
        was not to be had in the time that `work` set, and whatever `work` raises.
        """
        await self._turns.acquire()
        try:
            connection = await self._take()
            try:
                await abandonable(connection.runOperation("BEGIN"))
                try:
                    result = await work(Transaction(connection))
                except CancelledError:
                    raise
                except BaseException:
                    await abandonable(connection.runOperation("ROLLBACK"))
                    raise
                await _commit(connection, self._reactor, self._commit_limit)
            except CancelledError:
                # A statement may be running: the server undoes it when we are gone.
                connection.close()
                raise
            except psycopg2.errors.LockNotAvailable:
                self._put_back(connection)
                raise Busy("the tables are in use for longer; try again later") from None
            except BaseException as error:
                if was_lost(error) or connection.closed:
                    connection.close()
                    raise unavailable(error) from error
                self._put_back(connection)
                raise
            self._put_back(connection)
            return result
        finally:
            self._turns.release()

    async def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement in its own transaction and return its rows."""
        return await self.transaction(lambda transaction: transaction.query(sql, values))

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one statement without result in its own transaction."""
        await self.transaction(lambda transaction: transaction.execute(sql, values))

    def _put_back(self, connection: Connection) -> None:
        if connection.closed:
            return
        self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return await self.connect()

    async def connect(self) -> Connection:
        """Open a connection, trying again until `patience` is over (Unavailable)."""
        started = self._reactor.seconds()
        limit = self._connect_limit / (1 if len(self._places) == 1 else 3)
        pause = 0.0
        while True:
            place = self._place
            try:
                return await self._connect_to(self._places[place], limit)
            except (psycopg2.Error, *LOST, TimeoutError) as error:
                if place == self._place:  # others may have found it out before
                    self._place = (place + 1) % len(self._places)
                if self._reactor.seconds() - started >= self._patience:
                    what = "it does not answer" if isinstance(error, TimeoutError) else error
                    raise Unavailable(
                        f"cannot reach the database: {str(what).strip()}"
                    ) from error
            pause = min(pause + 0.01, LONGEST_PAUSE)  # one that starts is there soon
            waiting: Deferred[None] = deferLater(self._reactor, pause, lambda: None)
            await waiting

    async def _connect_to(self, place: str, limit: float) -> Connection:
        """Return a connection to one server, by the first of its addresses that leads there."""
        # libpq would look for the addresses itself, and stop the reactor until it has them.
        name = unresolved(place)
        ways = [place]
        if name is not None:
            ways = with_addresses(place, await abandonable(deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), addresses_of, name
            )).addTimeout(limit, self._reactor))
        for number, way in enumerate(ways, 1):
            connection = _Connection(self._reactor)
            try:
                await abandonable(connection.connect(way)).addTimeout(limit, self._reactor)
            except CancelledError:
                connection.close()
                raise
            except (psycopg2.Error, *LOST, TimeoutError):
                connection.close()
                if number == len(ways):
                    raise
            else:
                return connection
        raise AssertionError

    def close(self) -> None:
        """Close idle connections; the busy ones are closed by their users."""
        while self._idle:
            self._idle.pop().close()
