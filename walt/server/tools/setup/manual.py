"""Manual pages of the programs of a server: what their modules say of themselves."""

from __future__ import annotations

import ast
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import walt
from walt.client.help.manual import manual
from walt.client.help.parse import parse
from walt.client.help.roff import page
from walt.server.tools.setup.steps import FirstFile, OwnFile

CLIENT = "walt.client.main:main"  # has pages of its own


def programs() -> dict[str, str]:
    """Return the page of each program by its path below a directory of manuals."""
    found = {}
    for entry in metadata.distribution("walt").entry_points:
        if entry.group != "console_scripts" or entry.value == CLIENT:
            continue
        summary, _, text = _docstring(entry.value.partition(":")[0]).partition("\n")
        # The first words of some name the program itself, which the page does already.
        about = summary.rpartition(": ")[2].rstrip(".").replace("`", "")
        found[f"man8/{entry.name}.8"] = page(
            entry.name, 8, about, parse(text, ()), version=walt.__version__
        )
    return found


def _docstring(module: str) -> str:
    """Return the docstring of a module, without running it."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


@cache
def _all() -> list[tuple[str, str]]:
    return sorted({**manual(), **programs()}.items())


def pages(prefix: str) -> list[OwnFile | FirstFile]:
    """Return all pages as files of a machine."""
    return [OwnFile(f"{prefix}/share/man/{name}", text) for name, text in _all()]
