"""Programs on nodes that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from walt.server.domain.nodes.sessions import ISession, ISessions


@implementer(ISession)
class FakeSession:
    """Remembers what it was asked."""

    def __init__(self, ip: str, command: str, **options: Any) -> None:
        self.ip = ip
        self.command = command
        self.options = options
        self.events: list[Any] = []

    def write(self, data: bytes) -> None:
        self.events.append(data)

    def end_of_input(self) -> None:
        self.events.append("end")

    def resize(self, rows: int, columns: int) -> None:
        self.events.append((rows, columns))

    def throttle(self, client: Any) -> None:
        self.client = client

    def pause(self) -> None:
        self.events.append("pause")

    def resume(self) -> None:
        self.events.append("resume")

    def close(self) -> None:
        self.events.append("close")


@implementer(ISessions)
class FakeSessions:
    """Makes fake sessions."""

    def __init__(self) -> None:
        self.made: list[FakeSession] = []
        self.error: Exception | None = None

    def node_command(self, ip: str, command: str, **options: Any) -> FakeSession:
        if self.error is not None:
            raise self.error
        self.made.append(FakeSession(ip, command, **options))
        return self.made[-1]

    def ping(self, ip: str, **options: Any) -> FakeSession:
        self.made.append(FakeSession(ip, "ping", **options))
        return self.made[-1]

    def program(self, argv: Sequence[str], **options: Any) -> FakeSession:
        self.made.append(FakeSession("", " ".join(argv), **options))
        return self.made[-1]

    def device_shell(self, ip: str, user: str, **options: Any) -> FakeSession:
        self.made.append(FakeSession(ip, user, **options))
        return self.made[-1]
