"""Keys of users, and which nodes have them."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.common.test_sshkeys import ED25519, blob
from tests.fakes.nodes import FakePlatform, node
from tests.fakes.user_keys import FakeUserKeys
from walt.common.errors import CommandFailed, Conflict, Invalid, LimitExceeded, NotFound
from walt.server.domain.nodes.interfaces import INodeShell
from walt.server.domain.nodes.keys import AT_ONCE, MOST, UserKeys


def key(number: int, comment: str = "") -> str:
    """Return the line of a key."""
    return f"{ED25519} {blob(ED25519.encode(), bytes([number]) * 32)} {comment}".strip()


@implementer(INodeShell)
class AskingNodes:
    """Nodes that ask for their keys when they are told to; `broken` ones do not."""

    def __init__(self) -> None:
        self.keys: UserKeys | None = None
        self.has: dict[str, list[str]] = {}  # by address
        self.broken: set[str] = set()
        self.gate: Deferred[None] = succeed(None)
        self.asked = 0

    async def run(
        self, ip: str, script: str, *, timeout: float, output_fd: int | None = None
    ) -> bytes:
        """Ask, as walt-user-keys does."""
        if ip in self.broken:
            raise CommandFailed("status 3")
        assert self.keys is not None
        self.asked += 1
        found = [one.text for one in self.keys.of_node(ip)]
        await self.gate
        self.has[ip] = found
        return b""


class UserKeysTests(TestCase):
    async def make(self) -> None:
        """Ann owns nodes 2 and 3, Joe node 4; 5 is free; all but 3 are booted."""
        self.here = FakePlatform()
        self.shell, self.store = AskingNodes(), FakeUserKeys()
        self.keys = self.shell.keys = UserKeys(
            self.here.registry, self.store, self.shell, self.here.status, self.here.platform,
            lambda: "",
        )
        self.here.status.changed.observe(self.keys.on_status)
        await self.here.registry.put(
            *(replace(node(number), image=f"{user}/img:latest")
              for number, user in ((2, "ann"), (3, "ann"), (4, "joe"))), node(5),
        )
        await self.keys.load()
        for number in (2, 4, 5):
            self.here.status.booted(node(number).mac)

    async def test_added_and_removed(self) -> None:
        """A key is at once on the booted nodes of its user, nowhere else, until it is removed."""
        await self.make()
        made, reached, missed = await self.keys.add("ann", key(1, "laptop"))
        self.assertEqual((made.comment, reached, missed), ("laptop", ["node-2"], []))
        await self.keys.add("ann", key(2, "desk"))
        self.assertEqual(self.shell.has, {"192.168.1.2": [key(1), key(2)]})
        self.assertEqual([user for user, _ in self.store.rows], ["ann", "ann"])
        self.assertEqual(self.keys.of_node("192.168.1.3"), self.keys.of("ann"))
        for ip in ("192.168.1.4", "192.168.1.5", "192.168.1.99", None):
            self.assertEqual(self.keys.of_node(ip), [])
        await self.keys.remove("ann", "laptop")
        await self.keys.remove("ann", self.keys.of("ann")[0].fingerprint)
        self.assertEqual(self.shell.has, {"192.168.1.2": []})
        self.assertEqual(self.store.rows, [])

    async def test_requester_leaves(self) -> None:
        """The key is on the nodes, or gone from them, and the log has it."""
        await self.make()
        for change, kept in (
            (lambda: self.keys.add("ann", key(1, "laptop")), [key(1)]),
            (lambda: self.keys.remove("ann", "laptop"), []),
        ):
            self.store.gate = gate = Deferred()
            going = Deferred.fromCoroutine(change())
            going.cancel()
            gate.callback(None)
            self.failureResultOf(going, CancelledError)
            self.assertEqual(self.shell.has, {"192.168.1.2": kept})
            self.assertEqual([one.text for one in self.keys.of("ann")], kept)
            self.assertEqual(len(self.store.rows), len(kept))
        self.assertEqual(len(await self.here.lines("access")), 2)

    async def test_dropped(self) -> None:
        """Who may not come in any more has no key: not here, in the store, or on nodes."""
        await self.make()
        await self.keys.add("ann", key(1, "laptop"))
        self.assertEqual(await self.keys.drop("ann"), 1)
        self.assertEqual((self.keys.of("ann"), self.store.rows), ([], []))
        self.assertEqual(self.shell.has, {"192.168.1.2": []})
        self.assertEqual(await self.keys.drop("ann"), 0)

    async def test_refused(self) -> None:
        """Wrong lines, a key twice, too many; keys that are not there, names that say nothing."""
        await self.make()
        for wrong in ("x", f'command="x" {key(1)}', f"{key(1)}\n{key(2)}"):
            await self.assertFailure(Deferred.fromCoroutine(self.keys.add("ann", wrong)), Invalid)
        await self.keys.add("ann", key(1, "same"))
        await self.assertFailure(
            Deferred.fromCoroutine(self.keys.add("ann", key(1, "other"))), Conflict
        )
        await self.keys.add("ann", key(2, "same"))
        for which, error in (("same", Invalid), ("none", NotFound), ("", NotFound)):
            await self.assertFailure(
                Deferred.fromCoroutine(self.keys.remove("ann", which)), error
            )
        await self.assertFailure(
            Deferred.fromCoroutine(self.keys.remove("joe", self.keys.of("ann")[0].fingerprint)),
            NotFound,
        )
        for number in range(3, MOST + 1):
            await self.keys.add("ann", key(number))
        await self.assertFailure(
            Deferred.fromCoroutine(self.keys.add("ann", key(99))), LimitExceeded
        )

    async def test_another_owner(self) -> None:
        """A node that changes hands asks again; one that does not answer is told of."""
        await self.make()
        await self.keys.add("ann", key(1))
        await self.keys.add("joe", key(2))
        await self.here.registry.put(replace(node(2), image="joe/img:latest"))
        self.assertEqual(self.shell.has["192.168.1.2"], [key(2)])
        await self.here.registry.put(replace(node(2), image=node(5).image))
        self.assertEqual(self.shell.has["192.168.1.2"], [])
        self.shell.broken.add("192.168.1.4")
        await self.here.registry.put(replace(node(4), image="ann/img:latest"))
        await self.here.logs.flush()
        self.assertIn(
            "node node-4 did not take the ssh keys of its owner",
            self.here.log_store.lines[-1].line,
        )

    async def test_while_it_boots(self) -> None:
        """A key that is added between the question of a node and the end of its boot comes, too."""
        await self.make()
        self.assertEqual(self.keys.of_node("192.168.1.3"), [])
        await self.keys.add("ann", key(1))
        self.assertNotIn("192.168.1.3", self.shell.has)
        self.here.status.booted(node(3).mac)
        self.assertEqual(self.shell.has["192.168.1.3"], [key(1)])

    async def test_many_nodes(self) -> None:
        """Not all nodes of a user are told at the same time; all of them in the end."""
        await self.make()
        many = [replace(node(number), image="zoe/img:latest") for number in range(10, 110)]
        await self.here.registry.put(*many)
        for one in many:
            self.here.status.booted(one.mac)
        gate = self.shell.gate = Deferred()
        adding = Deferred.fromCoroutine(self.keys.add("zoe", key(1)))
        self.assertEqual(self.shell.asked, AT_ONCE)
        gate.callback(None)
        _, reached, missed = await adding
        self.assertEqual((len(reached), missed, self.shell.asked), (100, [], 100))

    async def test_several_changes_at_once(self) -> None:
        """The last one wins, whatever answer comes when: a node is asked once at a time."""
        await self.make()
        gate = self.shell.gate = Deferred()
        first = Deferred.fromCoroutine(self.keys.add("ann", key(1)))
        second = Deferred.fromCoroutine(self.keys.add("ann", key(2)))
        self.shell.gate = succeed(None)
        gate.callback(None)
        await first
        await second
        self.assertEqual(self.shell.has["192.168.1.2"], [key(1), key(2)])
