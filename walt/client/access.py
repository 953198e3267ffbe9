"""`walt advanced`: who may use the server from other machines."""

from __future__ import annotations

import sys
import time

from walt.client import settings
from walt.client.errors import Failure
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block, table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any


def invite(name: str, kind: str) -> None:
    """Print the command that a user or a machine enrols with."""
    answer = Session(Terminal()).call("ss.access.invite", name=name, kind=kind)
    host, token = answer[b"host"].decode(), answer[b"token"].decode()
    left = round((float(answer[b"expires"]) - time.time()) / 60)
    print(
        f"Within {left} minutes, type on the other machine:\n"
        f"    walt advanced enrol {host} {token}\n"
        f"It works once. If that machine knows this server by another name than {host}, use it,"
        " and name it in security.names of server.conf."
    )
    if answer[b"reachable"] != b"True":
        print(
            "No other machine can reach this server now: its network is apart"
            " (network.namespace in server.conf). `walt help show team-server` tells how to open"
            " it.", file=sys.stderr,
        )


def enrol(host: str, token: str) -> None:
    """Get a certificate for a server of another machine."""
    from walt.client import enrolment

    facts = enrolment.enrol(host, token)
    if facts["kind"] == "user":
        print(f"You may use the server at {host} as {facts['name']}, {_until(facts)}.")
    else:
        print(f"This account may use the server at {host} for any user, {_until(facts)}.")
    if not settings.named() and not settings.is_server():
        from walt.client import config_file

        config_file.update({"walt.server": host}, f"{host} as your server was")
    elif settings.server() != host:
        print(f"To use it: export WALT_SERVER={host}")


def renew() -> None:
    """Replace the certificate of this account by a fresh one."""
    from walt.client import enrolment

    host = settings.server()
    if ":" in host.split(".")[0] or not enrolment.enrolled(host):
        raise Failure(
            "only certificates for servers of other machines are renewed; WALT_SERVER tells which"
        )
    print(f"The certificate for {host} is renewed, {_until(enrolment.renew(host, Session()))}.")


def _until(facts: dict[str, Any]) -> str:
    return "until " + time.strftime("%Y-%m-%d", time.localtime(facts["expires"]))


def show(json: bool) -> None:
    """Print the certificates ever made."""
    rows = Session(Terminal()).json("ss.access.show", "rows")
    if json:
        from walt.client.output import print_json

        print_json(rows)
        return
    if not rows:
        print("Nobody has a certificate. To make one: walt advanced add-user NAME")
        return
    now = time.time()
    for row in rows:
        row["state"] = (
            "revoked" if row["revoked"] else "expired" if row["expires"] <= now else "valid"
        )
        for key in ("issued", "expires"):
            row[key] = time.strftime("%Y-%m-%d", time.localtime(row[key]))
        row["serial"] = row["serial"][:12]
    print_block("Certificates:", table(
        ["name", "kind", "state", "issued", "expires", "serial"], rows
    ))


def revoke(name: str) -> None:
    """End all certificates of a user or of a machine."""
    answer = Session(Terminal()).call("ss.access.revoke", name=name)
    count, keys = int(answer[b"count"]), int(answer.get(b"keys", 0))
    print(
        f"{count} certificate{'s' if count > 1 else ''} of {name} revoked; connections opened"
        " with them are closed."
    )
    if keys:
        print(f"{keys} ssh key{'s' if keys > 1 else ''} of {name} removed.")


def rotate() -> None:
    """Make a new certificate authority."""
    Session(Terminal()).call("ss.access.rotate")
    print(
        "The server has a new certificate authority. Certificates of the old one stay valid until"
        " they expire;\neach account takes the new one with: walt advanced renew"
    )
