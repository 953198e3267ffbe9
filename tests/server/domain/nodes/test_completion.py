"""Candidates of the shell completion."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeContainers, FakeRegistry
from tests.fakes.log_store import FakeCheckpoints
from tests.fakes.nodes import DEFAULT, FakePlatform, node, stored
from walt.common.errors import Unavailable
from walt.server.domain.devices.model import Device
from walt.server.domain.images.files import ImageFiles
from walt.server.domain.images.places import Places
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.files import NodeFiles
from walt.server.domain.nodes.remote_paths import PATIENCE, RemotePaths

SWITCH = Device("02:00:00:00:aa:01", "switch-1", "switch", "192.168.1.200")


class FakeQuestions:
    """Answers of nodes, by the beginning of the script; Deferreds hold them back."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str]] = []

    async def ask(self, ip: str, script: str, *, timeout: float) -> bytes:
        """Answer as told."""
        self.asked.append((ip, script))
        for start, answer in self.answers.items():
            if script.startswith(start):
                return answer if isinstance(answer, bytes) else await answer
        return b""


class CompletionTests(SynchronousTestCase):
    def setUp(self) -> None:
        fake = FakePlatform(
            stored(DEFAULT), stored("joe/a:latest"), stored("joe/ab:v1"),
            stored("ann/shared:latest"), stored("ann/shared:v2"),
        )
        self.clock = fake.clock
        self.successResultOf(Deferred.fromCoroutine(fake.start()))
        self.successResultOf(fake.registry.put(
            SWITCH, node(11, "joe/a:latest", name="node-1"), node(12, name="node-2"),
            node(13, name="vm", virtual=True),
        ))
        self.questions = FakeQuestions()
        self.containers = FakeContainers(fake.image_store)
        self.files = ImageFiles(self.containers, fake.clock)
        questions: Any = self.questions
        self.completion = Completion(
            fake.registry, fake.images,
            Places([FakeRegistry(fake.image_store, "hub"), FakeRegistry(fake.image_store, "lab")]),
            FakeCheckpoints({("joe", "begin"): 1.0, ("joe", "end"): 2.0, ("ann", "x"): 3.0}),
            RemotePaths(
                fake.registry, fake.images, NodeFiles(fake.nodes, questions), self.files,
                fake.clock,
            ),
            fake.logs.former,
        )
        self.former = fake.logs.former

    def asking(self, kind: str, partial: str = "", *words: str) -> Deferred[list[str]]:
        """Begin to complete a word of joe's."""
        return Deferred.fromCoroutine(self.completion.complete(kind, words, partial, "joe"))

    def of(self, kind: str, partial: str = "", *words: str) -> list[str]:
        """Complete a word of joe's."""
        return self.successResultOf(self.asking(kind, partial, *words))

    def test_names(self) -> None:
        """One device of a kind; only what begins with the word."""
        self.assertEqual(self.of("NODE"), ["node-1", "node-2", "vm"])
        self.assertEqual(self.of("NODE", "node-"), ["node-1", "node-2"])
        self.assertEqual(self.of("SWITCH"), ["switch-1"])
        self.assertEqual(self.of("DEVICE", "walt"), ["walt-server"])
        self.assertEqual(self.of("NODE", "x"), [])

    def test_sets(self) -> None:
        """The last item is completed; a single match also with a comma; no item twice."""
        self.assertEqual(self.of("SET_OF_NODES", "my"), ["my-nodes", "my-nodes,"])
        self.assertEqual(self.of("SET_OF_NODES", "vm,node"), ["vm,node-1", "vm,node-2"])
        self.assertEqual(
            self.of("SET_OF_NODES", "node-1,node-"), ["node-1,node-2", "node-1,node-2,"]
        )
        self.assertNotIn("switch-1", self.of("SET_OF_NODES"))
        self.assertIn("explorable-switches", self.of("SET_OF_DEVICES"))
        self.assertEqual(
            self.of("RESCAN_SET_OF_DEVICES"), ["explorable-switches", "server", "switch-1"]
        )
        self.assertIn("walt-server", self.of("SET_OF_ISSUERS"))
        self.former.add("bygone")  # its log lines were kept
        self.assertEqual(self.of("SET_OF_ISSUERS", "by"), ["bygone", "bygone,"])
        self.assertEqual(self.of("SET_OF_NODES", "by"), [])

    def test_images(self) -> None:
        """Own images, with the implied tag unless it would be the only difference."""
        self.assertEqual(self.of("IMAGE"), ["a", "a:latest", "ab:v1"])
        self.assertEqual(self.of("IMAGE", "a:"), ["a:latest"])
        self.assertEqual(self.of("IMAGE", "ab"), ["ab:v1"])
        self.assertEqual(self.of("IMAGE_OR_DEFAULT", "d"), ["default"])

    def test_settings(self) -> None:
        """Those that apply to the whole set; no space after a single one."""
        before = ("walt", "node", "config")
        self.assertIn("boot.retries=", self.of("NODE_CONFIG_PARAM", "", *before, "node-1"))
        self.assertNotIn("ram=", self.of("NODE_CONFIG_PARAM", "", *before, "node-1,vm"))
        self.assertEqual(
            self.of("NODE_CONFIG_PARAM", "ram", *before, "--json", "vm"), ["ram=a", "ram=b"]
        )
        self.assertEqual(self.of("DEVICE_CONFIG_PARAM", "ram", *before, "ghost"), [])
        self.assertEqual(self.of("DEVICE_CONFIG_PARAM", "", "walt"), [])
        self.assertEqual(self.of("PORT_CONFIG_PARAM"), ["name=a", "name=b"])

    def test_links_and_registries(self) -> None:
        """Locations; images of others only; where images can be published."""
        self.assertEqual(self.of("IMAGE_CLONE_URL"), ["hub:", "lab:", "walt:"])
        self.assertEqual(self.of("IMAGE_CLONE_URL", "w"), ["walt:a", "walt:b"])
        self.assertEqual(
            self.of("IMAGE_CLONE_URL", "walt:ann"), ["walt:ann/shared", "walt:ann/shared:v2"]
        )
        self.assertEqual(self.of("IMAGE_CLONE_URL", "walt:joe"), [])
        self.assertEqual(self.of("REGISTRY"), ["auto", "hub", "lab"])

    def test_moments(self) -> None:
        """Checkpoints of the user; ranges between them and relative dates."""
        self.assertEqual(self.of("LOG_CHECKPOINT"), ["begin", "end"])
        self.assertEqual(
            self.of("HISTORY_RANGE"),
            ["-<relative-time>:", ":", "begin:", "end:", "full", "none"],
        )
        self.assertEqual(self.of("HISTORY_RANGE", "-5"), ["-5d:", "-5h:", "-5m:", "-5s:"])
        self.assertEqual(self.of("HISTORY_RANGE", "-5m"), ["-5m:a", "-5m:b"])
        self.assertEqual(
            self.of("HISTORY_RANGE", "begin:"),
            ["begin:", "begin:-<relative-time>", "begin:begin", "begin:end"],
        )
        self.assertEqual(self.of("HISTORY_RANGE", "-5m:-30s"), ["-5m:-30s"])
        self.assertEqual(self.of("HISTORY_RANGE", "x:y:"), [])

    def test_paths_of_nodes(self) -> None:
        """Nodes, then what their directories hold; a source is local or the target is."""
        self.assertEqual(self.of("NODE_CP_SRC", "v"), ["vm:a", "vm:b"])
        self.assertEqual(self.of("NODE_CP_SRC"), ["node-1:", "node-2:", "vm:"])
        self.questions.answers = {
            "cd /etc/ 2": b"passwd\0pam.d/\0with:colon\0\xff\0", "cd /root/ 2": b"it's\0",
            "cd /root/sub/ 2": b"only/\0",
        }
        self.assertEqual(
            self.of("NODE_CP_SRC", "vm:/etc/pa"), ["vm:/etc/pam.d/", "vm:/etc/passwd"]
        )
        self.assertEqual(self.of("NODE_CP_SRC", "vm:/etc/w"), ["vm:/etc/with:colon"])
        self.assertEqual(self.of("NODE_CP_SRC", "vm:"), ["vm:it's"])
        self.assertEqual(self.of("NODE_CP_SRC", "vm:sub/o"), ["vm:sub/only/a", "vm:sub/only/b"])
        self.assertEqual(self.of("NODE_CP_SRC", "ghost:/etc/"), [])
        self.assertEqual(self.of("NODE_CP_SRC", "switch-1:/etc/"), [])
        before = ("walt", "node", "cp")
        self.assertEqual(self.of("NODE_CP_DST", "", *before, "vm:x"), ["booted-image"])
        self.assertEqual(self.of("NODE_CP_DST", "vm:", *before, "local"), ["vm:it's"])
        self.assertEqual(self.of("NODE_CP_DST", "vm:", *before, "./12:30"), ["vm:it's"])

    def test_paths_of_images(self) -> None:
        """Images of the user, and what is in them, by a container that ends after a while."""
        self.containers.answers = {"cd /etc/ ": b"hosts\0init.d/\0", "cd /root": b"a:b\0"}
        self.assertEqual(self.of("IMAGE_CP_SRC"), ["a:", "ab:v1:"])
        self.assertEqual(
            self.of("IMAGE_CP_SRC", "ab:v1:/etc/"), ["ab:v1:/etc/hosts", "ab:v1:/etc/init.d/"]
        )
        self.assertEqual(self.of("IMAGE_CP_SRC", "ab:v1:"), ["ab:v1:a:b"])
        self.assertEqual(len(self.containers.running), 1)
        self.assertEqual(self.of("IMAGE_CP_SRC", "shared:/etc/"), [])
        before = ("walt", "image", "cp")
        self.assertEqual(self.of("IMAGE_CP_DST", "", *before, "a:x"), [])
        self.assertEqual(self.of("IMAGE_CP_DST", "a", *before, "local"), ["a:", "ab:v1:"])
        self.clock.advance(200)
        self.assertEqual(self.containers.running, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_containers_that_go(self) -> None:
        """One that somebody removed is replaced at the next question; none outlives the server."""
        self.containers.answers = {"cd /etc/ ": b"hosts\0"}
        self.assertEqual(self.of("IMAGE_CP_SRC", "a:/etc/"), ["a:/etc/hosts"])
        self.containers.running.clear()
        self.assertEqual(self.of("IMAGE_CP_SRC", "a:/etc/"), [])
        self.assertEqual(self.of("IMAGE_CP_SRC", "a:/etc/"), ["a:/etc/hosts"])
        self.successResultOf(Deferred.fromCoroutine(self.files.stop()))
        self.assertEqual(self.containers.running, {})
        self.assertEqual(self.of("IMAGE_CP_SRC", "a:/etc/"), [])

    def test_nodes_that_do_not_answer(self) -> None:
        """A refusal is no candidate; a late answer is waited for 3 s only, but not cut off."""
        late: Deferred[bytes] = Deferred()
        self.questions.answers = {"cd /etc/ ": late, "cd /bin/ ": self.refuse()}
        self.assertEqual(self.of("NODE_CP_SRC", "vm:/bin/"), [])
        asking = self.asking("NODE_CP_SRC", "vm:/etc/")
        self.assertNoResult(asking)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(asking), [])
        late.callback(b"passwd\0")

    async def refuse(self) -> bytes:
        raise Unavailable("no")

    @given(
        st.sampled_from([
            "NODE", "SET_OF_DEVICES", "IMAGE", "NODE_CONFIG_PARAM", "HISTORY_RANGE",
            "IMAGE_CLONE_URL", "NODE_CP_SRC", "IMAGE_CP_DST", "?",
        ]),
        st.lists(st.sampled_from(["config", ",", "-x", "vm", "é"])), st.text(max_size=20),
    )
    def test_any_words(self, kind: str, words: list[str], partial: str) -> None:
        """Whatever is typed, candidates begin with it."""
        for one in self.of(kind, partial, *words):
            self.assertTrue(one.startswith(partial))
