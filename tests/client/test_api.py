"""The Python API, in scripts of their own."""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.client.platform import ROOT, SECOND, Server, reactor
from tests.client.test_process import python39
from tests.fakes.local_nodes import local_sessions
from tests.patience import patient
from tests.server.streams.platform import NODE, SERVER
from walt.client.scripting.shortcuts import shortcuts
from walt.common.names import default_image
from walt.server.domain.nodes.boots import Stage
from walt.server.domain.nodes.reservations import SILENCE
from walt.server.streams.node_command import NodeCommandRequest

ROOT_TEXT = """< -- WalT API root --

  read-only attributes:
  - self.images: <API submodule for WalT images>
  - self.logs: <API submodule for WalT logs>
  - self.nodes: <API submodule for WalT nodes>
  - self.tools: <Misc API features>
>
"""


class Script(ProcessProtocol):
    """A Python script that uses the API of a server."""

    def __init__(self, server: Server | None, text: str, python: str = sys.executable) -> None:
        self.out, self.err = b"", b""
        self.ended: Deferred[int] = Deferred()
        where = f"unix:{server.directory}/rpc.sock" if server is not None else "unix:/nowhere"
        self.transport: Any = reactor.spawnProcess(
            self, python, [python, "-c", f"from walt.client import api\n{text}"],
            {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent",
             "WALT_SERVER": where, "WALT_USERNAME": "alice", "LC_ALL": "C.UTF-8"},
        )

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


class ShortcutTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Other characters, camel case, collisions in the order of names."""
        self.assertEqual(shortcuts(["vN2", "v-n2", "rpi-3.b", "v_n2"]), {
            "rpi-3.b": "rpi_3_b", "v-n2": "v_n2", "vN2": "v_n2_2", "v_n2": "v_n2_3",
        })

    @given(st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=12), max_size=20))
    def test_any_names(self, names: list[str]) -> None:
        """Each name has a shortcut of its own, of small letters, digits and underscores."""
        found = shortcuts(set(names))
        self.assertEqual(set(found), set(names))
        self.assertEqual(len(set(found.values())), len(found))
        for one in found.values():
            self.assertRegex(one, r"^[a-z0-9_]+$")


class ApiTests(TestCase):
    timeout = patient(60)

    def setUp(self) -> None:
        self.server = Server(self)

    async def told(self, text: str) -> list[str]:
        """Run a script that must succeed; return its lines."""
        script = Script(self.server, text)
        self.assertEqual((await script.ended, script.err), (0, b""))
        return script.out.decode().splitlines()

    async def test_root(self) -> None:
        """The root and what it shows, without a connection."""
        script = Script(None, "print(api)")
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.decode(), ROOT_TEXT)

    async def test_nodes(self) -> None:
        """A set is a mapping by name, whose iteration gives nodes."""
        told = await self.told(
            "nodes = api.nodes.get_nodes()\n"
            "print(nodes.keys(), len(nodes), 'node-1' in nodes, nodes['node-1'] in nodes)\n"
            "node = nodes['node-1']\n"
            "print([one.name for one in nodes], nodes.get('x'), nodes.node_1 is node)\n"
            "print(node.mac, node.ip, node.model, node.booted, node.virtual, node.type)\n"
            "print(nodes.filter(name='node-2').keys(), nodes.filter(owner='bob').keys())\n"
            "print((nodes['node-1'] | nodes['node-2']).keys(), (nodes & node).keys())\n"
            "print(node is api.nodes.get_nodes('node-1')['node-1'])\n"
            "print(api.nodes.get_nodes([node, 'node-2']).keys())\n"
        )
        self.assertEqual(told, [
            "['bobs-node', 'node-1', 'node-2'] 3 True True",
            "['bobs-node', 'node-1', 'node-2'] None True",
            f"{NODE.mac} {NODE.ip} {NODE.model} True {NODE.virtual} node",
            "['node-2'] ['bobs-node']",
            "['node-1', 'node-2'] ['node-1']",
            "True",
            "['node-1', 'node-2']",
        ])

    async def test_attributes(self) -> None:
        """Unknown ones, those that cannot be written, probes of libraries."""
        told = await self.told(
            "import copy, pickle\n"
            "nodes = api.nodes.get_nodes()\n"
            "node = nodes['node-1']\n"
            "for work in (lambda: node.x, lambda: setattr(node, 'name', 'y'), lambda: nodes.x,\n"
            "             lambda: setattr(node, 'x', 1), lambda: nodes['x'],\n"
            "             lambda: nodes.filter(x=1), lambda: node | nodes, lambda: nodes | 'x',\n"
            "             lambda: node.config.x, lambda: setattr(node.config, 'x', 1)):\n"
            "    try:\n"
            "        print(work())\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__)\n"
            "print(copy.deepcopy(nodes)['node-1'] is node)\n"
            "print(pickle.loads(pickle.dumps(node)) is node)\n"
            "print(hasattr(node, '__array_interface__'), hasattr(nodes, '_ipython_display_'))\n"
        )
        self.assertEqual(told, [
            "AttributeError", "AttributeError", "AttributeError", "AttributeError", "KeyError",
            "AttributeError", "TypeError", "TypeError", "AttributeError", "AttributeError",
            "True", "True", "False False",
        ])

    async def test_texts(self) -> None:
        """What a node and a set show."""
        told = await self.told("print(api.nodes.get_nodes('node-2')['node-2'])")
        self.assertEqual(told[:3], ["< -- virtual node node-2 --", "", "  read-only attributes:"])
        self.assertIn("  - self.name: 'node-2'", told)
        self.assertIn("  - self.config: <node configuration>", told)
        self.assertIn("  - self.owner: 'alice'  # yourself", told)
        self.assertIn("  - self.reboot(self, force=False, hard_only=False): Reboot", told)
        self.assertIn("  - self.remove(self, force=False): Remove this virtual node", told)
        told = await self.told("print(api.nodes.get_nodes())")
        self.assertEqual(told[0], "< -- Set of WalT nodes (3 items) --")
        self.assertIn("  - self['bobs-node']: <virtual node bobs-node>", told)
        self.assertIn("  note:", told[-4:])

    async def test_configuration(self) -> None:
        """Settings are read and written under names with underscores."""
        told = await self.told(
            "config = api.nodes.get_nodes('node-2')['node-2'].config\n"
            "print(config.netsetup, config.boot_retries, config.mount_persist)\n"
            "config.mount_persist = False\n"
            "print(config.mount_persist, 'mount_persist' in dir(config))\n"
            "config.boot_timeout = None\n"
            "print(config.boot_timeout)\n"
        )
        self.assertEqual(told[0].split(), ["LAN", "9", "True"])
        self.assertIn("False True", told)
        self.assertEqual(told[-1], "None")
        script = Script(
            self.server, "api.nodes.get_nodes('node-2')['node-2'].config.boot_retries = 'many'"
        )
        self.assertEqual((await script.ended, script.out), (0, b""))
        self.assertIn(b"boot.retries", script.err)

    async def test_ownership(self) -> None:
        """The API never asks: it refuses nodes of others unless told to go on."""
        told = await self.told(
            "from walt.client.exceptions import *\n"
            "nodes = api.nodes.get_nodes()\n"
            "for work in (lambda: nodes.reboot(), lambda: nodes['bobs-node'].release(),\n"
            "             lambda: nodes['node-2'].acquire(), lambda: nodes['node-2'].boot(3),\n"
            "             lambda: nodes['bobs-node'].rename('mine')):\n"
            "    try:\n"
            "        print(work())\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__)\n"
        )
        self.assertEqual(told, [
            "NodeNotOwnedException", "OpAppliesNodeOwnedException", "NodeAlreadyOwnedException",
            "ParameterNotAnImageException", "NodeNotOwnedException",
        ])

    async def test_rename(self) -> None:
        """A node keeps its object; sets follow."""
        told = await self.told(
            "nodes = api.nodes.get_nodes()\n"
            "node = nodes['node-2']\n"
            "node.rename('other')\n"
            "print(node.name, nodes.keys(), nodes['other'] is node, node.booted)\n"
        )
        self.assertEqual(told[-1], "other ['bobs-node', 'node-1', 'other'] True True")
        self.assertIsNotNone(self.server.platform.registry.by_name("other"))

    async def test_waiting(self) -> None:
        """A time limit ends a wait; the next call works."""
        self.server.down(SECOND)
        told = await self.told(
            "from walt.client.timeout import TimeoutException\n"
            "node = api.nodes.get_nodes('node-2')['node-2']\n"
            "try:\n"
            "    node.wait(timeout=0.2)\n"
            "except TimeoutException:\n"
            "    print('late', node.booted)\n"
        )
        self.assertEqual(told, ["late False"])
        self.assertEqual(await self.told("api.nodes.get_nodes('node-1').wait(); print(1)"), ["1"])

    async def test_interrupted(self) -> None:
        """Ctrl-C ends a call at once, and its connection; the next call works."""
        self.server.down(SECOND)
        told = await self.told(
            "import os, signal, threading\n"
            "node = api.nodes.get_nodes('node-2')['node-2']\n"
            "lines = api.logs.get_logs(realtime=True, issuers='node-1')\n"
            "for work in (node.wait, lambda: next(lines)):\n"
            "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "    try:\n"
            "        work()\n"
            "    except KeyboardInterrupt:\n"
            "        print('interrupted', node.booted)\n"
        )
        self.assertEqual(told, ["interrupted False", "interrupted False"])

    async def test_logs(self) -> None:
        """Stored and live lines, with the objects they come from."""
        logs = self.server.platform.logs
        for number in range(3):
            logs.write(NODE.mac, "exp", f"line {number}")
        logs.write(NODE.mac, "netconsole", "on the console")
        told = await self.told(
            "from walt.client.exceptions import TimeoutException\n"
            "for log in api.logs.get_logs(history='full', issuers='node-1'):\n"
            "    print(log.issuer.name, log.stream, log.line, type(log.timestamp).__name__)\n"
            "try:\n"
            "    for log in api.logs.get_logs(realtime=True, issuers='node-1', timeout=0.3):\n"
            "        print(log)\n"
            "except TimeoutException:\n"
            "    print('late')\n"
            "node = api.nodes.get_nodes('node-1')['node-1']\n"
            "print([len(list(node.get_logs(history='full', consoles=one))) for one in (0, 1)])\n"
            "for words in ({}, {'history': 'x'}, {'history': 'full', 'issuers': ''}):\n"
            "    try:\n"
            "        api.logs.get_logs(**words)\n"
            "    except Exception as error:\n"
            "        print(error)\n"
        )
        self.assertEqual(told[:4], [
            *(f"node-1 exp line {number} datetime" for number in range(3)), "late",
        ])
        self.assertEqual((told[4], len(told)), ("[3, 4]", 8))

    async def test_logs_as_columns(self) -> None:
        """Of pandas and pyarrow: moments in UTC, names that occur often as words."""
        logs = self.server.platform.logs
        for number in range(5):
            logs.write(NODE.mac, "exp", f"line {number}", timestamp=1_600_000_000.25 + number)
        told = await self.told(
            "import tempfile\n"
            "from pyarrow import parquet\n"
            "def lines(**words):\n"
            "    return api.logs.get_logs(history='full', issuers='node-1', **words)\n"
            "frame = lines().to_pandas()\n"
            "print([str(one) for one in frame.dtypes][:3], len(frame))\n"
            "print(frame.iloc[0].tolist())\n"
            "table = lines().to_arrow()\n"
            "print(table.schema.to_string().splitlines()[:4])\n"
            "print(table.to_pandas().equals(frame))\n"
            "print([batch.num_rows for batch in lines().batches(2)])\n"
            "with tempfile.NamedTemporaryFile() as file:\n"
            "    lines().to_parquet(file.name)\n"
            "    read = parquet.read_table(file.name)\n"
            "    print(read['line'].to_pylist() == list(frame.line))\n"
            "print(lines(realtime=True, timeout=0.3).to_arrow().num_rows)\n"
            "rest = lines()\n"
            "print(next(rest).line, rest.to_arrow().num_rows)\n"
        )
        self.assertEqual(told, [
            "['datetime64[us, UTC]', 'category', 'category'] 5",
            "[Timestamp('2020-09-13 12:26:40.250000+0000', tz='UTC'), 'node-1', 'exp', 'line 0']",
            "['timestamp: timestamp[us, tz=UTC]', "
            "'issuer: dictionary<values=string, indices=int32, ordered=0>', "
            "'stream: dictionary<values=string, indices=int32, ordered=0>', 'line: string']",
            "True", "[2, 2, 1]", "True", "5", "line 0 4",
        ])

    async def test_boots(self) -> None:
        """How nodes booted: rows with names, for pandas too; whose image has percentiles."""
        progress, clock = self.server.progress, self.server.platform.clock
        clock.advance(1_790_000_000)
        self.server.down(SECOND)
        progress.started(SECOND, "image change")
        clock.advance(2)
        progress.reached(SECOND.mac, Stage.ADDRESS)
        clock.advance(2.5)
        progress.on_status(SECOND.mac, True, None)
        progress.started(NODE)
        told = await self.told(
            "nodes = api.nodes.get_nodes('node-1,node-2')\n"
            "first, second = nodes.boots()\n"
            "print(first.node, first.cause, first.outcome, first.tries, first.seconds)\n"
            "print(first.address - first.started, first.kernel, second.outcome, second.stage)\n"
            "frame = nodes.boots().to_pandas()\n"
            "print(str(frame.ready[0]), frame.kernel.isna().all(), frame.seconds.tolist())\n"
            "print(nodes.boots().to_arrow().num_rows, len(nodes['node-1'].boots(last=1)))\n"
            "try:\n"
            "    nodes.boots(last=0)\n"
            "except Exception as error:\n"
            "    print(error)\n"
        )
        self.assertEqual(told, [
            "node-2 image change booted 1 4.5", "2.0 None booting started",
            f"{told[2][:19]}.500000+00:00 True [4.5, nan]", "2 1",
            "the number of boots must be between 1 and 1000",
        ])

    async def test_reservations(self) -> None:
        """Nodes of a model for a while: others are refused, unless they say `force`."""
        told = await self.told(
            "from walt.client.exceptions import *\n"
            "with api.nodes.reserve('pc-*', count=2) as nodes:\n"
            "    print(nodes.keys(), nodes['node-1'].owner)\n"
            "    for words in ({}, {'wait': 0.1}, {'count': 9}, {'model': 'x'}, {'seconds': 0},\n"
            "                  {'nodes': 'nothing'}):\n"
            "        try:\n"
            "            api.nodes.reserve(**words)\n"
            "        except Exception as error:\n"
            "            print(type(error).__name__, error)\n"
            "again = api.nodes.reserve()\n"
            "print(again.nodes.keys(), again)\n"
            "again.release()\n"
            "again.release()\n"
        )
        self.assertEqual(told[0], "['node-1', 'node-2'] alice")
        self.assertEqual(told[1], (
            "Refused 1 nodes of model * are wanted, and 0 can be had now: bobs-node belongs to"
            " bob, node-1 is reserved by alice, node-2 is reserved by alice"
        ))
        self.assertEqual([one.split()[0] for one in told[2:7]], [
            "TimeoutException", "Refused", "Refused", "Refused", "Refused",
        ])
        self.assertEqual(told[7], "['node-1'] <Reservation of node-1>")

    async def test_reserved_by_another_user(self) -> None:
        """Who has it is told; a holder that died has it for a minute."""
        clock = self.server.platform.clock
        free = replace(SECOND, image=default_image(str(SECOND.model)))
        await self.server.platform.registry.put(free)
        taken = self.server.reservations.take(
            [free], "*", 1, 600.0, user="bob", holder="other"
        )
        self.assertEqual([node.name for node in taken], ["node-2"])
        script = (
            "from walt.client.exceptions import *\n"
            "node = api.nodes.get_nodes('node-2')['node-2']\n"
            "for force in (False, True):\n"
            "    try:\n"
            "        print('>', node.reboot(force=force))\n"
            "    except NodeReservedException as error:\n"
            "        print('>', error)\n"
        )

        async def told() -> list[str]:
            lines = await self.told(script)
            return [line[2:] for line in lines if line.startswith("> ")]

        refused, rebooted = await told()
        self.assertRegex(
            refused, r"^Node node-2 is reserved by bob until [-0-9]+ [:0-9]+\. force=True goes on$"
        )
        clock.advance(SILENCE)
        self.assertEqual(await told(), [rebooted, rebooted])

    async def test_libraries_that_are_missing(self) -> None:
        """The message says how this Python gets them."""
        told = await self.told(
            "import sys\n"
            "sys.modules['pandas'] = sys.modules['pyarrow'] = None\n"
            "lines = api.logs.get_logs(history='full', issuers='node-1')\n"
            "boots = api.nodes.get_nodes().boots()\n"
            "for work in (lines.to_pandas, lines.batches, boots.to_arrow):\n"
            "    try:\n"
            "        work()\n"
            "    except Exception as error:\n"
            "        print(error)\n"
        )
        self.assertEqual(
            [one.rpartition(" ")[2] for one in told], ["pandas", "pyarrow", "pyarrow"]
        )

    async def test_commands(self) -> None:
        """Results of one node and of several; one that goes on meanwhile, until it is left."""
        platform = self.server.platform
        commands = platform.commands(local_sessions(reactor))
        platform.requests["REQ_NODE_CMD"] = partial(NodeCommandRequest, commands)
        mark = Path(self.mktemp()).absolute()
        told = await self.told(
            "from walt.client.exceptions import TimeoutException\n"
            "nodes = api.nodes.get_nodes('node-1,node-2')\n"
            "node = nodes['node-1']\n"
            "print(nodes.run('echo 1; exit 3'))\n"
            "with node.start('echo begin; echo x >&2; exec sleep 600', ready='begin') as program:\n"
            "    print(program.running, program.output.strip())\n"
            "    try:\n"
            "        program.wait(timeout=0.3)\n"
            "    except TimeoutException:\n"
            "        print('goes on')\n"
            "print(program.running, program.error.strip())\n"
            f"program = node.start('sleep 1; echo end > {mark}; echo ready')\n"
            "program.ready('ready', timeout=30)\n"
            "print(program.wait().status, program.wait().output.strip())\n"
            "for command, words in (('exit 4', {}), ('sleep 600', {'timeout': 0.5})):\n"
            "    try:\n"
            "        node.start(command, ready='never', **words)\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__, error)\n"
            "try:\n"
            "    node.run('head -c 70000000 /dev/zero')\n"
            "except Exception as error:\n"
            "    print(error)\n"
            "try:\n"
            "    node.run('sleep 600', timeout=0.2)\n"
            "except TimeoutException:\n"
            "    pass\n"
            "found = nodes.commands()\n"
            "print([(one.node, one.outcome, one.status, one.output) for one in found])\n"
            "frame = nodes['node-2'].commands().to_pandas()\n"
            "print(frame.command[0], frame.started.dtype, len(frame), len(found.to_arrow()))\n"
        )
        *told, rows, frame = told
        self.assertEqual(sorted(ast.literal_eval(rows)), [
            ("node-1", "ended", 3, "1\n"), ("node-1", "failed", -1, ""),
            ("node-1", "timeout", -1, ""), ("node-2", "ended", 3, "1\n"),
        ])
        self.assertEqual(frame, "echo 1; exit 3 datetime64[us, UTC] 1 4")
        self.assertEqual(told, [
            "{'node-1': Result(status=3, output='1\\n', error=''), "
            "'node-2': Result(status=3, output='1\\n', error='')}",
            "True begin", "goes on", "False x", "0 ready",
            "Failure the program ended before it printed 'never', with status 4: ",
            "TimeoutException ", told[-1],
        ])
        self.assertIn("more than 64 MiB", told[-1])
        self.assertEqual(mark.read_text(), "end\n")

    async def test_threads_and_forks(self) -> None:
        """Each thread, and a process that was forked, has a connection of its own."""
        told = await self.told(
            "import os, threading\n"
            "nodes = api.nodes.get_nodes()\n"
            "def ask():\n"
            "    for _ in range(20):\n"
            "        assert nodes['node-1'].booted\n"
            "threads = [threading.Thread(target=ask) for _ in range(4)]\n"
            "for thread in threads: thread.start()\n"
            "for thread in threads: thread.join()\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    ask(); os._exit(7)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), nodes['node-1'].booted)\n"
        )
        self.assertEqual(told, ["7 True"])

    async def test_imported_alone(self) -> None:
        """The import opens no connection, and brings nothing but the standard library."""
        told = await self.told(
            "import sys\n"
            "print([name for name in sys.modules if name.startswith(('twisted', 'asyncio'))])\n"
        )
        self.assertEqual(told, ["[]"])
        self.assertEqual(self.server.sessions, [])

    async def test_old_python(self) -> None:
        """What scripts do works in the oldest Python that the client supports."""
        commands = self.server.platform.commands(local_sessions(reactor))
        self.server.platform.requests["REQ_NODE_CMD"] = partial(NodeCommandRequest, commands)
        self.server.platform.logs.write(NODE.mac, "exp", "a line")
        script = Script(self.server, (
            "nodes = api.nodes.get_nodes('node-1,node-2')\n"
            "print(nodes.filter(virtual=True, owner='alice').keys(), api.tools.get_server().mac)\n"
            "print({name: one.output for name, one in nodes.run('echo 1', timeout=30).items()})\n"
            "print([one.line for one in nodes['node-1'].get_logs(history='full')])\n"
            "print(len(nodes.boots()), [one.status for one in nodes.commands()])\n"
            "with nodes['node-1'].start('echo begin; sleep 600', ready='begin', timeout=30):\n"
            "    pass\n"
            "with api.nodes.reserve(nodes='node-1') as taken:\n"
            "    print(taken.keys(), repr(nodes).splitlines()[0])\n"
            "nodes['node-1'].config.boot_retries = 7\n"
            "print(nodes['node-1'].config.boot_retries)\n"
        ), python39())
        self.assertEqual((await script.ended, script.err), (0, b""))
        self.assertEqual(script.out.decode().splitlines(), [
            f"['node-1', 'node-2'] {SERVER.mac}", "{'node-1': '1\\n', 'node-2': '1\\n'}",
            "['a line']", "0 [0, 0]", "['node-1'] < -- Set of WalT nodes (2 items) --", "Done.",
            "7",
        ])

    def test_source_is_there(self) -> None:
        """Scripts for WalT 10 find what they import."""
        for name in ("exceptions", "timeout"):
            self.assertTrue(Path(ROOT, "walt", "client", f"{name}.py").is_file())
