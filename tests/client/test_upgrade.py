"""The upgrade path of the client, where no server is needed."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from walt.client import upgrade
from walt.client.errors import Failure, Refused
from walt.server.tools import client_wheel

REFUSED = Refused("other version", "VERSION_MISMATCH")


class FakeConnection:
    """Gives pieces of a package."""

    def __init__(self, name: str, data: bytes, piece: int = 3, size: int | None = None) -> None:
        self.name, self.data, self.piece = name, data, piece
        self.size = len(data) if size is None else size

    def call(self, command: str, *, offset: int) -> dict[bytes, bytes]:
        return {
            b"name": self.name.encode(), b"size": b"%d" % self.size,
            b"data": self.data[offset:offset + self.piece],
        }


class UpgradeTests(SynchronousTestCase):
    def test_nobody_is_asked(self) -> None:
        """Without a terminal, or after an upgrade that changed nothing: the error."""
        connection: Any = FakeConnection("walt-1.0-py3-none-any.whl", b"x")
        self.assertRaises(Refused, upgrade.offer, connection, REFUSED)
        with mock.patch("walt.client.upgrade.both_terminals", return_value=True), \
                mock.patch.dict(os.environ, {upgrade.DONE: "1"}):
            self.assertRaises(Refused, upgrade.offer, connection, REFUSED)

    def test_fetched(self) -> None:
        """All pieces, in a new directory; what is no package is refused."""
        good: Any = FakeConnection("walt-11.0-py3-none-any.whl", b"12345678")
        path = upgrade.fetched(good)
        self.addCleanup(shutil.rmtree, os.path.dirname(path))
        self.assertEqual(Path(path).read_bytes(), b"12345678")
        for name, data, size in (
            ("../x.whl", b"1", 1), ("-walt-1.whl", b"1", 1), ("walt-1-py3-none-any.whl", b"", 5),
            ("walt-1-py3-none-any.whl", b"1", 1 << 40),
        ):
            bad: Any = FakeConnection(name, data, size=size)
            self.assertRaises(Failure, upgrade.fetched, bad)

    def test_wheel(self) -> None:
        """The same release makes the same wheel; it holds what clients and nodes run."""
        first, second = (Path(self.mktemp()) for _ in range(2))
        made = []
        for place in (first, second):
            place.mkdir()
            made.append(client_wheel.build(place).read_bytes())
        self.assertEqual(made[0], made[1])
        names = zipfile.ZipFile(first / client_wheel.NAME).namelist()
        for name in ("walt/client/main.py", "walt/doc/tutorial.md", "walt/node/logs/daemon.py"):
            self.assertIn(name, names)
        self.assertFalse([name for name in names if "__pycache__" in name])
