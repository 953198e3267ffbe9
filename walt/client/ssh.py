"""ssh programs of this machine and the nodes: their way through the server, keys, known hosts."""

from __future__ import annotations

import json
import os
import shlex
import sys

from walt.client import settings
from walt.client.errors import Failure
from walt.client.session import Session
from walt.client.terminal import Terminal

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

PORT = 22
MAX_FILE = 64 * 1024  # bytes of a file with a key
USUAL = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")  # what ssh itself offers


def proxy(node: str) -> int:
    """Carry standard input and output to the ssh server of a node (ProxyCommand of ssh).

    Returns 0 when the connection is over.
    """
    from walt.client import remote
    from walt.client.stream import Stream

    return remote.relay(Stream("REQ_TCP_TO_NODE", {"device": node, "port": PORT}))


def known(session: Session) -> tuple[str, str]:
    """Return the alias of all nodes' host key, and the file of known hosts that has it.

    The file is written if need be.
    """
    answer = session.call("cs.keys.host")
    return answer[b"name"].decode(), _write_known_hosts(answer[b"line"].decode())


def options(node: str, host_key: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the options of ssh (ssh_config(5)) that lead to a node, values as they are written.

    `host_key` is what `known` returns.
    """
    alias, known_hosts = host_key
    # ssh gives the command to a shell, after it replaced what begins with %.
    command = " ".join(map(shlex.quote, [*_program(), "node", "ssh-proxy", node]))
    return [
        ("HostName", node), ("User", "root"), ("ProxyCommand", command.replace("%", "%%")),
        ("HostKeyAlias", alias), ("UserKnownHostsFile", _quoted(known_hosts)),
        ("GlobalKnownHostsFile", "/dev/null"), ("StrictHostKeyChecking", "yes"),
        ("CheckHostIP", "no"),
    ]


def _quoted(path: str) -> str:
    if '"' in path or "\n" in path:
        raise Failure(f"ssh cannot use a file with such a name: {path}")
    return '"' + path.replace("%", "%%") + '"'


def _program() -> list[str]:
    """Return how this walt is run again, from any directory."""
    here = os.path.abspath(sys.argv[0])
    if os.path.basename(here).startswith("walt") and os.access(here, os.X_OK):
        beside = os.path.join(os.path.dirname(here), "walt")
        if os.access(beside, os.X_OK):
            return [beside]
    return [sys.executable, "-m", "walt.client.main"]


def _write_known_hosts(line: str) -> str:
    """Put the key of nodes of this server into a file of its own; return its path."""
    from walt.common.files import write_atomic

    where = settings.server()
    name = "".join(one if one.isalnum() or one in ".-" else "_" for one in where)
    directory = os.path.join(os.path.expanduser("~"), ".walt", "known_hosts")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, name)
    try:
        with open(path, encoding="utf-8") as stream:
            same = stream.read() == line + "\n"
    except OSError:
        same = False
    if not same:
        from pathlib import Path

        write_atomic(Path(path), line + "\n")
    return path


def config(node_set: str, as_json: bool) -> None:
    """Print what belongs into ~/.ssh/config for nodes, or the same as JSON."""
    session = Session(Terminal())
    nodes = session.json("cs.nodes.get", "nodes", nodes=node_set)
    host_key = known(session)
    found = {node["name"]: options(node["name"], host_key) for node in nodes}
    if as_json:
        from walt.client.output import print_json

        print_json({name: dict(lines) for name, lines in found.items()})
    else:
        for name, lines in found.items():
            print(f"Host {name}")
            for key, value in lines:
                print(f"    {key} {value}")
    _warn(session, [one["name"] for one in nodes if owner(one) != settings.username()])


def owner(node: dict[str, Any]) -> str:
    """Return the user whose image a node boots."""
    return str(node["image"] or "").split("/", 1)[0]


def _warn(session: Session, not_yours: list[str]) -> None:
    from walt.common.sentences import subject

    if not session.json("cs.keys.list", "rows"):
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
    from walt.common.sshkeys import parse

    text = _read(path)
    try:
        parse(text)  # a private key does not leave this machine
    except ValueError as error:
        raise Failure(str(error)) from None
    answer = Session(Terminal()).call("cs.keys.add", key=text)
    reached, missed = json.loads(answer[b"reached"]), json.loads(answer[b"missed"])
    print(f"Key {answer[b'fingerprint'].decode()} opens the nodes that you own.")
    if reached:
        print(f"It is on {', '.join(reached)} now.")
    _tell_missed(missed, "will have it when they boot again")


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read(MAX_FILE)
        with open(path or _usual(), encoding="utf-8", errors="replace") as stream:
            return stream.read(MAX_FILE)
    except OSError as error:
        from walt.common.errors import in_words

        raise Failure(f"the key cannot be read: {in_words(error)}") from None


def _usual() -> str:
    for name in USUAL:
        path = os.path.join(os.path.expanduser("~"), ".ssh", name)
        if os.path.exists(path):
            return path
    raise Failure("there is no public key in ~/.ssh; make one with ssh-keygen, or name its file")


def remove_key(which: str) -> None:
    """Take a key away from the user's nodes."""
    answer = Session(Terminal()).call("cs.keys.remove", key=which)
    print(f"Key {answer[b'fingerprint'].decode()} opens no node any more.")
    _tell_missed(json.loads(answer[b"missed"]), "could not be reached: they know it until they boot"
                 " again")


def _tell_missed(names: list[str], what: str) -> None:
    if names:
        print(f"{', '.join(names)}: {what}", file=sys.stderr)


def show_keys(as_json: bool) -> None:
    """Print the keys of the user."""
    rows: list[dict[str, Any]] = Session(Terminal()).json("cs.keys.list", "rows")
    if as_json:
        from walt.client.output import print_json

        print_json(rows)
    elif not rows:
        print("Your nodes know no ssh key of yours. To give them one: walt advanced add-ssh-key")
    else:
        from walt.client.terminal import print_block, table

        print_block("Your ssh keys:", table(["type", "fingerprint", "comment"], rows))
