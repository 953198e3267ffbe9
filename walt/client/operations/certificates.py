"""Who may use the server from other machines."""

from __future__ import annotations

import time
from collections import namedtuple

from walt.client import settings
from walt.client.errors import Failure

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls


class Invitation(namedtuple("Invitation", ("host", "token", "expires", "reachable"))):
    """What a user or a machine enrols with, until `expires` (epoch seconds).

    `reachable` tells whether other machines can reach the server now.
    """

    __slots__ = ()


def invite(calls: Calls, name: str, kind: str) -> Invitation:
    """Let a "user" or a "machine" enrol, once."""
    answer = calls.call("ss.access.invite", name=name, kind=kind)
    return Invitation(
        answer[b"host"].decode(), answer[b"token"].decode(), float(answer[b"expires"]),
        answer[b"reachable"] == b"True",
    )


def enrolled_server() -> str:
    """Return the server of another machine whose certificate this account has.

    Raises Failure when there is none.
    """
    from walt.client import enrolment

    host = settings.server()
    if ":" in host.split(".")[0] or not enrolment.enrolled(host):
        raise Failure(
            "only certificates for servers of other machines are renewed; WALT_SERVER tells which"
        )
    return host


def certificates(calls: Calls) -> list[dict[str, Any]]:
    """Return the certificates ever made, each with its `state`: valid, expired or revoked."""
    rows = calls.json("ss.access.show", "rows")
    now = time.time()
    return [
        {**row, "state": (
            "revoked" if row["revoked"] else "expired" if row["expires"] <= now else "valid"
        )} for row in rows
    ]


def revoke(calls: Calls, name: str) -> tuple[int, int]:
    """End all certificates of a user or of a machine; return how many, and of ssh keys."""
    answer = calls.call("ss.access.revoke", name=name)
    return int(answer[b"count"]), int(answer.get(b"keys", 0))


def rotate(calls: Calls) -> None:
    """Make a new certificate authority; certificates of the old one stay valid."""
    calls.call("ss.access.rotate")
