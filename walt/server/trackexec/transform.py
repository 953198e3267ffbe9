"""Puts a call that records a code before each statement inside functions.

The call is one of C, `array.append`, with a constant: measured, the whole costs a fourth of
`sys.settrace`. Functions also tell when they begin and end; coroutines and generators, which
have a number for each invocation, when they are about to wait and when they go on. Line numbers
stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import cast

from walt.server.trackexec.codes import ENTER, LEAVE, LINE, LINES, SUSPEND, place

# Names inside recorded modules.
RECORD = "_trackexec_record"
NUMBER = "_trackexec_number"  # makes numbers, where a module is
MINE = "_trackexec_mine"  # the number of this invocation, where a function is

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def transform(source: str | bytes, path: str, file: int) -> ast.Module:
    """Return the tree of a module with the calls in it.

    `file` is the number of the module in the record. Raises SyntaxError as `ast.parse` does.
    """
    tree = ast.parse(source, path)
    _Functions(file).visit(tree)
    return ast.fix_missing_locations(tree)


def waits(function: _Function) -> bool:
    """Tell whether a function is a coroutine or a generator."""
    return isinstance(function, ast.AsyncFunctionDef) or any(
        isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own_nodes(function)
    )


def own_nodes(function: _Function) -> list[ast.AST]:
    """Return what lies in the body of a function, without functions and classes inside it."""
    found: list[ast.AST] = []
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            left += ast.iter_child_nodes(node)
    return found


class _Functions(ast.NodeTransformer):
    """Finds the functions of a module, also those inside others."""

    def __init__(self, file: int) -> None:
        self._file = file

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: _Function) -> ast.AST:
        numbered = waits(node)
        body = node.body
        head: list[ast.stmt] = []
        if ast.get_docstring(node, clean=False) is not None:
            head, body = body[:1], body[1:]
        self.generic_visit(node)
        if not body or node.lineno >= LINES:
            return node
        calls = _Calls(self._file, numbered)
        changed = calls.block(body)
        start = [calls.place(ENTER, node)]
        end = [calls.place(LEAVE, node)]
        if numbered:
            start += [_number(node), calls.go_on(node)]
            end = [calls.go_on(node), *end]
        whole = ast.copy_location(ast.Try(changed, [], [], end), body[0])
        node.body = [*head, *start, whole]
        return node


def _number(near: ast.AST) -> ast.stmt:
    call = ast.Call(ast.Name(NUMBER, ast.Load()), [], [])
    return _at(ast.Assign([ast.Name(MINE, ast.Store())], call, lineno=0), near)


def _at(node: ast.stmt, near: ast.AST) -> ast.stmt:
    for inner in ast.walk(node):
        ast.copy_location(inner, near)
    return node


class _Calls(ast.NodeTransformer):
    """Puts the calls into the body of one function."""

    def __init__(self, file: int, numbered: bool) -> None:
        self._file = file
        self._numbered = numbered

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Return statements with the calls between them."""
        found: list[ast.stmt] = []
        for statement in statements:
            found.append(self.place(LINE, statement))
            implicit = isinstance(statement, (ast.AsyncWith, ast.AsyncFor))
            if implicit:
                found.append(self.place(SUSPEND, statement))
            found.append(cast(ast.stmt, self.visit(statement)))
            if implicit:
                found.append(self.go_on(statement))
        return found

    def place(self, kind: int, near: ast.stmt) -> ast.stmt:
        """Return the call that records a place."""
        return _at(ast.Expr(self._record(ast.Constant(self._code(kind, near)))), near)

    def go_on(self, near: ast.AST) -> ast.stmt:
        """Return the call that records that this invocation goes on."""
        return _at(ast.Expr(self._record(ast.Name(MINE, ast.Load()))), near)

    def _code(self, kind: int, near: ast.stmt | ast.expr) -> int:
        return place(kind, self._file, min(near.lineno, LINES - 1))

    @staticmethod
    def _record(value: ast.expr) -> ast.expr:
        return ast.Call(ast.Name(RECORD, ast.Load()), [value], [])

    # -- what is not looked into ---------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef  # type: ignore

    # -- statements with blocks ------------------------------------------------

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Go through the blocks of a statement as blocks, and through all else."""
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                block = self.block(value)
                if self._numbered and self._may_follow_a_wait(node, name):
                    block.insert(0, self.go_on(value[0]))
                if isinstance(node, (ast.AsyncWith, ast.AsyncFor)) and name == "body":
                    block.append(self.place(SUSPEND, node))
                setattr(node, name, block)
            elif isinstance(value, list):
                value[:] = [
                    self.visit(child) if isinstance(child, ast.AST) else child for child in value
                ]
            elif isinstance(value, ast.AST):
                setattr(node, name, self.visit(value))
        return node

    @staticmethod
    def _may_follow_a_wait(node: ast.AST, name: str) -> bool:
        """Tell whether a block begins after something that waited and may have failed."""
        return (
            isinstance(node, ast.ExceptHandler) or name == "finalbody"
            or isinstance(node, (ast.AsyncWith, ast.AsyncFor))
        )

    # -- expressions that wait -------------------------------------------------

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        node.value = self._then(node.value, ast.Constant(self._code(SUSPEND, node)))
        return self._then(node, ast.Name(MINE, ast.Load()))

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        self.generic_visit(node)
        value = node.value or ast.copy_location(ast.Constant(None), node)
        node.value = self._then(value, ast.Constant(self._code(SUSPEND, node)))
        return self._then(node, ast.Name(MINE, ast.Load()))

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.AST:
        self.generic_visit(node)
        node.value = self._then(node.value, ast.Constant(self._code(SUSPEND, node)))
        return self._then(node, ast.Name(MINE, ast.Load()))

    def _then(self, value: ast.expr, recorded: ast.expr) -> ast.expr:
        """Return `(value, record(recorded))[0]`."""
        pair = ast.Tuple([value, self._record(recorded)], ast.Load())
        found = ast.Subscript(pair, ast.Constant(0), ast.Load())
        for node in (pair, found, *ast.walk(pair.elts[1])):
            ast.copy_location(node, value)
        return found

