"""Plugins of the client, as Python packages that a real `walt` process finds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

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
