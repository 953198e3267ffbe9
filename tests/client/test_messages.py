"""What people read fits where they read it, and tells what they can do."""

from __future__ import annotations

import shlex
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.client.platform import Server, Walt
from tests.client.scripted import run
from tests.patience import patient
from walt.client import enrolment
from walt.client.errors import Failure
from walt.client.operations import log_export


class NarrowTests(TestCase):
    """Terminals of 40 columns."""

    timeout = patient(20)

    async def test_tables_can_be_read_on_forty_columns(self) -> None:
        """Row by row, a line for each cell; where they fit, and on other outputs, as tables."""
        server = Server(self)
        walt = Walt(server, "node", "show", terminal=True, columns=40)
        self.assertEqual(await walt.ended, 0)
        lines = walt.out.decode().replace("\r\n", "\n").split("\n")
        self.assertIn("name      node-1", lines)
        self.assertIn("booted    yes", lines)
        self.assertNotIn("----", walt.out.decode())
        for words, columns, terminal in (
            (["node", "show"], 80, True), (["node", "show"], 40, False),
        ):
            walt = Walt(server, *words, terminal=terminal, columns=columns)
            self.assertEqual(await walt.ended, 0)
            self.assertIn(b"name    type", walt.out)

    async def test_help_can_be_read_on_forty_columns(self) -> None:
        """No word is cut by the end of a line."""
        for words in (["--help"], ["node", "--help"], ["log", "show", "--help"]):
            walt = Walt(None, *words, terminal=True, columns=40)
            self.assertEqual(await walt.ended, 0)
            for line in walt.out.decode().splitlines():
                self.assertTrue(len(line) <= 40, line)


class AdviceTests(SynchronousTestCase):
    def test_the_right_pip_is_named(self) -> None:
        """A library that is missing goes to the Python that runs walt."""
        pip = f"{shlex.quote(sys.executable)} -m pip install "
        with mock.patch.dict(sys.modules, {"pyarrow": None}):
            error = self.assertRaises(Failure, log_export._Parquet, "/nonexistent")
        self.assertIn(pip + "pyarrow", str(error))
        with mock.patch.dict(sys.modules, {"cryptography": None}):
            error = self.assertRaises(Failure, enrolment._request)
        self.assertIn(pip + "cryptography", str(error))

    def test_help_of_advanced_tells_what_is_in_it(self) -> None:
        """Before its subcommands."""
        first = run("advanced", "--help", sessions=[]).out.splitlines()[0]
        for word in ("services", "certificates", "default images", "completion"):
            self.assertIn(word, first)

    def test_errors_of_the_system_are_told_in_words(self) -> None:
        """Whatever a command meets on this machine: one line, no traceback, no number."""
        with mock.patch("walt.client.commands.help.topics") as topics:
            topics.side_effect = PermissionError(13, "Permission denied", "/x/pages")
            outcome = run("help", "list", sessions=[])
        self.assertEqual(outcome.status, 1)
        self.assertEqual(outcome.err, "This machine refuses: /x/pages: Permission denied\n")
