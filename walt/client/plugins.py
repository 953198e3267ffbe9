"""Plugins of the client: Python packages installed beside it, with entry points of our groups.

Their files are read here, as importing `importlib.metadata` costs 50 ms and this is done at each
start (https://packaging.python.org/en/latest/specifications/entry-points/).
"""

from __future__ import annotations

import os
import sys

from walt.client.errors import Failure

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

HOOKS, CATEGORIES = "walt.client.hooks", "walt.client.categories"
_found: list[dict[str, dict[str, set[str]]]] = []


def names(group: str) -> list[str]:
    """Return the names that plugins offer in a group, sorted."""
    return sorted(_entries().get(group, {}))


def load(group: str, name: str) -> Any:
    """Return what a plugin offers under this name, None when there is none.

    Raises Failure when it cannot be loaded, or several plugins offer it.
    """
    values = _entries().get(group, {}).get(name)
    if not values:
        return None
    if len(values) > 1:
        raise Failure(f"several plugins offer {name}: {', '.join(sorted(values))}; keep one")
    (value,) = values
    module, _, attribute = value.partition(":")
    try:
        loaded = __import__(module, fromlist=["_"])
        for part in filter(None, attribute.split(".")):
            loaded = getattr(loaded, part)
        return loaded
    except Exception as error:
        raise Failure(
            f"the plugin {value} cannot be loaded: {error}; repair or remove it"
        ) from None


def call(name: str, *arguments: Any) -> Any:
    """Call a hook; None when there is none. Raises Failure when it fails."""
    hook = load(HOOKS, name)
    if hook is None:
        return None
    try:
        return hook(*arguments)
    except Failure:
        raise
    except Exception as error:
        raise Failure(
            f"the plugin of {name} failed: {type(error).__name__}: {error}; repair or remove it"
        ) from None


def _entries() -> dict[str, dict[str, set[str]]]:
    """Return objects by group and name, as `module:attribute`; read once."""
    if not _found:
        found: dict[str, dict[str, set[str]]] = {}
        for place in sys.path:
            for text in _texts(place or "."):
                _parse(text, found)
        _found.append(found)
    return _found[0]


def _texts(place: str) -> list[str]:
    try:
        packages = os.listdir(place)
    except OSError:
        return []
    texts = []
    for name in packages:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(place, name, "entry_points.txt"), "rb") as stream:
                    data = stream.read()
            except OSError:
                continue
            if b"walt.client." in data:
                texts.append(data.decode(errors="replace"))
    return texts


def _parse(text: str, found: dict[str, dict[str, set[str]]]) -> None:
    group = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif "=" in line and group in (HOOKS, CATEGORIES):
            name, _, value = line.partition("=")
            value = value.partition("[")[0].replace(" ", "")
            found.setdefault(group, {}).setdefault(name.strip(), set()).add(value)
