"""What every IUserKeys does: the fake and PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts.contract import Contract
from tests.fakes.user_keys import FakeUserKeys
from tests.system import cluster
from walt.common.sshkeys import PublicKey
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import migrate
from walt.server.adapters.postgres.user_keys import PostgresUserKeys
from walt.server.domain.nodes.interfaces import IUserKeys

ONE, TWO = PublicKey("ssh-ed25519", "AAAA", "it's"), PublicKey("ssh-rsa", "BBBB", "")


class UserKeysContract(Contract):
    """`make` returns an empty IUserKeys."""

    @abstractmethod
    async def make(self) -> IUserKeys:
        """Given by each implementation; the class tells what."""

    async def test_life(self) -> None:
        """Keys belong to their user, in the order of their coming; each is there once."""
        keys = await self.make()
        verifyObject(IUserKeys, keys)
        for user, key in (("joe", ONE), ("ann", ONE), ("joe", TWO), ("joe", ONE)):
            await keys.add(user, key)
        self.assertEqual(await keys.load(), [("joe", ONE), ("ann", ONE), ("joe", TWO)])
        await keys.remove("joe", ONE)
        await keys.remove("bob", TWO)
        self.assertEqual(await keys.load(), [("ann", ONE), ("joe", TWO)])


class FakeUserKeysTests(UserKeysContract, TestCase):
    async def make(self) -> Any:
        return FakeUserKeys()


class PostgresUserKeysTests(UserKeysContract, TestCase):
    skip = cluster.why_not()

    async def make(self) -> Any:
        from twisted.internet import reactor

        database = Database(reactor, cluster.shared().fresh())
        self.addCleanup(database.close)
        await migrate(database)
        return PostgresUserKeys(database)
