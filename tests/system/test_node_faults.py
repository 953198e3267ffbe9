"""Bad input, several users at once, nodes that go away: through the walt command."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from bench.simulator import Fleet, SimulatedNode
from tests.patience import patient, within
from tests.system.dialogue import Dialogue
from tests.system.live import LivePlatform, Program, why_not
from walt.server.runtime.process import ProcessResult

PC = "walt.node.pc-x86-64"
ODD_NAMES = (
    "it's", 'quo"te', "two words", "-x", "--all", "new\nline", "a" * 4096, "", "é", "a/b", "..",
    "$(id)", "node;1", "5x", "x", "all-nodes", "server", "walt-server",
)


class NodeFaultsTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_faults(self) -> None:
        """Nothing half-done: each command fails whole, with its reason, or works."""
        from twisted.internet import reactor

        platform = self.platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        for number in (1, 2, 3):
            await platform.event(
                "commit", "", PC, f"192.168.181.3{number}", f"02:00:00:00:00:0{number}", "", "0",
                f"board{number}",
            )
        self.names = json.loads(await platform.ok("node", "show", "--all", "--json"))["free"]
        self.boards = sorted(row["name"] for row in self.names)
        await self.check_odd_names()
        await self.check_wrong_member()
        await self.check_settings_together()
        await self.check_two_users()
        await self.check_removal_during_boot()
        await self.check_steps_of_a_reboot()

    async def refused(self, *words: str, user: str = "alice") -> str:
        """Run a command that must fail without output; return what it said."""
        result = await self.platform.walt(*words, user=user)
        self.assertIn(result.status, (1, 2), words)
        text = (result.stderr or result.stdout).decode()
        self.assertNotIn("Traceback", text)
        self.assertNotIn("internal error", text)
        self.assertLess(len(text), 3000)
        return text

    async def devices(self) -> list[str]:
        """Return the names of all devices."""
        tables = json.loads(await self.platform.ok("device", "show", "--json"))
        return sorted(row["name"] for rows in tables.values() for row in rows)

    async def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of all nodes by name."""
        tables = json.loads(await self.platform.ok("node", "show", "--all", "--json"))
        return {row["name"]: row for rows in tables.values() for row in rows}

    async def named(self, fleet: Fleet) -> list[str]:
        """Return the names of simulated nodes, in their order, once all are booted."""
        names = {
            row["ip"]: name for name, row in (await self.rows()).items()
            if row["booted"]
        }
        found = [names[one.ip] for one in fleet.nodes if one.ip in names]
        return found if len(found) == len(fleet.nodes) else []

    async def check_odd_names(self) -> None:
        """Names that no device may have are refused, wherever they are given."""
        before = await self.devices()
        for name in ODD_NAMES:
            await self.refused("node", "create", "--", name)
            await self.refused("node", "rename", "--", self.boards[0], name)
        for name in ODD_NAMES[:7]:
            await self.refused("node", "reboot", "--", name)
            await self.refused("node", "config", "--", name, "boot.retries=1")
        self.assertEqual(await self.devices(), before)

    async def check_wrong_member(self) -> None:
        """A set with one unknown member, or one that is no node, does nothing to the others."""
        for bad in ("ghost", "walt-server"):
            members = f"{self.boards[0]},{bad},{self.boards[1]}"
            for words in (
                ("node", "reboot", members), ("node", "acquire", members),
                ("node", "boot", members, "default"), ("node", "config", members, "ram=1G"),
                ("node", "config", members, "boot.retries=1"), ("node", "wait", members),
                ("node", "run", members, "--", "true"),
            ):
                self.assertIn(bad, await self.refused(*words))
        (group,) = json.loads(await self.platform.ok("node", "config", "all-nodes", "--json"))
        self.assertEqual(group["settings"]["boot.retries"], 9)
        self.assertEqual(
            json.loads(await self.platform.ok("node", "show", "--json"))["own"], []
        )

    async def check_settings_together(self) -> None:
        """One wrong setting among good ones, and none is changed."""
        for wrong in ("boot.timeout=59", "nothing=1", "ram=1G", "netsetup=WAN", "boot.retries"):
            await self.refused("node", "config", "all-nodes", "boot.retries=2", wrong)
        (group,) = json.loads(await self.platform.ok("node", "config", "all-nodes", "--json"))
        self.assertEqual(group["settings"]["boot.retries"], 9)

    async def both(self, *words: str) -> list[ProcessResult]:
        """Run the same command as two users at once, both confirming."""
        runs = [
            Deferred.fromCoroutine(self.platform.walt(*words, user=user, stdin=b"y\n"))
            for user in ("alice", "bob")
        ]
        results: list[ProcessResult] = await gatherResults(runs)
        for result in results:
            self.assertNotIn(b"Traceback", result.stderr)
            self.assertNotIn(b"internal error", result.stderr)
        return results

    async def check_two_users(self) -> None:
        """The same node, the same moment: one wins, the other is told; nothing breaks."""
        platform = self.platform
        results = await self.both("node", "rename", self.boards[2], "renamed")
        self.assertEqual(sorted(one.status for one in results), [0, 1])
        self.assertIn("renamed", await self.devices())
        results = await self.both("device", "forget", "--force", "renamed")
        self.assertIn(0, [one.status for one in results])
        self.assertNotIn("renamed", await self.devices())
        results = await self.both("node", "create", "vm")
        self.assertEqual(sorted(one.status for one in results), [0, 1])
        await platform.ok("node", "wait", *within(120), "vm")
        results = await self.both("node", "reboot", "vm")
        self.assertIn(0, [one.status for one in results])
        await platform.ok("node", "wait", *within(120), "vm")

    async def check_removal_during_boot(self) -> None:
        """A node may be renamed while it reboots, and removed while it boots."""
        platform = self.platform
        owner = "alice" if "vm" in await platform.ok("node", "show", user="alice") else "bob"
        running = Deferred.fromCoroutine(platform.walt("node", "reboot", "vm", user=owner))

        async def began() -> bool:
            return running.called or (
                await platform.ok("advanced", "workflows", "--json")
            ).strip() != "[]"

        await platform.until(began, "the reboot began", 30)
        await platform.ok("node", "rename", "vm", "vm2", user=owner)
        self.assertEqual((await running).status, 0)
        await platform.ok("node", "wait", *within(120), "vm2", user=owner)
        self.assertEqual(await platform.ok("node", "run", "vm2", "--", "hostname", user=owner),
                         "vm2\n")
        await platform.ok("node", "reboot", "--hard", "vm2", user=owner)
        waiting = Dialogue()
        platform.reactor.spawnProcess(
            waiting, sys.executable,
            [sys.executable, "-m", "walt.client.main", "node", "wait", "vm2"],
            {**os.environ, **platform.environment(owner), "TERM": "xterm"}, usePTY=True,
        )

        async def waits() -> bool:
            return b"Waiting for bootup of" in waiting.seen

        await platform.until(waits, "somebody waits for the node", 20)
        results = await self.both("node", "remove", "--force", "vm2")
        self.assertIn(0, [one.status for one in results])
        self.assertNotIn("vm2", await self.devices())
        await waiting.ended.addTimeout(30, platform.reactor)  # nobody waits for ever
        self.assertEqual(await platform.machines(), [])
        left = list((platform.state / "nodes").glob("52:54:*"))
        self.assertEqual(left, [])

    async def check_steps_of_a_reboot(self) -> None:
        """Refusing, hanging and vanishing: the reason is told, and a machine is ended."""
        platform = self.platform
        await platform.ok("node", "create", "vm")
        await platform.ok("node", "config", "vm", "boot.delay=0")
        # Not booted yet: nothing listens there.
        told = await platform.ok("node", "reboot", "vm")
        self.assertIn("vm: rebooted ok.", told)
        await platform.ok("node", "wait", *within(120), "vm")
        # It hangs: its processor stands still.
        (pid,) = await platform.machines("vm")
        os.kill(pid, signal.SIGSTOP)
        told = await platform.ok("node", "reboot", "vm", timeout=60)
        self.assertIn("vm: rebooted ok.", told)
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn("node vm is down (cause: reboot requested, method: vnode hard-reboot)",
                      events)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        # It vanishes while it is asked, and boards answer nothing at all.
        # Meanwhile others accept and stay away, hang, close in the middle, or refuse.
        fleet = Fleet(platform, 4)
        await fleet.start()
        self.addCleanup(fleet.stop)
        sims = await platform.until(lambda: self.named(fleet), "the simulated nodes booted", 40)
        silent, hanging, cutting, refusing = fleet.nodes
        await self.check_client_killed(sims[1], hanging)
        silent.boot_time = 3600
        hanging.reply, cutting.cut, refusing.reply = None, True, "KO not now"
        running = Deferred.fromCoroutine(
            platform.walt("node", "reboot", ",".join(["vm", self.boards[0], *sims]))
        )

        async def asked() -> bool:
            return "REBOOT" in refusing.requests

        await platform.until(asked, "the nodes are asked to reboot", 20)
        await platform.ok("node", "remove", "--force", "vm")
        result = await running
        self.assertEqual(result.status, 1)
        self.assertIn(f"{sims[0]}: rebooted ok.".encode(), result.stdout)
        reasons = ("timed out", "did not respond properly", "not now")
        for name, reason in zip(sims[1:], reasons, strict=True):
            (line,) = [one for one in result.stderr.decode().splitlines() if name in one]
            self.assertRegex(line, rf"failed soft-reboot \(.*{reason}.*\) and poe-reboot")
        booted = {name: one["booted"] for name, one in (await self.rows()).items()}
        self.assertEqual([booted[name] for name in sims], [False, True, True, True])
        late = await platform.walt("node", "wait", "--timeout", "1", sims[0])
        self.assertEqual((late.status, late.stderr.count(b"Timeout")), (1, 1))
        # One that answers nothing more and vanishes for good: its loss is noticed.
        hanging.down = True
        hanging.notification.transport.abortConnection()

        async def noticed() -> bool:
            return (await self.rows())[sims[1]]["booted"] is False

        await platform.until(noticed, "the loss of a node is noticed", 10)
        self.assertIn(f"Node {self.boards[0]}: failed soft-reboot (".encode(), result.stderr)
        self.assertNotIn(b"Traceback", result.stderr)
        self.assertEqual(await platform.ok("advanced", "workflows", "--json"), "[]\n")

    async def check_client_killed(self, name: str, node: SimulatedNode) -> None:
        """A client killed in the middle of a reboot: it ends by itself, the node comes back."""
        platform = self.platform
        node.delay, node.boot_time = 1.5, 1.0
        client = Program()
        transport = platform.reactor.spawnProcess(
            client, sys.executable, [sys.executable, "-m", "walt.client.main", "node", "reboot",
                                     name],
            {**os.environ, **platform.environment()},
        )

        async def asked() -> bool:
            return node.requests == ["REBOOT"]

        await platform.until(asked, "the node is asked to reboot", 20)
        self.assertIn("reboot", await platform.ok("advanced", "workflows"))
        transport.signalProcess("KILL")
        await client.ended

        async def over() -> bool:
            return await platform.ok("advanced", "workflows", "--json") == "[]\n"

        await platform.until(over, "the reboot is over", 20)
        await platform.ok("node", "wait", "--timeout", "30", name)
        node.delay = 0.0
        told = await platform.ok("node", "reboot", name)
        self.assertIn(f"{name}: rebooted ok.", told)
        await platform.ok("node", "wait", "--timeout", "30", name)
