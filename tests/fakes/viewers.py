"""Somebody who watches topics."""

from __future__ import annotations

import json
from typing import Any

from zope.interface import implementer

from walt.server.domain.topics import IViewer


@implementer(IViewer)
class FakeViewer:
    """Keeps what it is sent; `late` is set by tests."""

    def __init__(self) -> None:
        self.late = False
        self.got: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.got.append(message)

    def last(self) -> Any:
        """Return the last message, and forget all."""
        message, self.got = self.got[-1], []
        return json.loads(message)
