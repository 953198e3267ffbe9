"""One node takes all the swap areas it can: it gets its share, others get theirs."""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, Program, why_not
from tests.system.netns import Namespace, join

# Asks for areas, says how many it has, and keeps them until its input ends.
GREEDY = """
import json, socket, sys
sys.path.insert(0, sys.argv[1])
from tests.system.nbd_client import READ, WRITE, Client
server, names = sys.argv[2], sys.argv[3:]
had, silent = [], []
for name in names:
    try:
        if name == "silent":
            silent.append(socket.create_connection((server, 10809), 10))
            continue
        one = Client(server, 10809, name.encode())
        if one.accepted:
            had.append(one)
    except OSError:
        pass
working = sum(one.request(READ, 0, 4096) == bytes(4096) for one in had)
greeted = 0
for one in silent:
    try:
        one.settimeout(10)
        greeted += len(one.recv(18)) == 18
    except OSError:
        pass
print(json.dumps([working, greeted]), flush=True)
sys.stdin.read()
"""


class SwapTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def test_a_greedy_node(self) -> None:
        """Areas, sizes and silent connections of one address; a node that was cut off."""
        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        host = Namespace(self)
        host.name = platform.namespace
        node = await self.node(host, 61)
        first = await self.ask(node, *["swap-1G"] * 300)
        self.assertEqual(first[0], [2, 0])
        other = await self.node(host, 62)
        self.assertEqual((await self.ask(other, "swap-64G", "swap-65G", "swap-64G"))[0], [2, 0])
        self.assertEqual((await self.ask(node, "swap-1G"))[0], [0, 0])
        silent = await self.ask(node, *["silent"] * 300)
        self.assertLess(silent[0][1], 8)
        third = await self.node(host, 63)
        self.assertEqual((await self.ask(third, "swap-200G", "swap-16G"))[0], [1, 0])
        # Its power is cut, which nobody is told; it comes back with the same address.
        host.run("ip", "link", "del", "n63")
        third = await self.node(host, 63)

        async def whole_share() -> bool:
            told, program = await self.ask(third, "swap-64G", "swap-64G")
            await self.end(program)
            return bool(told == [2, 0])

        await platform.until(whole_share, "the old area is gone", 60, every=1)

    async def node(self, host: Namespace, number: int) -> Namespace:
        """Return a namespace with an address of walt-net."""
        node = Namespace(self)
        join(host, f"n{number}", node, "eth0")
        host.run("ip", "link", "set", f"n{number}", "master", "walt-net")
        node.run("ip", "address", "add", f"{self.platform.net}.{number}/24", "dev", "eth0")
        return node

    async def ask(self, node: Namespace, *names: str) -> tuple[Any, Program]:
        """Return how many areas work, and silent connections were greeted; they are kept."""
        program = Program()
        argv = node.command(
            sys.executable, "-c", GREEDY, str(ROOT), f"{self.platform.net}.1", *names
        )
        self.platform.reactor.spawnProcess(program, argv[0], argv, {})
        self.addCleanup(self.end, program)

        async def told() -> bool:
            return program.out.endswith(b"\n") or program.ended.called

        await self.platform.until(told, "it asked", 60)
        return json.loads(program.out or b"null"), program

    async def end(self, program: Program) -> None:
        """Let a program leave."""
        if not program.ended.called:
            program.transport.closeStdin()
            await program.ended
