"""What sshd runs for whoever comes in through the tunnel (spec node-protocols §9.5).

    endpoint --socket PATH --subnet NETWORK --name NAME

`check-in-walt-net` tells a board whether it is in walt-net, `get-server-hostname` tells an
entry point whom it has reached; with anything else standard input and output carry frames, to
and from a device that the server opens at `PATH`. Runs as the account of the tunnel.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys
from ipaddress import IPv4Network, ip_address

from walt.common.errors import in_words
from walt.vpn.certificate import of_session
from walt.vpn.relay import relay

CHECK, NAME = "check-in-walt-net", "get-server-hostname"
LIMIT = 20.0  # seconds for the server to open a device
ANSWER = 4096  # bytes


class Refused(Exception):
    """The server does not let this tunnel be; the text says why."""


def check(client: str, subnet: str) -> int:
    """Print whether the other end of the connection is in walt-net; return the exit status.

    `client` is SSH_CLIENT (ssh(1)).
    """
    try:
        address = ip_address(client.split()[0].removeprefix("::ffff:"))
    except (IndexError, ValueError):
        address = None
    if address is not None and address in IPv4Network(subnet):
        print("OK")
        return 0
    print(f"FAILED -- {address or 'an unknown address'} is not in walt-net")
    return 1


def open_device(
    path: str, identity: str
) -> tuple[int, socket.socket]:
    """Return a descriptor of a device, and the connection that has to stay open meanwhile.

    Raises Refused, OSError.
    """
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(LIMIT)
    peer.connect(path)
    peer.sendall(json.dumps({"hello": identity}).encode() + b"\n")
    data, controls, _, _ = peer.recvmsg(ANSWER, socket.CMSG_SPACE(4))
    for level, kind, payload in controls:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors = array.array("i")
            descriptors.frombytes(payload[:4])
            peer.sendall(b"GOT\n")
            return descriptors[0], peer
    raise Refused(data.decode("utf-8", "replace").strip() or "the server does not answer")


def tunnel(path: str) -> int:
    """Carry frames until the end of the connection; return the exit status."""
    try:
        identity, until = of_session(os.environ.get("SSH_USER_AUTH", ""))
        device, peer = open_device(path, identity)
    except (OSError, ValueError, Refused) as error:
        print(f"walt-vpn: no tunnel: {in_words(error)}", file=sys.stderr)
        return 1
    with peer:
        end = relay(device, 0, 1, peer.fileno(), until)
    if end.fault:
        print(f"walt-vpn: {end.reason}", file=sys.stderr)
    return 1 if end.fault else 0


def run(words: list[str]) -> int:
    """Do what the other end asks for."""
    options = dict(zip(words[::2], words[1::2]))
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "").strip()
    if asked == CHECK:
        return check(os.environ.get("SSH_CLIENT", ""), options["--subnet"])
    if asked == NAME:
        print(options["--name"])
        return 0
    return tunnel(options["--socket"])


def main() -> None:
    """Run the command line."""
    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
