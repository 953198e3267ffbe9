"""One RPC connection: hello first, policy, cancellation, hostile boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import walt
from tests.fakes.images import FakeCatalog, FakeStore
from tests.fakes.transports import TcpTransport
from tests.server.domain.images.test_catalog import Asking, image
from walt.common import ampbox
from walt.rpc.arguments import Written
from walt.rpc.commands.access import EnrolAuthority
from walt.rpc.commands.devices import GetVirtualDevice, RegisterDevice, SyncClock
from walt.rpc.commands.nodes import GetNodes, ShowNodes, WaitNodes
from walt.rpc.commands.session import PROTOCOL
from walt.rpc.outbox import AT_ONCE
from walt.server.api.images import ImagesApi
from walt.server.api.session import HELLO_PATIENCE, Session
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.requester import acting
from walt.server.domain.shares import Shares
from walt.server.wire import policy

MAC = "52:54:00:00:00:01"

# One command of each side, with valid arguments.
CALLS = {
    "cs": ("cs.nodes.show", {"all": "False"}),
    "ns": ("ns.clock.sync", {}),
    "ss": ("ss.devices.register", {"vci": "", "uci": "", "ip": "192.168.1.2", "mac": MAC}),
    "vs": ("vs.devices.get", {"mac": MAC}),
    "enrol": ("enrol.authority", {}),
}
# Design D7, cell by cell: which sides each origin may call.
MAY_CALL = {
    "unix": {"cs", "ss"}, "certificate": {"cs"}, "revoked": set(), "encrypted": {"enrol"},
    "walt-net": {"ns", "vs"}, "elsewhere": set(),
}
MAY_CALL_OPEN = {
    "unix": {"cs", "ss"}, "certificate": {"cs"}, "revoked": set(), "encrypted": {"enrol", "cs"},
    "walt-net": {"ns", "vs", "cs"}, "elsewhere": {"cs"},
}


NO_NODES: dict[str, Any] = {"own": [], "free": [], "others": [], "total": 0}


class Api(amp.CommandLocator):
    """Answers one command of each side."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.acting: list[str | None] = []
        self.cancelled: list[Deferred[Any]] = []

    @ShowNodes.responder
    def show(self, all: bool) -> dict[str, Any]:
        if all:
            raise RuntimeError("a bug")
        return {"tables": NO_NODES}

    @WaitNodes.responder
    async def wait(self, nodes: str) -> Any:
        self.acting.append(acting.get())
        waiting: Deferred[Any] = Deferred(self.cancelled.append)
        self.waiting.append(waiting)
        result = await waiting
        self.acting.append(acting.get())
        return result

    @GetNodes.responder
    async def records(self, nodes: str) -> Any:
        return await self.wait(nodes)

    @EnrolAuthority.responder
    def authority(self) -> dict[str, Any]:
        return {"authority": ""}

    @SyncClock.responder
    def sync(self) -> dict[str, Any]:
        return {"time": 1}

    @RegisterDevice.responder
    def register(self, **values: Any) -> dict[str, Any]:
        self.acting.append(acting.get())
        return {}

    @GetVirtualDevice.responder
    def get(self, mac: str) -> dict[str, Any]:
        return {"device": None}


class Peer:
    """The other end of a session, writing and reading boxes."""

    def __init__(
        self, sides: frozenset[str] = frozenset({"cs", "ss"}), account: str | None = "alice",
        bound: bool = False, others: Sequence[amp.CommandLocator] = (), **limits: Any,
    ) -> None:
        self.api = Api()
        self.session = Session(
            lambda session: [self.api, *others], sides, peer="192.168.1.9", account=account,
            bound=bound, refusal=policy.refusal("elsewhere"), **limits,
        )
        self.transport = TcpTransport()
        self.session.makeConnection(self.transport)
        self._decoder = ampbox.Decoder()
        self._asked = 0

    def send(self, command: str, **arguments: str) -> bytes:
        """Send one call; return its number."""
        self._asked += 1
        box = {b"_ask": b"%d" % self._asked, b"_command": command.encode()}
        box.update((key.encode(), value.encode()) for key, value in arguments.items())
        self.session.dataReceived(ampbox.encode(box))
        return box[b"_ask"]

    def boxes(self) -> list[ampbox.Box]:
        """Return what was received since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return list(self._decoder.feed(data))

    def ask(self, command: str, **arguments: str) -> ampbox.Box:
        """Send one call and return its answer."""
        self.send(command, **arguments)
        [answer] = self.boxes()
        return answer

    def hello(self, **changes: str) -> ampbox.Box:
        """Say hello as the walt command does, but for `changes`."""
        values = {"program": "walt", "version": walt.__version__, "protocol": str(PROTOCOL)}
        return self.ask("hello", **{**values, **changes})

    def leave(self) -> None:
        """Close the connection."""
        self.session.connectionLost(Failure(ConnectionDone()))


class LeavingTests(SynchronousTestCase):
    def test_deeds_are_whole(self) -> None:
        """A client leaves while the disk is waited for: the image has one name, the new one."""
        name, new = "alice/a:latest", "alice/b:latest"
        store, catalog = FakeStore(image(name)), FakeCatalog(name)
        images = ImageService(store, catalog, in_use=set)
        self.successResultOf(Deferred.fromCoroutine(images.refresh()))
        operations: Any = None  # renaming needs none
        peer = Peer(others=[ImagesApi(Asking("alice"), images, operations)])
        peer.hello()
        store.after = disk = Deferred()
        peer.send("cs.images.rename", image="a", new_name="b")
        peer.leave()
        self.assertEqual(images.task_of(name), "rename")
        store.after = None
        disk.callback(None)
        self.assertEqual((set(store.names), catalog.names), ({new}, {new}))
        self.assertEqual([one.fullname for one in images.all()], [new])
        self.assertIsNone(images.task_of(name))
        self.assertEqual(peer.boxes(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class HelloTests(SynchronousTestCase):
    def test_answer(self) -> None:
        """Version, protocol, and the account of the unix socket as user."""
        answer = Peer().hello()
        self.assertEqual(answer[b"version"], walt.__version__.encode())
        self.assertEqual(answer[b"protocol"], str(PROTOCOL).encode())
        self.assertEqual(answer[b"username"], b"alice")

    def test_stated_user(self) -> None:
        """The user that the client states wins over the account."""
        peer = Peer()
        self.assertEqual(peer.hello(username="bob")[b"username"], b"bob")
        self.assertEqual(peer.session.username, "bob")

    def test_comes_first(self) -> None:
        """No client command before hello; the connection lives on."""
        peer = Peer()
        refusal = peer.ask("cs.nodes.show", all="False")
        self.assertEqual(refusal[b"_error_code"], b"VERSION_MISMATCH")
        peer.hello()
        answer = peer.ask("cs.nodes.show", all="False")
        self.assertEqual(json.loads(answer[b"tables"]), NO_NODES)

    def test_other_version(self) -> None:
        """A walt command of another version is told how to upgrade; other programs may stay."""
        answer = Peer().hello(version="10.0")
        self.assertEqual(answer[b"_error_code"], b"VERSION_MISMATCH")
        self.assertIn(b"offers to install the version", answer[b"_error_description"])
        self.assertIn(b"username", Peer().hello(program="script", version="0.1"))

    def test_other_protocol(self) -> None:
        """Every program needs the same protocol number."""
        answer = Peer().hello(program="script", protocol="99")
        self.assertEqual(answer[b"_error_code"], b"VERSION_MISMATCH")

    def test_bad_user_names(self) -> None:
        """Q-10: what image names allow, and not the platform's own user."""
        for name in ("waltplatform", "Alice", "-x", "a/b", "a" * 64):
            self.assertEqual(Peer().hello(username=name)[b"_error_code"], b"INVALID", name)

    def test_certificate_of_a_user(self) -> None:
        """It acts for its user only; the certificate of a machine for the user stated."""
        bound = Peer(frozenset({"cs"}), bound=True)
        refused = bound.hello(username="bob")
        self.assertEqual(refused[b"_error_code"], b"DENIED")
        self.assertIn(b"this certificate is for alice", refused[b"_error_description"])
        self.assertEqual(bound.hello(username="alice")[b"username"], b"alice")
        self.assertEqual(bound.hello()[b"username"], b"alice")
        machine = Peer(frozenset({"cs"}), account=None)
        self.assertEqual(machine.hello(username="bob")[b"username"], b"bob")

    def test_nobody(self) -> None:
        """A client without account must state a user."""
        self.assertEqual(Peer(account=None).hello()[b"_error_code"], b"INVALID")


class LimitTests(SynchronousTestCase):
    def test_sessions_of_a_user(self) -> None:
        """Another user is not concerned; a session that ends makes place."""
        shares = Shares(2, "sessions")
        one, two, three, bob = (Peer(shares=shares) for _ in range(4))
        for peer in (one, two, two):
            self.assertNotIn(b"_error_code", peer.hello())
        self.assertEqual(three.hello()[b"_error_code"], b"LIMIT_EXCEEDED")
        self.assertNotIn(b"_error_code", bob.hello(username="bob"))
        two.leave()
        self.assertNotIn(b"_error_code", three.hello())
        for peer in (one, three, bob):
            peer.leave()
        self.assertEqual(shares.total, 0)

    def test_strangers_take_no_place(self) -> None:
        """Whoever may call nothing of clients does not fill the share of the user they name."""
        shares = Shares(1, "sessions")
        for sides in (frozenset(), frozenset({"enrol"}), frozenset({"ns", "vs"})):
            stranger = Peer(sides, shares=shares)
            self.assertNotIn(b"_error_code", stranger.hello(username="bob"))
            self.assertEqual(shares.total, 0)
        bob = Peer(shares=shares)
        self.assertNotIn(b"_error_code", bob.hello(username="bob"))
        self.assertNotIn(b"_error_code", bob.hello(username="bob"))
        self.assertEqual(shares.total, 1)
        bob.leave()
        self.assertEqual(shares.total, 0)

    def test_no_hello(self) -> None:
        """A client that does not say hello is not kept; a node need not say it."""
        clock = Clock()
        silent, polite, node = (
            Peer(sides, clock=clock)
            for sides in (frozenset({"cs"}), frozenset({"cs"}), frozenset({"ns"}))
        )
        polite.hello()
        clock.advance(HELLO_PATIENCE)
        self.assertEqual(
            [one.transport.aborted for one in (silent, polite, node)], [True, False, False]
        )
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_calls_in_progress(self) -> None:
        """A peer with too many calls in progress is read again when some are over."""
        peer = Peer(most_calls=3)
        peer.hello()
        for _ in range(3):
            peer.send("cs.nodes.wait", nodes="n1")
        self.assertEqual(peer.transport.producerState, "paused")
        peer.api.waiting[0].callback({})
        self.assertEqual(peer.transport.producerState, "producing")
        peer.leave()

    def test_calls_that_arrive_together(self) -> None:
        """Those of one read above the limit wait, as those that are not read yet."""
        peer = Peer(most_calls=3)
        peer.hello()
        call = ampbox.encode(
            {b"_ask": b"9", b"_command": b"cs.nodes.wait", b"nodes": b"n1"}
        )
        peer.session.dataReceived(call * 5)
        self.assertEqual(len(peer.api.waiting), 3)
        for number in (0, 1):
            peer.api.waiting[number].callback({})
            self.assertEqual(len(peer.api.waiting), 4 + number)
        peer.leave()

    def test_answers_of_many_rows(self) -> None:
        """They are made one after the other, and the next one when the peer has read the last."""
        peer = Peer()
        peer.hello()
        call = ampbox.encode({b"_ask": b"9", b"_command": b"cs.nodes.get", b"nodes": b"n1"})
        peer.session.dataReceived(call * 3)
        self.assertEqual(len(peer.api.waiting), 1)
        peer.api.waiting[0].callback({"nodes": Written(b"[]")})
        self.assertEqual(len(peer.api.waiting), 2)
        peer.api.waiting[1].callback({"nodes": Written(b"[", b" " * AT_ONCE, b"]")})
        self.assertEqual(len(peer.api.waiting), 2)
        peer.transport.producer.resumeProducing()
        self.assertEqual(len(peer.api.waiting), 2)
        while (producer := peer.transport.producer) is not None:
            producer.resumeProducing()
        self.assertEqual(len(peer.api.waiting), 3)
        self.assertEqual(peer.transport.producerState, "paused")
        peer.leave()

    def test_answers_that_are_not_read(self) -> None:
        """Calls of a peer that does not read the answers wait until it does."""
        peer = Peer()
        peer.hello()
        call = ampbox.encode({b"_ask": b"9", b"_command": b"cs.nodes.show", b"all": b"False"})
        calls = AT_ONCE // len(call)
        peer.session.dataReceived(call * calls)
        self.assertEqual(peer.transport.producerState, "paused")
        answered = len(peer.boxes())
        self.assertLess(answered, calls)
        while (producer := peer.transport.producer) is not None:
            producer.resumeProducing()
        self.assertEqual(answered + len(peer.boxes()), calls)
        self.assertEqual(peer.transport.producerState, "producing")
        peer.leave()


class PolicyTests(SynchronousTestCase):
    """Every cell of the table of design D7, through real calls."""

    def check_cells(self, table: dict[str, set[str]], open_to_all: bool) -> None:
        for origin in policy.SIDES:
            for side, (command, arguments) in CALLS.items():
                peer = Peer(policy.sides(origin, open_to_all))
                peer.hello()
                answer = peer.ask(command, **arguments)
                code = None if side in table[origin] else b"DENIED"
                self.assertEqual(answer.get(b"_error_code"), code, (origin, side))

    def test_default(self) -> None:
        """The default policy."""
        self.check_cells(MAY_CALL, False)

    def test_open(self) -> None:
        """security.remote-clients: open."""
        self.check_cells(MAY_CALL_OPEN, True)

    def test_streams(self) -> None:
        """Client streams: from the unix socket and with a certificate only, unless open."""
        self.assertEqual(
            {origin for origin in policy.SIDES if policy.trusted(origin, False)},
            {"unix", "certificate"},
        )
        self.assertEqual(
            {origin for origin in policy.SIDES if not policy.trusted(origin, True)}, {"revoked"}
        )

    def test_every_origin_has_a_row(self) -> None:
        """No origin is forgotten in either table."""
        self.assertEqual(set(policy.SIDES), set(policy.OPEN_SIDES))
        self.assertEqual(set(policy.SIDES), set(MAY_CALL))

    def test_refusal_tells_why(self) -> None:
        """Who was refused what, and what is needed."""
        text = Peer(frozenset()).ask("cs.nodes.show", all="False")[b"_error_description"]
        for word in (b"cs.nodes.show", b"192.168.1.9", policy.refusal("elsewhere").encode()):
            self.assertIn(word, text)
        self.assertIn("certificate", policy.refusal("elsewhere"))
        self.assertIn("revoked", policy.refusal("revoked"))


class CallTests(SynchronousTestCase):
    def test_whose_call_it_is(self) -> None:
        """What a client calls is done as its user, as long as it takes; what tools call, as nobody.
        """
        peer, other = Peer(), Peer(account="bob")
        for one in (peer, other):
            one.hello()
            one.send("cs.nodes.wait", nodes="x")
        peer.ask("ss.devices.register", vci="", uci="", ip="192.168.1.2", mac=MAC)
        for one in (other, peer):
            one.api.waiting[0].callback({})
        self.assertEqual(peer.api.acting, ["alice", None, "alice"])
        self.assertEqual(other.api.acting, ["bob", "bob"])
        self.assertIsNone(acting.get())

    def test_cancelled_when_the_peer_leaves(self) -> None:
        """Calls in progress end with the connection, and nothing is logged as a bug."""
        peer = Peer()
        peer.hello()
        peer.send("cs.nodes.wait", nodes="n1")
        peer.send("cs.nodes.wait", nodes="n2")
        peer.leave()
        self.assertEqual(set(map(id, peer.api.cancelled)), set(map(id, peer.api.waiting)))
        self.assertEqual(len(peer.api.cancelled), 2)

    def test_finished_calls_are_forgotten(self) -> None:
        """A call that answered is not cancelled later."""
        peer = Peer()
        peer.hello()
        peer.send("cs.nodes.wait", nodes="n1")
        peer.api.waiting[0].callback({})
        self.assertIn(b"_answer", peer.boxes()[0])
        peer.leave()
        self.assertEqual(peer.api.cancelled, [])

    def test_answers_in_any_order(self) -> None:
        """A long call does not hold back a short one."""
        peer = Peer()
        peer.hello()
        first = peer.send("cs.nodes.wait", nodes="n1")
        second = peer.send("cs.nodes.show", all="False")
        self.assertEqual([box[b"_answer"] for box in peer.boxes()], [second])
        peer.api.waiting[0].callback({})
        self.assertEqual([box[b"_answer"] for box in peer.boxes()], [first])

    def test_bug_is_contained(self) -> None:
        """An undeclared error: INTERNAL with a reference, details in the log only."""
        peer = Peer()
        peer.hello()
        answer = peer.ask("cs.nodes.show", all="True")
        self.assertEqual(answer[b"_error_code"], b"INTERNAL")
        self.assertNotIn(b"a bug", answer[b"_error_description"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn(b"tables", peer.ask("cs.nodes.show", all="False"))

    def test_unknown_command(self) -> None:
        """UNHANDLED; the connection lives on."""
        peer = Peer()
        peer.hello()
        self.assertEqual(peer.ask("cs.nodes.fly")[b"_error_code"], b"UNHANDLED")
        self.assertIn(b"tables", peer.ask("cs.nodes.show", all="False"))

    def test_wrong_types(self) -> None:
        """INVALID names the argument, for bad and missing values."""
        peer = Peer()
        self.assertEqual(peer.hello(protocol="one")[b"_error_code"], b"INVALID")
        peer.hello()
        for arguments in ({"all": "maybe"}, {}):
            answer = peer.ask("cs.nodes.show", **arguments)
            self.assertEqual(answer[b"_error_code"], b"INVALID")
            self.assertIn(b"all", answer[b"_error_description"])

    def test_oversize_box_of_a_node(self) -> None:
        """Peers that are not clients may send short boxes only."""
        for sides, aborted in ((policy.SIDES["walt-net"], True), (policy.SIDES["unix"], False)):
            peer = Peer(sides)
            data = ampbox.encode(
                {b"_ask": b"1", b"_command": b"cs.nodes.wait", b"nodes": bytes(200_000)}
            )
            peer.session.dataReceived(data)
            self.assertEqual(peer.transport.aborted, aborted)

    def test_vanishing_in_the_middle(self) -> None:
        """Half a box, then nothing: no error."""
        peer = Peer()
        peer.session.dataReceived(ampbox.encode({b"_command": b"hello"})[:9])
        peer.leave()

    def test_answer_to_nobody(self) -> None:
        """An answer after the peer left, a message to a peer that left: dropped."""
        peer = Peer()
        peer.hello()
        peer.leave()
        peer.session.stdout("too late")
        peer.session.busy("too late")
        self.assertEqual(peer.boxes(), [])


class RequesterTests(SynchronousTestCase):
    def test_call_backs(self) -> None:
        """Texts travel as call-backs that want no answer; long ones whole."""
        peer = Peer()
        peer.hello()
        peer.session.stdout("out")
        peer.session.stderr("e" * 100_000)
        peer.session.busy("label" * 1000)
        boxes = peer.boxes()
        self.assertEqual(
            [box[b"_command"] for box in boxes],
            [b"stdout.write", b"stderr.write", b"set_busy_label"],
        )
        self.assertTrue(all(b"_ask" not in box for box in boxes))
        self.assertEqual(boxes[0][b"text"], b"out\n")
        self.assertEqual(ampbox.join_value(b"text", boxes[1]), b"e" * 100_000 + b"\n")
        self.assertEqual(len(boxes[2][b"label"]), 1000)
