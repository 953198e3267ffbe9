"""A connection to the server of this user, which said hello."""

from __future__ import annotations

import sys

import walt
from walt.client import settings
from walt.client.connection import Connection, open_tcp, open_unix
from walt.client.errors import NoServer, Refused

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.connection import Link
    from walt.client.terminal import Terminal

PROTOCOL = 1


def connect(target: settings.Target) -> Link:
    """Open a connection to a server; Failure says what to do.

    A plugin may help where there is no answer, once: it starts a tunnel, or a server.
    """
    try:
        return _opened(target)
    except NoServer as failure:
        from walt.client import plugins

        if not plugins.call(
            "failing-server-socket", target.path or f"{target.host}:{target.port}", str(failure)
        ):
            raise
    return _opened(target)


def _opened(target: settings.Target) -> Link:
    if target.path is not None:
        return open_unix(target.path)
    raw = open_tcp((target.host, target.port))
    if not target.encrypted:
        return raw
    from walt.client import enrolment, tls

    return tls.wrap(raw, enrolment.context(target.host), target.host)


class Session(Connection):
    """A connection to the server of this user, which said hello."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        target = settings.rpc_target()
        if target.path is None and target.encrypted:
            from walt.client import enrolment

            warning = enrolment.warning(target.host)
            if warning is not None:
                print(f"WARNING: {warning}", file=sys.stderr)
        super().__init__(connect(target), terminal)
        try:
            self.call(
                "hello", program="walt", version=walt.__version__, protocol=PROTOCOL,
                username=settings.username(),
            )
        except Refused as refused:
            if refused.code != "VERSION_MISMATCH" or (
                target.path is None and not target.encrypted
            ):
                raise  # no program is installed that came over an open connection
            from walt.client import upgrade

            upgrade.offer(self, refused)

    def without_indicator(self) -> Session:
        """Show no busy indicator any more: something else owns the screen."""
        self._terminal = None
        return self
