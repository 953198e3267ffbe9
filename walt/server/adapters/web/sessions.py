"""The sessions of browsers, in one file for root alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import Unavailable, in_words
from walt.common.files import write_durable
from walt.server.domain.access.interfaces import IWebSessionStore
from walt.server.domain.access.web_model import Entry, WebSession

_log = Logger()

VERSION = 2
T = TypeVar("T")


class Aside(Protocol):
    """Runs a function that waits for the disk, and gives what it returns."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""


@implementer(IWebSessionStore)
class WebSessionFile:
    """Keeps them in a file of mode 0600."""

    def __init__(self, path: Path, aside: Aside) -> None:
        self._path = path
        self._aside = aside

    async def load(self) -> list[WebSession]:
        """Return those saved last; a file that cannot be read means that people log in again."""
        try:
            text = await self._aside(self._path.read_text)
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            _log.warn("sessions of the web pages are lost: {error}", error=in_words(error))
            return []
        try:
            value = json.loads(text)
            if value["version"] != VERSION:
                return []
            return [_session(row) for row in value["sessions"]]
        except (ValueError, TypeError, KeyError):
            _log.warn("sessions of the web pages are lost: {path} is damaged", path=str(self._path))
            return []

    async def save(self, sessions: list[WebSession]) -> None:
        """Replace what is kept."""
        text = json.dumps({"version": VERSION, "sessions": [
            {
                "cookie": session.cookie, "key": session.key, "user": session.entry.user,
                "serial": session.entry.serial, "origin": session.entry.origin,
                "relayed": session.entry.relayed,
                "begun": session.begun, "used": session.used, "uid": session.uid,
            }
            for session in sessions
        ]})
        try:
            await self._aside(lambda: write_durable(self._path, text, 0o600))
        except OSError as error:
            raise Unavailable(
                f"sessions of the web pages cannot be kept in {self._path}: {in_words(error)}"
            ) from None


def _session(row: dict[str, Any]) -> WebSession:
    serial, uid = row["serial"], row["uid"]
    return WebSession(
        str(row["cookie"]), str(row["key"]),
        Entry(
            str(row["user"]), None if serial is None else str(serial), str(row["origin"]),
            bool(row["relayed"]),
        ),
        float(row["begun"]), float(row["used"]), None if uid is None else int(uid),
    )
