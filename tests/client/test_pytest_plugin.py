"""The plugin of pytest, used by a real pytest, with and without several workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from tests.client.platform import ROOT, SECOND, Server, reactor
from tests.patience import patient
from tests.server.streams.platform import NODE
from walt.server.domain.nodes.boots import Stage

PLUGIN = ["-p", "no:cacheprovider"]  # ours is loaded by its entry point


class Pytest(ProcessProtocol):
    """One run of pytest in a directory."""

    def __init__(self, server: Server | None, place: Path, *words: str) -> None:
        self.out = b""
        self.ended: Deferred[int] = Deferred()
        where = f"unix:{server.directory}/rpc.sock" if server is not None else "unix:/nowhere"
        argv = [sys.executable, "-m", "pytest", *PLUGIN, *words, str(place)]
        self.transport: Any = reactor.spawnProcess(self, argv[0], argv, {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent",
            "WALT_SERVER": where, "WALT_USERNAME": "alice", "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }, path=str(place))

    def outReceived(self, data: bytes) -> None:
        self.out += data

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


class PluginTests(TestCase):
    timeout = patient(120)

    def setUp(self) -> None:
        self.server = Server(self)
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()

    async def run_pytest(
        self, text: str, *words: str, status: int = 0, server: bool = True
    ) -> str:
        """Run the tests of a file; return what pytest says."""
        (self.place / "test_nodes.py").write_text(f"import pytest\n\n{text}")
        run = Pytest(self.server if server else None, self.place, *words)
        ended = await run.ended
        told = run.out.decode()
        self.assertEqual(ended, status, told)
        return told

    async def test_roles(self) -> None:
        """A node for a pattern, a set for a number; they are free again afterwards."""
        await self.run_pytest(
            "@pytest.mark.walt(tx='pc-*', rx=1)\n"
            "def test_two(walt, walt_nodes, walt_logs):\n"
            "    assert walt_nodes.tx.name != walt_nodes.rx.keys()[0]\n"
            "    assert walt_nodes.rx.keys()[0] in ('node-1', 'node-2')\n"
            "    assert walt_logs.lines() == []\n"
            "\n"
            "@pytest.mark.walt(both=('pc-*', 2))\n"
            "def test_both(walt_nodes):\n"
            "    assert walt_nodes.both.keys() == ['node-1', 'node-2']\n"
        )
        for device in (NODE, SECOND):
            self.assertIsNone(self.server.reservations.get(device.mac))

    async def test_nodes_that_lack(self) -> None:
        """The test is skipped, and says what is missing alone."""
        told = await self.run_pytest(
            "@pytest.mark.walt(tx='pc-*', camera='rpi-*')\n"
            "def test_camera(walt_nodes):\n    pass\n\n"
            "@pytest.mark.walt(all=3)\n"
            "def test_all(walt_nodes):\n    pass\n",
            "-rs",
        )
        self.assertIn("2 skipped", told)
        self.assertIn("camera: 1 nodes of model rpi-* are wanted, and there are 0", told)
        self.assertIn("all: 3 nodes of model * are wanted, and 2 can be had now", told)
        self.assertNotIn("tx:", told)

    async def test_mistakes_in_the_marker(self) -> None:
        """No roles, and needs that are none."""
        told = await self.run_pytest(
            "def test_none(walt_nodes):\n    pass\n\n"
            "@pytest.mark.walt(tx=True)\n"
            "def test_strange(walt_nodes):\n    pass\n",
            status=1,
        )
        self.assertIn("does not say which", told)
        self.assertIn("True is neither a pattern of models, nor a number", told)

    async def test_boot_that_fails(self) -> None:
        """The failure shows how far it came, and the console."""
        self.server.down(SECOND)
        self.server.progress.started(SECOND, "image change")
        self.server.platform.clock.advance(2)
        self.server.progress.reached(SECOND.mac, Stage.ADDRESS)
        self.server.platform.logs.write(SECOND.mac, "virtualconsole", "kernel panic", mode="chunk")
        told = await self.run_pytest(
            "@pytest.mark.walt(two=2)\n"
            "def test_two(walt_nodes):\n    pass\n",
            "--walt-boot-timeout", "0.3", status=1,
        )
        self.assertIn("node-2 is not booted.", told)
        self.assertIn("Asked for: image change; tries: 1; it reached:", told)
        self.assertIn("2.0 s  address", told)
        self.assertIn("kernel panic", told)

    async def test_fresh_nodes(self) -> None:
        """They are rebooted before the test."""
        told = await self.run_pytest(
            "@pytest.mark.walt(tx='pc-*')\n"
            "def test_fresh(walt_fresh_nodes):\n    pass\n",
            "--walt-boot-timeout", "0.3", status=1,
        )
        self.assertIn("is not booted.", told)
        self.assertIn("rebooted ok.", told)
        self.assertIn("Its console showed nothing", told)

    async def test_digests(self) -> None:
        """The report for other programs says which image each node booted."""
        for device in (NODE, SECOND):
            self.server.down(device)
            self.server.progress.started(device)
            self.server.platform.status.booted(device.mac)
            self.server.progress.on_status(device.mac, True, None)
        report = self.place / "report.xml"
        await self.run_pytest(
            "@pytest.mark.walt(tx='pc-*')\n"
            "def test_one(walt_nodes):\n    pass\n",
            f"--junitxml={report}",
        )
        self.assertRegex(
            report.read_text(), r'name="walt\.tx" value="node-[12] alice/[a-z]+:latest'
        )

    async def test_several_workers(self) -> None:
        """No two of them have the same node: they wait for each other."""
        told = await self.run_pytest(
            "import os, pathlib, time\n\n"
            "@pytest.mark.parametrize('number', range(6))\n"
            "@pytest.mark.walt(tx='pc-*')\n"
            "def test_alone(walt_nodes, number):\n"
            f"    lock = pathlib.Path({str(self.place)!r}, walt_nodes.tx.name)\n"
            "    lock.mkdir()\n"
            "    time.sleep(0.3)\n"
            "    lock.rmdir()\n",
            "-n", "3", "--walt-wait", "60",
        )
        self.assertIn("6 passed", told)

    async def test_the_page(self) -> None:
        """Its example is a file of tests."""
        page = (ROOT / "walt/doc/pytest.md").read_text()
        example = page.split("```python\n")[1].split("```")[0]
        told = await self.run_pytest(example, "--collect-only", "--strict-markers", server=False)
        self.assertIn("test_throughput", told)

    async def test_tests_without_nodes(self) -> None:
        """Need no server, and load nothing of WalT but the plugin."""
        await self.run_pytest(
            "import sys\n\n"
            "def test_nothing():\n"
            "    assert 'walt.client.scripting.link' not in sys.modules\n",
            server=False,
        )
