"""What every ICheckpoints does: the fake and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.log_store import FakeCheckpoints
from tests.system import cluster
from walt.common.errors import Conflict, NotFound
from walt.server.adapters.postgres.checkpoints import PostgresCheckpoints
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import migrate
from walt.server.domain.logs.interfaces import ICheckpoints


class CheckpointsContract(Contract):
    """`make` returns an empty ICheckpoints."""

    @abstractmethod
    async def make(self) -> ICheckpoints:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """They belong to their user; names are unique for each; times are kept."""
        points = await self.make()
        verifyObject(ICheckpoints, points)
        await points.add("joe", "start", 1e9 + 0.25)
        await points.add("joe", "first", 5e8)
        await points.add("ann", "start", 7e8)
        self.assertEqual(await points.time_of("joe", "start"), 1e9 + 0.25)
        self.assertEqual(
            await points.all_of("joe"), [(5e8, "first"), (1e9 + 0.25, "start")]
        )
        self.assertEqual(await points.all_of("bob"), [])
        await self.assertFailure(
            Deferred.fromCoroutine(points.add("joe", "start", 3e8)), Conflict
        )
        await points.remove("joe", "start")
        for refused in (points.remove("joe", "start"), points.time_of("joe", "start"),
                        points.remove("bob", "x")):
            await self.assertFailure(Deferred.fromCoroutine(refused), NotFound)
        self.assertEqual(await points.time_of("ann", "start"), 7e8)


class FakeCheckpointsTests(CheckpointsContract, TestCase):
    async def make(self) -> Any:
        return FakeCheckpoints()


class PostgresCheckpointsTests(CheckpointsContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        return PostgresCheckpoints(database)
