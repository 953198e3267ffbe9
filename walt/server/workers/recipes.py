"""Recipes that people send, made ready for the builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from walt.server.adapters.podman import recipes
from walt.server.workers.main import Progress


def prepare(arguments: dict[str, Any], progress: Progress) -> None:
    """Write to `target` what podman is to build of the directory `context` below `root`.

    `user` asks for it, `podman` is its version. Raises NotFound or Invalid.
    """
    made = recipes.prepare(
        Path(arguments["context"]), Path(arguments["root"]), arguments["user"],
        arguments["podman"],
    )
    Path(arguments["target"]).write_text(made)
