"""No text that a person reads holds the number of an error of the system."""

from __future__ import annotations

import ast
import errno
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import walt
from walt.common.errors import in_words

PACKAGE = Path(walt.__file__).parent
OF_THE_SYSTEM = ("OSError", "FileNotFoundError", "PermissionError", "ConnectionError")


def shown(handler: ast.ExceptHandler) -> Iterator[int]:
    """Yield the lines of a handler where the error itself becomes text."""
    for node in ast.walk(handler):
        values: list[ast.expr] = []
        if isinstance(node, ast.FormattedValue):
            values = [node.value]
        elif isinstance(node, ast.Call):
            values = [one.value for one in node.keywords]
            if isinstance(node.func, ast.Name) and node.func.id == "str":
                values += node.args
        for value in values:
            if isinstance(value, ast.BoolOp):
                value = value.values[0]
            if isinstance(value, ast.Name) and value.id == handler.name:
                yield node.lineno


class ReasonTests(SynchronousTestCase):
    def test_no_message_shows_the_number_of_an_error(self) -> None:
        """Wherever an error of the system is told, it is told in words."""
        found, count = [], 0
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                    names = {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)}
                    if names & set(OF_THE_SYSTEM):
                        count += 1
                        found += [f"{path}:{line}" for line in shown(node)]
        self.assertGreater(count, 40)
        self.assertEqual(found, [])

    def test_words(self) -> None:
        """The file and the reason; other errors as they are."""
        for error, text in (
            (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"),
             "/x: No such file or directory"),
            (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
             "Connection reset by peer"),
            (ValueError("too long"), "too long"), (TimeoutError(), "TimeoutError"),
        ):
            self.assertEqual(in_words(error), text)
