"""Loads modules with the calls that record them, and changes functions that are there already."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import chain, repeat
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from walt.server.trackexec.codes import INVOCATIONS, RESUME, resumed
from walt.server.trackexec.transform import NUMBER, RECORD, transform

# Gives the number of a file in the record, or None for one that is not recorded.
Numbered = Callable[[Path, bytes], int | None]


class Hook(MetaPathFinder):
    """Records the modules of one package that are imported after `install`."""

    def __init__(
        self, package: str, without: Sequence[str], record: Callable[[int], None],
        numbered: Numbered,
    ) -> None:
        self._package = package
        self._without = tuple(without)
        self._numbered = numbered
        first = resumed(0) if INVOCATIONS else RESUME
        numbers = chain.from_iterable(repeat(range(first, first + INVOCATIONS)))
        self._names = {RECORD: record, NUMBER: numbers.__next__}

    def install(self) -> None:
        """Record what is imported from now on, and what was imported already."""
        sys.meta_path.insert(0, self)
        for name, module in sorted(sys.modules.items()):
            if self._wanted(name):
                self._change(module)

    def uninstall(self) -> None:
        """Load further modules as they are; those loaded stay recorded."""
        sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that is to be recorded."""
        if not self._wanted(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(fullname, spec.loader.path, self)
        return spec

    def compiled(self, path: str, source: bytes) -> CodeType | None:
        """Return the code of a module with its calls, or None when there is no room for it."""
        number = self._numbered(Path(path), source)
        if number is None:
            return None
        return compile(transform(source, path, number), path, "exec", dont_inherit=True)

    def prepare(self, module: ModuleType) -> None:
        """Give a module what the calls need."""
        vars(module).update(self._names)

    def _wanted(self, name: str) -> bool:
        def within(package: str) -> bool:
            return name == package or name.startswith(package + ".")

        return within(self._package) and not any(map(within, self._without))

    def _change(self, module: ModuleType) -> None:
        """Put recorded code into the functions of a module, which others hold already."""
        path = getattr(module, "__file__", None)
        if path is None or not path.endswith(".py"):
            return
        code = self.compiled(path, Path(path).read_bytes())
        if code is None:
            return
        self.prepare(module)
        new = {inner.co_qualname: inner for inner in _codes(code)}
        for function in _functions(module):
            changed = new.get(function.__code__.co_qualname)
            if changed is not None and changed.co_freevars == function.__code__.co_freevars:
                function.__code__ = changed


class _Loader(SourceFileLoader):
    """Compiles with the calls; keeps nothing beside the sources, where others would find it."""

    def __init__(self, fullname: str, path: str, hook: Hook) -> None:
        super().__init__(fullname, path)
        self._hook = hook

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self._hook.compiled(path, self.get_data(path)) or super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        self._hook.prepare(module)
        super().exec_module(module)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Return the codes of all functions in a code."""
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _codes(const)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Return the functions of a module and of its classes."""
    left = list(vars(module).values())
    seen = set()
    while left:
        member = left.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if isinstance(member, property):
            left += [member.fget, member.fset, member.fdel]
        elif isinstance(member, FunctionType):
            if member.__module__ == module.__name__:
                yield member
                left.append(getattr(member, "__wrapped__", None))
        elif isinstance(member, type) and member.__module__ == module.__name__:
            left += vars(member).values()
        else:
            left.append(getattr(member, "__wrapped__", None))
