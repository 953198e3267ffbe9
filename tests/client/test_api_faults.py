"""Scripts whose server restarts, whose nodes change, whose user or reader has no patience."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.client.platform import SECOND, Server, reactor, until
from tests.client.test_api import Script
from tests.fakes.local_nodes import local_sessions
from tests.patience import patient
from tests.server.streams.platform import NODE
from walt.server.domain.nodes.reservations import SILENCE
from walt.server.streams.node_command import NodeCommandRequest


class FaultTests(TestCase):
    timeout = patient(60)

    def setUp(self) -> None:
        self.server = Server(self)
        self.mark = Path(self.mktemp()).absolute()

    async def script(self, text: str) -> Script:
        """Run a script to its end; it must succeed."""
        script = Script(self.server, text)
        self.assertEqual((await script.ended, script.err), (0, b""))
        return script

    async def told(self, text: str) -> list[str]:
        """Return the lines of such a script."""
        return (await self.script(text)).out.decode().splitlines()

    async def marked(self, script: Script, number: int = 1) -> None:
        """Return when a script has printed so many lines."""
        await until(lambda: script.out.count(b"\n") >= number)

    async def restarted(self) -> None:
        """End all connections, and listen anew, as a server that is started again."""
        for one in (*self.server.sessions, *self.server.streams):
            if one.transport is not None:
                one.transport.abortConnection()  # type: ignore[attr-defined]
        self.server.sessions.clear()
        self.server.streams.clear()

    async def test_restart_between_calls(self) -> None:
        """The next call of each thread finds the new server."""
        script = Script(self.server, (
            "import sys, time, os\n"
            "node = api.nodes.get_nodes('node-1')['node-1']\n"
            "print(node.booted, flush=True)\n"
            f"while not os.path.exists({str(self.mark)!r}): time.sleep(0.02)\n"
            "print(node.booted)\n"
        ))
        await self.marked(script)
        await self.restarted()
        self.mark.touch()
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.split(), [b"True", b"True"])

    async def test_restart_in_the_middle(self) -> None:
        """The call fails, and is not repeated; the next one works. So do lines of logs."""
        self.server.down(SECOND)
        script = Script(self.server, (
            "node = api.nodes.get_nodes('node-2')['node-2']\n"
            "lines = api.logs.get_logs(realtime=True, issuers='node-1')\n"
            "for work in (node.wait, lambda: next(lines)):\n"
            "    print('begins', flush=True)\n"
            "    try:\n"
            "        work()\n"
            "    except Exception as error:\n"
            "        told = 'communication issue' in str(error)\n"
            "        print(type(error).__name__, told, node.booted)\n"
        ))
        await self.marked(script)
        await until(lambda: self.server.platform.status._waiters)
        await self.restarted()
        await self.marked(script, 3)
        await until(lambda: self.server.streams)
        await self.restarted()
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.decode().splitlines(), [
            "begins", "Failure True False", "begins", "Failure True False",
        ])

    async def test_interrupted_anywhere(self) -> None:
        """Ctrl-C ends every call that waits, at once; the next call works; nothing is left."""
        self.server.down(SECOND)
        commands = self.server.platform.commands(local_sessions(reactor))
        self.server.platform.requests["REQ_NODE_CMD"] = partial(NodeCommandRequest, commands)
        told = await self.told(
            "import os, signal, threading, time\n"
            "both = api.nodes.get_nodes('node-1,node-2')\n"
            "one, two = both['node-1'], both['node-2']\n"
            "program = one.start('sleep 600')\n"
            "for work in (\n"
            "    two.wait, both.wait, lambda: two.run('true'), lambda: both.run('true'),\n"
            "    lambda: one.run('sleep 600'), lambda: one.start('sleep 600', ready='x'),\n"
            "    program.wait, lambda: two.put('/etc/hostname', '/tmp'),\n"
            "    lambda: two.get('/etc/hostname', '/tmp'),\n"
            "    lambda: api.nodes.reserve(nodes='bobs-node', wait=600),\n"
            "    lambda: list(one.get_logs(realtime=True)),\n"
            "    lambda: one.get_logs(realtime=True).to_arrow(),\n"
            "):\n"
            "    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "    begun = time.monotonic()\n"
            "    try:\n"
            "        work()\n"
            "    except KeyboardInterrupt:\n"
            "        print('interrupted', one.booted, time.monotonic() - begun < 5)\n"
            "program.stop()\n"
        )
        self.assertEqual(told, 12 * ["interrupted True True"])
        await until(lambda: not self.server.platform.status._waiters)
        await until(lambda: all(one.transport is None or not one.transport.connected
                                for one in self.server.streams))
        self.assertEqual(self.server.platform.open_sessions.of(NODE.mac), [])

    async def test_nodes_that_change(self) -> None:
        """Removed, renamed, replaced by another of the same name, while a set holds them."""
        registry = self.server.platform.registry
        script = Script(self.server, (
            "import os, time\n"
            "nodes = api.nodes.get_nodes('node-1,node-2')\n"
            "one, two = nodes['node-1'], nodes['node-2']\n"
            "print('ready', flush=True)\n"
            f"while not os.path.exists({str(self.mark)!r}): time.sleep(0.02)\n"
            "print(two.booted, two.name, nodes.keys(), two.mac)\n"
            "try:\n"
            "    print(one.booted)\n"
            "except ReferenceError as error:\n"
            "    print(error, nodes.keys(), len(nodes))\n"
            "other = api.nodes.get_nodes('node-1')['node-1']\n"
            "print(other is one, other.mac, other == one, nodes.filter(virtual=True).keys())\n"
        ))
        await self.marked(script)
        await registry.forget(NODE)
        await registry.put(replace(SECOND, name="renamed"))
        await registry.put(replace(NODE, mac="52:54:00:00:00:77"))
        self.mark.touch()
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.decode().splitlines()[1:], [
            f"True renamed ['node-1', 'renamed'] {SECOND.mac}",
            "this node was removed ['renamed'] 1",
            "False 52:54:00:00:00:77 False ['renamed']",
        ])

    async def test_two_processes(self) -> None:
        """Both see what either does; reservations of one are refused to the other."""
        first = Script(self.server, (
            "import os, time\n"
            "with api.nodes.reserve(nodes='node-1') as nodes:\n"
            "    nodes.node_1.rename('mine')\n"
            "    print('ready', flush=True)\n"
            f"    while not os.path.exists({str(self.mark)!r}): time.sleep(0.02)\n"
        ))
        await self.marked(first)
        told = await self.told(
            "try:\n"
            "    api.nodes.reserve(nodes='mine')\n"
            "except Exception as error:\n"
            "    print(error)\n"
        )
        self.assertIn("mine is reserved by alice", told[0])
        self.mark.touch()
        self.assertEqual(await first.ended, 0)
        await self.told("api.nodes.reserve(nodes='mine').release()")

    async def test_killed_holder(self) -> None:
        """The nodes of a script that was killed are free after a minute, by the server's clock."""
        script = Script(self.server, (
            "import time\n"
            "with api.nodes.reserve(nodes='node-1', seconds=9000):\n"
            "    print('ready', flush=True)\n"
            "    time.sleep(600)\n"
        ))
        await self.marked(script)
        os.kill(script.transport.pid, signal.SIGKILL)
        await script.ended
        self.assertIsNotNone(self.server.reservations.get(NODE.mac))
        self.server.platform.clock.advance(SILENCE)
        self.assertIsNone(self.server.reservations.get(NODE.mac))

    async def test_clock_off(self) -> None:
        """A client whose clock is an hour off gets the lines and reservations it asks for."""
        platform = self.server.platform
        platform.logs.write(NODE.mac, "exp", "now", timestamp=platform.clock.seconds() - 5)
        platform.logs.write(NODE.mac, "exp", "long ago", timestamp=platform.clock.seconds() - 900)
        await platform.logs.flush()
        for hours in (-1, 1):
            told = await self.told(
                "import time\n"
                "real = time.time\n"
                f"time.time = lambda: real() + {hours * 3600}\n"
                "node = api.nodes.get_nodes('node-1')['node-1']\n"
                "print([one.line for one in node.get_logs(history='-60s:')])\n"
                "with api.nodes.reserve(nodes='node-1', seconds=60) as taken:\n"
                "    print(taken.keys())\n"
                "    try:\n"
                "        api.nodes.reserve(nodes='node-1')\n"
                "    except Exception as error:\n"
                "        print('refused')\n"
                "api.nodes.reserve(nodes='node-1').release()\n"
            )
            self.assertEqual(told, ["['now']", "['node-1']", "refused"])

    async def test_hostile_texts(self) -> None:
        """Neither texts nor tables hold what a terminal obeys or a browser runs."""
        platform = self.server.platform
        nasty = "\x1b[2J<script>alert(1)</script>\u202e"
        platform.logs.write(NODE.mac, nasty, nasty)
        await platform.logs.flush()
        await platform.registry.put(replace(SECOND, model=nasty))
        told = (await self.script(
            "nodes = api.nodes.get_nodes()\n"
            "print(nodes, nodes['node-2'], repr(nodes['node-2']), nodes._repr_html_())\n"
            "lines = list(api.logs.get_logs(history='full', issuers='node-1'))\n"
            "print(lines, lines[0], nodes.boots(), nodes.commands())\n"
        )).out.decode()
        self.assertIn("alert(1)", told)
        self.assertNotIn("\x1b", told)
        self.assertNotIn("\u202e", told)
        self.assertNotIn("<script", told.partition("<table")[2].partition("</table")[0])

    async def test_reader_that_stops(self) -> None:
        """Stored lines wait for a reader that pauses; one that leaves lets the server go on."""
        platform = self.server.platform
        for start in range(0, 60_000, 1000):
            numbers = range(start, start + 1000)
            platform.logs.write_lines(
                NODE.mac, "exp", "\n".join(f"{number:06d}" + "x" * 80 for number in numbers)
            )
        await platform.logs.flush()
        script = Script(self.server, (
            "import os, time\n"
            "lines = api.logs.get_logs(history='full', issuers='node-1')\n"
            "print(next(lines).line[:6], flush=True)\n"
            f"while not os.path.exists({str(self.mark)!r}): time.sleep(0.02)\n"
            "rest = [one.line[:6] for one in lines]\n"
            "print(len(rest), rest == sorted(rest))\n"
            "lines = api.logs.get_logs(history='full', issuers='node-1')\n"
            "next(lines); lines.close()\n"
            "print(next(api.logs.get_logs(history='full', issuers='node-1')).line[:6])\n"
        ))
        await self.marked(script)
        stopped: Deferred[None] = Deferred()
        reactor.callLater(0.5, stopped.callback, None)
        await stopped
        self.mark.touch()
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.split(), [b"000000", b"59999", b"True", b"000000"])
