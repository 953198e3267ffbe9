"""Plugins of the client, as Python packages that a real `walt` process finds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.client.platform import BOBS, ROOT, SECOND, Server, Walt
from tests.patience import patient
from tests.server.streams.platform import NODE

PLUGIN = """
def power_cycle(macs):
    with open(__file__ + ".calls", "a") as calls:
        print(*macs, file=calls)
    return {answer}

power_cycle.method = "ipmi reboot"
"""


CATEGORY = '''
from walt.client.grammar import Arg, Command, Switch
from walt.client.session import Session

HELP = "machines of the grid"

def deploy(recipe_name, fast):
    print("deploys", recipe_name, "fast" if fast else "slowly",
          Session().json("cs.nodes.expand", "names", nodes="my-nodes"))
    return 5

def early(words):
    print("early:", *words)

def server():
    import os
    return os.environ["KNOWN_TO_PLUGIN"]

def failing(where, reason):
    import os
    print("failing:", "no WalT server answers" in reason)
    os.symlink(os.environ["KNOWN_TO_PLUGIN"].removeprefix("unix:"), where)
    return True

def complete(kind, words, partial):
    return ["debian", "devuan"] if kind == "RECIPE_NAME" else None

COMMANDS = {
    "deploy": Command(deploy, "deploy a recipe", args=[Arg("recipe_name")],
                      switches=[Switch("--fast", "no tests")]),
}
'''


class PluginTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.server = Server(self)
        self.directory = Path(tempfile.mkdtemp(prefix="wt", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.known = f"unix:{self.server.directory}/rpc.sock"

    def install(self, name: str, text: str, entries: str) -> None:
        """Put a plugin on the path of Python, as pip does."""
        (self.directory / f"{name}.py").write_text(text)
        info = self.directory / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)

    async def walt(
        self, *words: str, variables: dict[str, str] | None = None,
        module: str = "walt.client.main",
    ) -> tuple[int, str, str]:
        """Run walt with what is installed; return its status, output and errors."""
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ("-m", module, *words), {
                **os.environ, "PYTHONPATH": f"{ROOT}:{self.directory}", "WALT_USERNAME": "alice",
                "WALT_SERVER": self.known, "KNOWN_TO_PLUGIN": self.known,
                "HOME": str(self.directory), **(variables or {}),
            },
        )
        return status, out.decode(), err.decode()

    async def test_category(self) -> None:
        """A category of a plugin is listed first, has help, runs, and is completed."""
        self.install("grid", CATEGORY, "[walt.client.categories]\ng5k = grid\nnode = grid\n"
                     "[walt.client.hooks]\nshell-completion = grid:complete\n")
        status, out, err = await self.walt("--help")
        listed = [line.split()[0] for line in out.partition("Categories:")[2].splitlines() if line]
        self.assertEqual((status, err, listed[:3]), (0, "", ["g5k", "image", "node"]))
        _, out, _ = await self.walt("g5k", "--help")
        self.assertIn("machines of the grid", out)
        status, out, err = await self.walt("g5k", "deploy", "--fast", "debian")
        self.assertEqual(
            (status, out, err), (5, "deploys debian fast ['node-1', 'node-2']\n", "")
        )
        for words in (("g5k", "fly"), ("g5k", "deploy"), ("g5k",)):
            self.assertEqual((await self.walt(*words))[0], 2)
        self.assertIn("node-1", (await self.walt("node", "show"))[1])
        script = (await self.walt("advanced", "dump-bash-autocomplete"))[1]
        self.assertIn("'g5k deploy'", script)
        self.assertIn("RECIPE_NAME", script)
        helper = "walt.client.completion.helper"
        found = await self.walt("RECIPE_NAME", "walt", "g5k", "deploy", "d", module=helper)
        self.assertEqual(found, (0, "debian devuan\n", ""))
        found = await self.walt("NODE", "walt", "node", "ping", "node", module=helper)
        self.assertEqual(found[:2], (0, "node-1 node-2\n"))

    async def test_no_server(self) -> None:
        """A plugin says which server to use, and helps where it does not answer, once."""
        self.install("grid", CATEGORY, "[walt.client.hooks]\nearly-startup = grid:early\n"
                     "config-missing-server = grid:server\nfailing-server-socket=grid:failing\n")
        status, out, err = await self.walt(
            "node", "show", "--names-only", variables={"WALT_SERVER": ""}
        )
        self.assertEqual(
            (status, out, err), (0, "early: node show --names-only\nnode-1\nnode-2\n", "")
        )
        there = f"unix:{self.directory}/rpc.sock"
        status, out, err = await self.walt(
            "node", "show", "--names-only", variables={"WALT_SERVER": there}
        )
        self.assertEqual((status, out.splitlines()[1:], err), (
            0, ["failing: True", "node-1", "node-2"], ""
        ))

    async def test_broken(self) -> None:
        """What a plugin gets wrong is told with its name; what does not need it goes on."""
        self.install("grid", "HELP = 1\ndef early(words):\n    raise OSError('no disk')\n",
                     "[walt.client.categories]\ng5k = grid\n")
        status, out, err = await self.walt("g5k", "deploy")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the plugin of category g5k lacks HELP", err)
        self.assertEqual((await self.walt("node", "show"))[0], 0)
        self.install("other", "", "[walt.client.hooks]\nearly-startup = grid:early\n")
        status, out, err = await self.walt("node", "show")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the plugin of early-startup failed: OSError: no disk", err)
        self.install("other", "", "[walt.client.hooks]\nearly-startup = nowhere:early\n")
        self.assertIn("nowhere:early cannot be loaded", (await self.walt("node", "show"))[2])


class HardRebootTests(TestCase):
    timeout = patient(30)

    def setUp(self) -> None:
        self.server = Server(self)
        self.directory = Path(tempfile.mkdtemp(prefix="wt", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)

    def install(self, answer: str, name: str = "rack", target: str = "power_cycle") -> None:
        """Put a plugin on the path of Python, as pip does."""
        (self.directory / f"{name}.py").write_text(PLUGIN.format(answer=answer))
        info = self.directory / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[walt.client.hooks]\nhard-reboot = {name}:{target}\n"
        )

    async def reboot(self, *words: str) -> tuple[int, str, str]:
        """Run `walt node reboot`."""
        walt = Walt(
            self.server, "node", "reboot", *words,
            variables={"PYTHONPATH": f"{ROOT}:{self.directory}"},
        )
        walt.transport.closeStdin()
        status = await walt.ended
        return status, walt.out.decode(), walt.err.decode()

    def calls(self) -> list[list[str]]:
        """Return the MACs of each call of the plugin."""
        path = self.directory / "rack.py.calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [sorted(line.split()) for line in lines]

    def refuse(self) -> None:
        """Have two nodes not answer."""
        for one in (NODE, SECOND):
            assert one.ip is not None
            self.server.link.refusals[one.ip] = "Connection refused"

    async def test_nodes_that_do_not_answer(self) -> None:
        """The hook gets them alone; what it did is in one report, and in the state of nodes."""
        self.install('(macs[:1], {macs[1]: "no such outlet"})')
        self.refuse()
        status, out, err = await self.reboot(f"{NODE.name},{SECOND.name}")
        self.assertEqual(self.calls(), [sorted([NODE.mac, SECOND.mac])])
        self.assertEqual((status, out.count("rebooted ok."), err.count("\n")), (1, 1, 1))
        self.assertIn("failed soft-reboot (connection refused) and ipmi reboot (no such outlet)",
                      err)
        booted = [self.server.platform.status.is_booted(one.mac) for one in (NODE, SECOND)]
        self.assertEqual(sorted(booted), [False, True])

    async def test_hard(self) -> None:
        """--hard asks no node; the hook alone acts."""
        self.install("(macs, {})")
        self.assertEqual(
            await self.reboot("--hard", NODE.name), (0, f"Node {NODE.name}: rebooted ok.\n", "")
        )
        self.assertEqual(self.server.link.requests, [])
        self.assertEqual(self.calls(), [[NODE.mac]])

    async def test_not_needed(self) -> None:
        """When every node answers the hook is not called."""
        self.install("(macs, {})")
        status, out, err = await self.reboot(NODE.name)
        self.assertEqual((status, out, err), (0, f"Node {NODE.name}: rebooted ok.\n", ""))
        self.assertEqual(self.calls(), [])

    async def test_broken_plugins(self) -> None:
        """One that fails, says nothing, cannot be loaded, or is not alone: told plainly."""
        self.refuse()
        for answer, text in (
            ('1 / 0', "ipmi reboot (ZeroDivisionError: division by zero)"),
            ('None', "ipmi reboot (TypeError: "), ("([], {})", "the plugin said nothing about it"),
        ):
            self.install(answer)
            status, out, err = await self.reboot(NODE.name)
            self.assertEqual((status, out), (1, ""), err)
            self.assertIn(text, err)
            self.assertNotIn("Traceback", err)
        self.install("([], {})", target="no_such")
        status, out, err = await self.reboot(NODE.name)
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the plugin rack:no_such cannot be loaded", err)
        self.install("([], {})")
        self.install("([], {})", name="other")
        status, out, err = await self.reboot(NODE.name)
        self.assertIn(
            "several plugins offer hard-reboot: other:power_cycle, rack:power_cycle", err
        )

    async def test_without_plugin(self) -> None:
        """The server does it all."""
        self.refuse()
        status, _, err = await self.reboot(NODE.name)
        self.assertEqual(status, 1)
        self.assertIn("and poe-reboot (unknown LLDP network position)", err)
        self.assertTrue(self.server.platform.status.is_booted(BOBS.mac))
