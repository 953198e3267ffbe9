"""Print the nodes of a platform, from this machine or from another one.

    python docs/examples/nodes.py                   # on the server
    python docs/examples/nodes.py server.example    # elsewhere, after walt advanced enrol
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react

from walt.common.errors import WaltError
from walt.rpc.client import WaltClient, tls_endpoint, unix_endpoint
from walt.rpc.commands.nodes import ShowNodes


def endpoint(reactor: Any, where: str | None) -> IStreamClientEndpoint:
    """Return the way to a server: a socket, or a host this account is enrolled at."""
    if where is None:
        return unix_endpoint(reactor)
    if where.startswith("/"):
        return unix_endpoint(reactor, where)
    files = Path.home() / ".walt" / "servers" / where
    return tls_endpoint(
        reactor, where, authority=(files / "authority.pem").read_bytes(),
        certificate=(files / "certificate.pem").read_bytes(),
        key=(files / "key.pem").read_bytes(),
    )


async def main(reactor: Any, where: str | None = None) -> None:
    """Show one line for each node."""
    client = WaltClient(reactor, endpoint(reactor, where), program="nodes.py")
    client.startService()
    try:
        tables = (await client.call(ShowNodes, all=True))["tables"]
    except WaltError as error:
        raise SystemExit(f"nodes.py: {error}") from None
    for whose in ("own", "free", "others"):
        for row in tables[whose]:
            print(f"{row['name']}: {row['model']}, {row['ip']}, {whose}, booted: {row['booted']}")
    print(f"{tables['total']} nodes")
    await client.stopService()


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
