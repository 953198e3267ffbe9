"""Disk files of virtual nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from walt.common.virtual_disks import prepare as prepare_disks
from walt.server.workers.main import Progress


def prepare(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Make the disks of one node; see `walt.common.virtual_disks`."""
    return prepare_disks(Path(arguments["directory"]), arguments["disks"])
