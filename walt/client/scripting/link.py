"""Calls of scripts: a connection for each thread, opened at the first call."""

from __future__ import annotations

import os
import threading
import time

import walt
from walt.client import settings
from walt.client.answers import Answer
from walt.client.connection import Connection
from walt.client.errors import Refused
from walt.client.exceptions import TimeoutException
from walt.client.session import PROTOCOL, connect

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from typing import Any


class _Session(Connection):
    """A connection whose calls end at a moment (`deadline`, of time.monotonic), if there is one."""

    deadline: float | None = None

    def _receive(self) -> bytes:
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutException
        self._socket.settimeout(left)
        try:
            return super()._receive()
        except TimeoutError:
            raise TimeoutException from None
        finally:
            self._socket.settimeout(None)


def _open() -> tuple[_Session, str]:
    """Return a session and the version of the server. Raises Failure."""
    session = _Session(connect(settings.rpc_target()))
    try:
        hello = session.call(
            "hello", program="walt", version=walt.__version__, protocol=PROTOCOL,
            username=settings.username(),
        )
    except BaseException:
        session.close()
        raise
    return session, hello[b"version"].decode()


class Link(threading.local):
    """The calls of this thread. A process that was forked opens connections of its own.

    A call that did not end, by ctrl-C or a time limit, is given up with its connection: what
    the server does for it is cancelled, and the next call opens another one.
    """

    _session: _Session | None = None
    _pid = 0
    server_version = ""

    def call(
        self, command: str, /, *, time_limit: float | None = None, **arguments: Any
    ) -> Answer:
        """Return the answer of a command, as Connection.call does.

        Raises TimeoutException when it takes more than `time_limit` seconds.
        """
        session = self._current()
        session.deadline = None if time_limit is None else time.monotonic() + time_limit
        try:
            return session.call(command, **arguments)
        except Refused:
            raise
        except BaseException:
            self.close()
            raise

    def json(self, command: str, name: str, look: Any = object, /, **arguments: Any) -> Any:
        """Return one JSON value of the answer of a command, which looks so (`answers.Answer`)."""
        return self.call(command, **arguments).json(name, look)

    def close(self) -> None:
        """Close the connection of this thread, if there is one."""
        session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            session.close()

    def _current(self) -> _Session:
        if self._session is not None and (self._pid != os.getpid() or self._session.gone()):
            self.close()
        if self._session is None:
            self._session, self.server_version = _open()
            self._pid = os.getpid()
        return self._session


LINK = Link()
