"""The public schema: every command class says what it is."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import ERRORS
from walt.rpc import commands, schema
from walt.rpc.arguments import Float, Integer, IPAddress, Json, Mac, Names, Text
from walt.rpc.base import WaltCommand
from walt.rpc.commands.session import Hello

SIDES = {"cs", "ns", "ss", "vs", "enrol", "client", "any"}


def every_command() -> list[type[WaltCommand]]:
    """Return the command classes of every module of the schema."""
    found = {}
    for module in pkgutil.iter_modules(commands.__path__):
        loaded = importlib.import_module(f"{commands.__name__}.{module.name}")
        for one in vars(loaded).values():
            if isinstance(one, type) and issubclass(one, WaltCommand) and one is not WaltCommand:
                found[one.__qualname__] = one
    return list(found.values())


class SchemaTests(SynchronousTestCase):
    def test_page(self) -> None:
        """What docs/ has of it is what the commands say now; `make docs` writes it."""
        page = Path(__file__).resolve().parents[2] / "docs/amp.md"
        self.assertEqual(page.read_text(), schema.render())

    def test_there_are_commands(self) -> None:
        """The walk finds them."""
        self.assertGreater(len(every_command()), 20)

    def test_wire_names(self) -> None:
        """Unique; the answering side is the first word, but for hello and call-backs."""
        names = [one.commandName for one in every_command()]
        self.assertEqual(len(names), len(set(names)))
        for one in every_command():
            self.assertIn(one.side, SIDES, one)
            if one.side not in ("client", "any"):
                self.assertTrue(one.commandName.startswith(one.side.encode() + b"."), one)

    def test_docstrings(self) -> None:
        """Each says what for."""
        for one in every_command():
            self.assertTrue((one.__doc__ or "").strip().endswith("."), one)

    def test_every_error_is_declared(self) -> None:
        """Every command may fail with every error of walt.common.errors, by its wire code."""
        for one in every_command():
            for code, error in ERRORS.items():
                self.assertEqual(one.allErrors[error], code.encode(), one)

    def test_call_backs_need_no_answer(self) -> None:
        """The server never waits for a client."""
        for one in every_command():
            if one.side == "client":
                self.assertFalse(one.requiresAnswer, one)

    def test_hello_never_changes(self) -> None:
        """The shape of the first command is frozen."""
        self.assertEqual(Hello.commandName, b"hello")
        self.assertEqual(
            [name for name, _ in Hello.arguments],
            [b"program", b"version", b"protocol", b"username"],
        )
        self.assertEqual(
            [name for name, _ in Hello.response], [b"version", b"protocol", b"username"]
        )

    def test_argument_types(self) -> None:
        """Only types that check what they read, so that a wrong value is INVALID."""
        known = (Text, Json, Names, Mac, IPAddress, Integer, Float, amp.Boolean, amp.String)
        for one in every_command():
            for _, argument in [*one.arguments, *one.response]:
                self.assertIsInstance(argument, known)
