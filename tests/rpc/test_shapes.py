"""What JSON answers look like, and what tells of others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walt.rpc.arguments import Json
from walt.rpc.base import ApiProtocol
from walt.rpc.commands.session import ShowWorkflows
from walt.rpc.schema import commands
from walt.rpc.shapes import OrNull, Pairs, Row, Rows, Shape, Tables, field

ROW = Row(name="text of it", size="number? bytes", names="texts of others", on="[truth] it is on")
GOOD = {"name": "a", "size": None, "names": ["b"]}


class ShapesTests(SynchronousTestCase):
    def wrong(self, shape: Shape, value: object) -> list[str]:
        """Return what a shape says of a value."""
        return list(shape.errors(value))

    def test_rows(self) -> None:
        """Fields are there, of their type, and described; null and lacking ones where told."""
        self.assertEqual(self.wrong(ROW, GOOD), [])
        self.assertEqual(self.wrong(ROW, {**GOOD, "size": 1.5, "on": True}), [])
        for change in (
            {"name": None}, {"name": 1}, {"size": "1"}, {"size": True}, {"names": [1]},
            {"names": "b"}, {"on": 1}, {"on": None}, {"more": 1},
        ):
            self.assertEqual(len(self.wrong(ROW, {**GOOD, **change})), 1, change)
        self.assertEqual(self.wrong(ROW, {"size": 1, "names": []}), [".name is missing"])
        self.assertEqual(self.wrong(Rows(ROW), [GOOD, 1]), ["[1] is no object"])
        self.assertEqual(self.wrong(Rows(ROW), GOOD), ["it is no list"])

    def test_other_shapes(self) -> None:
        """Tables with numbers beside them, pairs, null."""
        tables = Tables(ROW, "own", total="of all")
        self.assertEqual(self.wrong(tables, {"own": [GOOD], "total": 1}), [])
        self.assertEqual(len(self.wrong(tables, {"own": [GOOD, 1], "total": "1"})), 2)
        self.assertEqual(len(self.wrong(tables, {"own": []})), 1)
        listed = tables.listed("name", "size")
        good = {"columns": ["name", "size"], "own": [["a", None], ["b", 1]], "total": 2}
        self.assertEqual(self.wrong(listed, good), [])
        for change in (
            {"columns": ["size", "name"]}, {"own": [["a"]]}, {"own": [[None, 1]]},
            {"total": None}, {"more": 1},
        ):
            self.assertEqual(len(self.wrong(listed, {**good, **change})), 1, change)
        pairs = Pairs("number epoch seconds", "text name")
        self.assertEqual(self.wrong(pairs, [(1.5, "a"), [2, "b"]]), [])
        self.assertEqual(len(self.wrong(pairs, [("a", 1.5), [2]])), 2)
        self.assertEqual(self.wrong(OrNull(ROW), None), [])
        self.assertEqual(len(self.wrong(OrNull(ROW), 1)), 1)
        self.assertRaises(ValueError, field, "word what it means")

    def test_every_answer_is_described(self) -> None:
        """JSON that the server answers has a shape; the other types say theirs themselves."""
        bare = [
            f"{one.commandName.decode()}: {name.decode()}"
            for one in commands() for name, kind in one.response
            if type(kind) is Json and kind.shape is None
        ]
        self.assertEqual(bare, [])

    def test_answers_are_compared(self) -> None:
        """In tests, an answer that is something else fails (tests/guard.py)."""
        protocol = ApiProtocol()
        protocol._answer(None, ShowWorkflows, {"rows": []})
        self.assertRaises(
            AssertionError, protocol._answer, None, ShowWorkflows, {"rows": [{"name": "a"}]}
        )
