"""The sources of a record: which function a line is in, what a line waits for."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from walt.server.trackexec.transform import own_nodes, waits

_Function = ast.FunctionDef | ast.AsyncFunctionDef

IMPLICIT = frozenset({"__aenter__", "__aexit__", "__aiter__", "__anext__"})


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a file; `name` is qualified, as `Class.method`."""

    file: int
    name: str
    line: int
    waits: bool


class Source:
    """A file as it was when it was recorded; of one that is no Python, its lines alone."""

    def __init__(self, number: int, path: str, text: str) -> None:
        self.number = number
        self.path = path
        self._text = text
        self.lines = text.splitlines()

    @property
    def short(self) -> str:
        """The path from the package on."""
        parts = Path(self.path).parts
        return str(Path(*parts[parts.index("walt"):])) if "walt" in parts else self.path

    def text(self, line: int) -> str:
        """Return a line of it."""
        return self.lines[line - 1] if 0 < line <= len(self.lines) else ""

    def function(self, line: int) -> Function:
        """Return the innermost function around a line; lines outside have one of their own."""
        found = self._places.around.get(line)
        if found is None:
            found = self._places.around[line] = Function(self.number, "?", line, False)
        return found

    def defining(self, line: int) -> Function | None:
        """Return the function in which another one begins at a line."""
        return self._places.defining.get(line)

    def awaited(self, line: int) -> frozenset[str]:
        """Return the names of what is called where something waits in a line."""
        return self._places.awaited.get(line, frozenset())

    def functions(self, name: str) -> list[Function]:
        """Return the functions that have a name, qualified or not."""
        if f"def {name.rpartition('.')[2]}" not in self._text:
            return []
        found = {id(function): function for function in self._places.around.values()}
        return [
            function for function in found.values()
            if name in (function.name, function.name.rpartition(".")[2])
        ]

    @cached_property
    def _places(self) -> _Places:
        places = _Places()
        try:
            tree = ast.parse(self._text)
        except (SyntaxError, ValueError, RecursionError):
            return places
        _walk(tree, "", self.number, places)
        return places


class _Places:
    """What is found in a file, by line."""

    def __init__(self) -> None:
        self.around: dict[int, Function] = {}
        self.defining: dict[int, Function] = {}
        self.awaited: dict[int, frozenset[str]] = {}


def _walk(node: ast.AST, prefix: str, file: int, places: _Places) -> None:
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}{child.name}."
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _function(child, Function(file, name[:-1], child.lineno, waits(child)), places)
        _walk(child, name, file, places)


def _function(node: _Function, function: Function, places: _Places) -> None:
    """Note a function; those inside it come later, and take their lines."""
    if node.lineno in places.around:
        places.defining[node.lineno] = places.around[node.lineno]
    for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        places.around[line] = function
    for inner in own_nodes(node):
        if isinstance(inner, (ast.Await, ast.YieldFrom)):
            _note(places, inner.lineno, {inner.value})
        elif isinstance(inner, ast.AsyncWith):
            _note(places, inner.lineno, {item.context_expr for item in inner.items}, IMPLICIT)
        elif isinstance(inner, ast.AsyncFor):
            _note(places, inner.lineno, {inner.iter}, IMPLICIT)


def _note(
    places: _Places, line: int, values: set[ast.expr], names: frozenset[str] = frozenset()
) -> None:
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for value in values for node in ast.walk(value)
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name))
    }
    places.awaited[line] = places.awaited.get(line, frozenset()) | called | names
