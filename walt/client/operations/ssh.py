"""ssh programs of this machine and the nodes: their way through the server, keys, known hosts."""

from __future__ import annotations

import json
import os
import shlex
import sys

from walt.client import settings
from walt.client.errors import Failure

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.calls import Calls

PORT = 22
MAX_FILE = 64 * 1024  # bytes of a file with a key
USUAL = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")  # what ssh itself offers


def known(calls: Calls) -> tuple[str, str]:
    """Return the alias of all nodes' host key, and the file of known hosts that has it.

    The file is written if need be.
    """
    answer = calls.call("cs.keys.host")
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
    name = "".join(char if char.isalnum() or char in ".-" else "_" for char in where)
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


def keys(calls: Calls) -> list[dict[str, Any]]:
    """Return the keys of the user."""
    rows: list[dict[str, Any]] = calls.json("cs.keys.list", "rows")
    return rows


def owner(node: dict[str, Any]) -> str:
    """Return the user whose image a node boots."""
    return str(node["image"] or "").split("/", 1)[0]


def add_key(calls: Calls, text: str) -> tuple[str, list[str], list[str]]:
    """Let a public key into the user's nodes.

    Return its fingerprint, the nodes that have it now, and those that could not be reached.
    Raises Failure for a private key, which does not leave this machine.
    """
    from walt.common.sshkeys import parse

    try:
        parse(text)
    except ValueError as error:
        raise Failure(str(error)) from None
    answer = calls.call("cs.keys.add", key=text)
    return (
        answer[b"fingerprint"].decode(), json.loads(answer[b"reached"]),
        json.loads(answer[b"missed"]),
    )


def remove_key(calls: Calls, which: str) -> tuple[str, list[str]]:
    """Take a key away from the user's nodes.

    Return its fingerprint, and the nodes that could not be reached.
    """
    answer = calls.call("cs.keys.remove", key=which)
    return answer[b"fingerprint"].decode(), json.loads(answer[b"missed"])


def read_key(path: str) -> str:
    """Return the text of a file with a key, of ~/.ssh when `path` is empty. Raises Failure."""
    try:
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
