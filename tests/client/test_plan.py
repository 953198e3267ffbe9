"""`--plan`: whom a command would disturb, and that it does nothing; `--json` everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.client.platform import Server, Walt, until
from tests.patience import patient
from walt.client.commands import advanced, device, help, image, log, node
from walt.client.grammar import Command

# Commands that change something, carry data, or wait: they print no facts that a program reads.
NO_FACTS = {
    "image": {
        "build", "clone", "cp", "duplicate", "publish", "remove", "rename", "shell", "squash",
    },
    "node": {
        "acquire", "blink", "boot", "console", "cp", "create", "deploy", "expose", "ping", "reboot",
        "release", "remove", "rename", "run", "save", "shell", "ssh-proxy", "wait",
    },
    "log": {"add-checkpoint", "remove-checkpoint", "wait", "export"},
    "device": {"expose", "forget", "ping", "rename", "shell"},
    "advanced": {
        "add-machine", "add-ssh-key", "add-user", "backup", "dump-bash-autocomplete",
        "dump-manual", "dump-zsh-autocomplete", "enrol", "fix-image-owner", "remove-ssh-key",
        "renew", "rescan-hub-account", "restore", "revoke", "rotate-authority", "sql",
        "update-default-images", "update-hub-meta",
    },
    "help": {"show"},
}
MODULES: dict[str, dict[str, Command]] = {
    "image": image.COMMANDS, "node": node.COMMANDS, "log": log.COMMANDS,
    "device": device.COMMANDS, "advanced": advanced.COMMANDS, "help": help.COMMANDS,
}


class JsonTests(SynchronousTestCase):
    def test_every_command_with_facts(self) -> None:
        """A command prints JSON, or it is known to print no facts; then only its plan is JSON."""
        for category, commands in MODULES.items():
            no_facts = NO_FACTS[category]
            self.assertEqual(no_facts - set(commands), set())
            for name, command in commands.items():
                keys = {switch.key for switch in command.switches}
                wanted = "plan" in keys if name in no_facts else True
                self.assertEqual("json" in keys, wanted, f"{category} {name}")


class PlanTests(TestCase):
    timeout = patient(60)

    def setUp(self) -> None:
        self.server = Server(self)

    async def walt(self, *words: str) -> tuple[int, str, str]:
        """Run walt; return its status, output and errors."""
        walt = Walt(self.server, *words)
        walt.transport.closeStdin()  # type: ignore[attr-defined]
        status = await walt.ended
        return status, walt.out.decode(), walt.err.decode()

    async def test_who(self) -> None:
        """Owners, reservations and open sessions count; one's own node alone does not."""
        await self._status(0, "node-1 reboots: yours, booted\n", "node-1")
        await self._status(3, "bobs-node reboots: bob's, booted\n", "bobs-node")
        node_2 = self.server.platform.registry.named("node-2")
        self.server.reservations.take([node_2], "*", 1, 60.0, user="alice", holder="h")
        await self._status(3, "node-2 reboots: yours, booted, reserved by alice until ", "node-2")
        shell = Walt(self.server, "node", "run", "node-1", "sleep 9")
        await self.server.program()
        await self._status(
            3, "node-1 reboots: yours, booted, command run by alice since ", "node-1"
        )
        shell.transport.signalProcess("KILL")  # type: ignore[attr-defined]
        await shell.ended
        await until(lambda: not self.server.platform.open_sessions.of(
            self.server.platform.registry.named("node-1").mac
        ))
        self.server.down()
        await self._status(0, "node-1 reboots: yours, not booted\n", "node-1")

    async def _status(self, status: int, text: str, nodes: str) -> None:
        told = await self.walt("node", "reboot", nodes, "--plan")
        self.assertEqual((told[0], told[2]), (status, ""))
        self.assertIn(text, told[1])

    async def test_nothing_is_done(self) -> None:
        """No plan reboots, changes or asks, whatever the command; errors stay errors."""
        before = {one.mac: one for one in self.server.platform.registry.all()}
        for words, effect, status in (
            (("node", "reboot", "all-nodes"), "reboots", 3),
            (("node", "remove", "bobs-node"), "is removed", 3),
            (("device", "forget", "bobs-node"), "is removed", 3),
            (("node", "config", "all-nodes", "boot.timeout=100"), "goes on", 0),
            (("node", "config", "all-nodes", "mount.persist=false"), "has to be rebooted", 3),
            (("device", "config", "bobs-node", "mount.persist=false"), "has to be rebooted", 3),
            (("node", "acquire", "bobs-node"), "reboots", 3),
            (("node", "release", "node-2"), "reboots", 0),
            (("node", "save", "bobs-node", "img"), "reboots", 0),
            (("node", "cp", "bobs-node:/x", "/tmp"), "goes on", 0),
            (("image", "build", "--from-dir", "/nowhere", "img"), "reboots", 0),
            (("image", "squash", "img"), "reboots", 0),
            (("image", "shell", "img"), "reboots", 0),
            (("image", "cp", "/etc/hostname", "img:/x"), "reboots", 0),
            (("image", "clone", "walt:bob/img"), "reboots", 0),
        ):
            found = await self.walt(*words, "--plan", "--json")
            self.assertEqual((found[0], found[2]), (status, ""), words)
            rows: list[dict[str, Any]] = json.loads(found[1])
            self.assertEqual({row["effect"] for row in rows}, {effect}, words)
            self.assertEqual(any(row["disturbed"] for row in rows), status == 3, words)
        self.assertEqual({one.mac: one for one in self.server.platform.registry.all()}, before)
        self.assertEqual(self.server.link.requests, [])
        self.assertEqual(
            await self.walt("image", "squash", "other", "--plan"),
            (0, "No node would be touched.\n", ""),
        )
        node = self.server.platform.registry.named("bobs-node")
        await self.server.platform.registry.put(
            replace(node, image="waltplatform/pc-x86-64-default:latest")
        )
        found = await self.walt("advanced", "update-default-images", "--plan")
        self.assertEqual(found[0], 0)
        self.assertEqual(found[1], "bobs-node reboots: free, booted\n")
        for words, status in (
            (("node", "config", "node-1", "x=1", "--plan"), 1),
            (("node", "reboot", "nothing", "--plan"), 1),
            (("node", "reboot", "node-1", "--json"), 2),
            (("node", "acquire", "node-1", "--plan"), 1),
        ):
            found = await self.walt(*words)
            self.assertEqual((found[0], found[1]), (status, ""), words)
            self.assertNotEqual(found[2], "", words)

    async def test_sessions_end(self) -> None:
        """What was open on a node is forgotten when its connection ends."""
        sessions = self.server.platform.open_sessions
        mac = self.server.platform.registry.named("node-1").mac
        first, second = sessions.opened(mac, "a", "ssh"), sessions.opened(mac, "a", "ssh")
        second()
        self.assertEqual(len(sessions.of(mac)), 1)
        first()
        self.assertEqual(sessions.of(mac), [])
        await Deferred.fromCoroutine(self._status(0, "node-1 reboots: yours, booted\n", "node-1"))
