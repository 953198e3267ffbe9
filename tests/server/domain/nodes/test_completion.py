"""Candidates of the shell completion."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.nodes import DEFAULT, FakePlatform, node, stored
from walt.server.domain.devices.model import Device
from walt.server.domain.nodes.completion import Completion

SWITCH = Device("02:00:00:00:aa:01", "switch-1", "switch", "192.168.1.200")


class CompletionTests(SynchronousTestCase):
    def setUp(self) -> None:
        fake = FakePlatform(stored(DEFAULT), stored("joe/a:latest"), stored("joe/ab:v1"))
        self.successResultOf(Deferred.fromCoroutine(fake.start()))
        self.successResultOf(fake.registry.put(
            SWITCH, node(11, "joe/a:latest", name="node-1"), node(12, name="node-2"),
            node(13, name="vm", virtual=True),
        ))
        self.completion = Completion(fake.registry, fake.images)

    def of(self, kind: str, partial: str = "", *words: str) -> list[str]:
        """Complete a word of joe's."""
        return self.completion.complete(kind, words, partial, "joe")

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

    @given(
        st.sampled_from(["NODE", "SET_OF_DEVICES", "IMAGE", "NODE_CONFIG_PARAM", "?"]),
        st.lists(st.sampled_from(["config", ",", "-x", "vm", "é"])), st.text(max_size=20),
    )
    def test_any_words(self, kind: str, words: list[str], partial: str) -> None:
        """Whatever is typed, candidates begin with it."""
        for one in self.completion.complete(kind, words, partial, "joe"):
            self.assertTrue(one.startswith(partial))
