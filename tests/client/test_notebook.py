"""A notebook in a real kernel of Jupyter, with a platform that has nodes."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.client.platform import ROOT, Server
from tests.fakes.local_nodes import local_sessions
from tests.patience import patient
from tests.server.streams.platform import NODE
from walt.server.streams.node_command import NodeCommandRequest

# What runs a notebook: as `jupyter execute` does, in a process of its own.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=int(sys.argv[2]), kernel_name='python3').execute()
nbformat.write(book, sys.argv[1])
"""
CELLS = [
    "from walt.client import api\nnodes = api.nodes.get_nodes('node-1,node-2')\nnodes",
    "nodes['node-1']",
    "nodes['node-1'].run('echo 7', timeout=20).json() * 6",
    "[log.line for log in api.logs.get_logs(history='full', issuers='node-1')]",
    "api.logs.get_logs(history='full', issuers='node-1').to_pandas()",
    # The kernel has a loop of its own, which runs; calls of threads go on beside it.
    "import asyncio\nawait asyncio.to_thread(lambda: nodes['node-2'].name)",
    # What a kernel answers when a person presses the tabulator.
    "from IPython.core.completer import provisionalcompleter\n"
    "with provisionalcompleter():\n"
    "    found = get_ipython().Completer.completions('nodes.nod', 9)\n"
    "    texts = [one.text for one in found]\n"
    "texts",
]


def notebook(cells: list[str]) -> dict[str, Any]:
    """Return a notebook of code cells (nbformat 4)."""
    return {
        "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        "cells": [
            {
                "id": f"c{number}", "cell_type": "code", "metadata": {}, "outputs": [],
                "execution_count": None, "source": text,
            }
            for number, text in enumerate(cells)
        ],
    }


def page_cells() -> list[str]:
    """Return the cells of the page on notebooks."""
    text = (ROOT / "walt/doc/notebooks.md").read_text()
    return [part.partition("```")[0] for part in text.split("```python\n")[1:]]


class NotebookTests(TestCase):
    timeout = patient(120)

    def server(self) -> Server:
        """Return a platform whose nodes run commands here."""
        from twisted.internet import reactor

        server = Server(self)
        commands = server.platform.commands(local_sessions(reactor))
        server.platform.requests["REQ_NODE_CMD"] = partial(NodeCommandRequest, commands)
        return server

    async def test_cells(self) -> None:
        """Sets are tables, escaped; commands, logs, frames and completion work in a kernel."""
        server = self.server()
        platform = server.platform
        platform.logs.write(NODE.mac, "exp", "<b>one</b>")
        await platform.logs.flush()
        outputs = await self.execute(server, CELLS)
        self.assertIn("<table", outputs[0]["text/html"])
        self.assertIn("node-2", outputs[0]["text/html"])
        self.assertIn("-- virtual node node-1 --", outputs[1]["text/plain"])
        self.assertEqual(outputs[2]["text/plain"], "42")
        self.assertEqual(outputs[3]["text/plain"], "['<b>one</b>']")
        self.assertIn("&lt;b&gt;one&lt;/b&gt;", outputs[4]["text/html"])
        self.assertEqual(outputs[5]["text/plain"], "'node-2'")
        self.assertIn("node_1", outputs[6]["text/plain"])

    async def test_page(self) -> None:
        """The cells of the page on notebooks run as they are."""
        cells = page_cells()
        self.assertGreater(len(cells), 4)
        outputs = await self.execute(self.server(), cells)
        self.assertIn("<table", outputs[0]["text/html"])

    async def execute(self, server: Server, cells: list[str]) -> list[dict[str, str]]:
        """Run the cells; return, for each, what it shows as its value, by type."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        path = place / "book.ipynb"
        path.write_text(json.dumps(notebook(cells)))
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ("-c", EXECUTE, str(path), str(patient(60))), {
                **os.environ, "PYTHONPATH": str(ROOT), "HOME": str(place),
                "WALT_SERVER": f"unix:{server.directory}/rpc.sock", "WALT_USERNAME": "alice",
                "IPYTHONDIR": str(place / "ipython"), "LC_ALL": "C.UTF-8",
            }, str(place),
        )
        self.assertEqual(status, 0, (out + err).decode())
        found = []
        for cell in json.loads(path.read_text())["cells"]:
            data = [one["data"] for one in cell["outputs"] if "data" in one]
            found.append({
                kind: "".join(text) for kind, text in data[-1].items() if isinstance(text, list)
            } if data else {})
        return found
