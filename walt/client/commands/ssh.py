"""What commands about ssh and keys print."""

from __future__ import annotations

import sys

from walt.client import settings
from walt.client.operations import ssh
from walt.client.session import Session
from walt.client.terminal import Terminal


def proxy(node: str) -> int:
    """Carry standard input and output to the ssh server of a node (ProxyCommand of ssh).

    Returns 0 when the connection is over.
    """
    from walt.client import remote
    from walt.client.stream import Stream

    return remote.relay(Stream("REQ_TCP_TO_NODE", {"device": node, "port": ssh.PORT}))


def config(node_set: str, as_json: bool) -> None:
    """Print what belongs into ~/.ssh/config for nodes, or the same as JSON."""
    session = Session(Terminal())
    nodes = session.json("cs.nodes.get", "nodes", nodes=node_set)
    host_key = ssh.known(session)
    found = {node["name"]: ssh.options(node["name"], host_key) for node in nodes}
    if as_json:
        from walt.client.output import print_json

        print_json({name: dict(lines) for name, lines in found.items()})
    else:
        for name, lines in found.items():
            print(f"Host {name}")
            for key, value in lines:
                print(f"    {key} {value}")
    _warn(session, [node["name"] for node in nodes if ssh.owner(node) != settings.username()])


def _warn(session: Session, not_yours: list[str]) -> None:
    from walt.common.sentences import subject

    if not ssh.keys(session):
        print(
            "Nodes know no ssh key of yours yet; give them one: walt advanced add-ssh-key",
            file=sys.stderr,
        )
    if not_yours:
        print(
            f"{subject(not_yours)}: not yours, so not open to your ssh key."
            " See `walt help show node-ownership`.", file=sys.stderr,
        )


def add_key(path: str) -> None:
    """Let a public key of a file, of standard input (`-`) or of ~/.ssh into the user's nodes."""
    text = sys.stdin.read(ssh.MAX_FILE) if path == "-" else ssh.read_key(path)
    fingerprint, reached, missed = ssh.add_key(Session(Terminal()), text)
    print(f"Key {fingerprint} opens the nodes that you own.")
    if reached:
        print(f"It is on {', '.join(reached)} now.")
    _tell_missed(missed, "will have it when they boot again")


def remove_key(which: str) -> None:
    """Take a key away from the user's nodes."""
    fingerprint, missed = ssh.remove_key(Session(Terminal()), which)
    print(f"Key {fingerprint} opens no node any more.")
    _tell_missed(missed, "could not be reached: they know it until they boot again")


def _tell_missed(names: list[str], what: str) -> None:
    if names:
        print(f"{', '.join(names)}: {what}", file=sys.stderr)


def show_keys(as_json: bool) -> None:
    """Print the keys of the user."""
    rows = ssh.keys(Session(Terminal()))
    if as_json:
        from walt.client.output import print_json

        print_json(rows)
    elif not rows:
        print("Your nodes know no ssh key of yours. To give them one: walt advanced add-ssh-key")
    else:
        from walt.client.terminal import print_block, table

        print_block("Your ssh keys:", table(["type", "fingerprint", "comment"], rows))
