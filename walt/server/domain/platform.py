"""Operations of the platform itself: what runs, and how it is going."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rows = list[dict[str, Any]]


class Operations:
    """Health of daemons and progress of workflows, as rows for people and programs.

    `services` and `workflows` return fresh rows at each call.
    """

    def __init__(self, services: Callable[[], Rows], workflows: Callable[[], Rows]) -> None:
        self.services = services
        self.workflows = workflows
