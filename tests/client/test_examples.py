"""The programs of docs/examples, against a platform that has nodes."""

from __future__ import annotations

import os
import sys

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.client.platform import BOBS, ROOT, SECOND, Server
from tests.patience import patient
from tests.server.streams.platform import NODE

EXAMPLES = ROOT / "docs" / "examples"


class ExampleTests(TestCase):
    timeout = patient(30)

    async def example(self, name: str) -> list[str]:
        """Run one as a program of the server's machine; return its lines."""
        server = Server(self)
        out, err, status = await getProcessOutputAndValue(
            sys.executable, (str(EXAMPLES / name), f"{server.directory}/rpc.sock"),
            {**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual((err, status), (b"", 0))
        return out.decode().splitlines()

    async def test_nodes(self) -> None:
        """Every node, whoever has it, and their number."""
        *lines, total = await self.example("nodes.py")
        self.assertEqual(total, "3 nodes")
        for node in (NODE, BOBS, SECOND):
            self.assertEqual(len([one for one in lines if one.startswith(f"{node.name}: ")]), 1)

    def test_each_is_tried(self) -> None:
        """A program that is added gets a test here."""
        self.assertEqual([path.name for path in EXAMPLES.glob("*.py")], ["nodes.py"])
