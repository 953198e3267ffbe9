"""What commands of `walt advanced` about users of other machines print."""

from __future__ import annotations

import sys
import time

from walt.client import settings
from walt.client.formats import DAY, moment
from walt.client.operations import certificates
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block, table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any



def invite(name: str, kind: str) -> None:
    """Print the command that a user or a machine enrols with."""
    host, token, expires, reachable = certificates.invite(Session(Terminal()), name, kind)
    left = round((expires - time.time()) / 60)
    print(
        f"Within {left} minutes, type on the other machine:\n"
        f"    walt advanced enrol {host} {token}\n"
        f"It works once. If that machine knows this server by another name than {host}, use it,"
        " and name it in security.names of server.conf."
    )
    if not reachable:
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

    host = certificates.enrolled_server()
    print(f"The certificate for {host} is renewed, {_until(enrolment.renew(host, Session()))}.")


def _until(facts: dict[str, Any]) -> str:
    return f"until {moment(facts['expires'], DAY)}"


def show(json: bool) -> None:
    """Print the certificates ever made."""
    rows = certificates.certificates(Session(Terminal()))
    if json:
        from walt.client.output import print_json

        print_json([{key: row[key] for key in row if key != "state"} for row in rows])
        return
    if not rows:
        print("Nobody has a certificate. To make one: walt advanced add-user NAME")
        return
    for row in rows:
        for key in ("issued", "expires"):
            row[key] = moment(row[key], DAY)
        row["serial"] = row["serial"][:12]
    print_block("Certificates:", table(
        ["name", "kind", "state", "issued", "expires", "serial"], rows
    ))


def revoke(name: str) -> None:
    """End all certificates of a user or of a machine."""
    count, keys = certificates.revoke(Session(Terminal()), name)
    print(
        f"{count} certificate{'s' if count > 1 else ''} of {name} revoked; connections opened"
        " with them are closed."
    )
    if keys:
        print(f"{keys} ssh key{'s' if keys > 1 else ''} of {name} removed.")


def rotate() -> None:
    """Make a new certificate authority."""
    certificates.rotate(Session(Terminal()))
    print(
        "The server has a new certificate authority. Certificates of the old one stay valid until"
        " they expire;\neach account takes the new one with: walt advanced renew"
    )
