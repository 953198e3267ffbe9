"""A recorded program, and what its record tells."""

from __future__ import annotations

import importlib
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import ModuleType

from walt.server.trackexec import codes
from walt.server.trackexec.hook import Hook
from walt.server.trackexec.record import Record
from walt.server.trackexec.recorder import Recorder
from walt.server.trackexec.stacks import Stacks

SAMPLE = (Path(__file__).parent / "sample.py.txt").read_text()
_numbers = count()


def package(directory: Path, text: str = SAMPLE) -> str:
    """Make a package with one module, which can be imported; return the name of the package."""
    name = f"recorded_{next(_numbers)}"
    (directory / name).mkdir(parents=True)
    (directory / name / "__init__.py").write_text("")
    (directory / name / "program.py").write_text(text)
    return name


def load(directory: Path, name: str) -> ModuleType:
    """Import the module of a package."""
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(f"{name}.program")
    finally:
        sys.path.remove(str(directory))


def recorded(directory: Path, text: str = SAMPLE, early: bool = False) -> tuple[object, Path]:
    """Record `main()` of a program; return its result and the directory of the record.

    With `early` the module is there before it is recorded.
    """
    name = package(directory, text)
    if early:
        load(directory, name)
    where = directory / f"{name}.record"
    recorder = Recorder(where, print)
    recorder.start()
    hook = Hook(name, (), recorder.record, recorder.numbered)
    hook.install()
    try:
        module = load(directory, name)
        recorder.busy()
        result: object = module.main()
        recorder.idle()
    finally:
        hook.uninstall()
        recorder.stop()
    return result, where


def lines(record: Record) -> list[str]:
    """Return the stack at each line that was executed: `main:3 > inner:9`."""
    stacks = Stacks(record.source)
    found = []
    for entry in record.entries:
        for code in record.codes(entry) or ():
            stacks.follow(code)
            if codes.kind(code) == codes.LINE:
                found.append(" > ".join(
                    f"{one.function.name}:{one.line}" for one in stacks.stack
                ))
    return found


def in_child(code: str, *words: str) -> subprocess.Popen[str]:
    """Start Python with a code of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, cwd=Path(__file__).resolve().parents[3],
    )
