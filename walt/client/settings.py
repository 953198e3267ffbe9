"""Which server, which user (spec user-surface §4.1, design D15 and §5)."""

from __future__ import annotations

import os

from walt.client.errors import Failure
from walt.common.ports import RPC, STREAMS

LOCAL_SOCKET = "/run/walt/rpc.sock"


def server_address() -> tuple[str, str]:
    """Return ("unix", path) or ("tcp", host), from the environment, the file, or this machine."""
    named = os.environ.get("WALT_SERVER") or configured().get("walt.server")
    if not named or named in ("localhost", "127.0.0.1"):
        return "unix", LOCAL_SOCKET
    if named.startswith("unix:"):
        return "unix", named[len("unix:"):]
    return "tcp", named


def rpc_target() -> str | tuple[str, int]:
    """Return what to connect to for calls: a path, or (host, port)."""
    kind, where = server_address()
    return where if kind == "unix" else (where, RPC)


def stream_target() -> str | tuple[str, int]:
    """Return what to connect to for streams: a path beside the RPC's, or (host, port)."""
    kind, where = server_address()
    if kind == "unix":
        return os.path.join(os.path.dirname(where), "streams.sock")
    return (where, STREAMS)


def username() -> str:
    """Return the WalT user: environment, configuration file, else the account."""
    named = os.environ.get("WALT_USERNAME") or configured().get("walt.username")
    if named:
        return named
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise Failure("this account has no name; set WALT_USERNAME") from None


def configured() -> dict[str, str]:
    """Return the values of ~/.walt/config as {"walt.server": …}; empty without file."""
    path = os.path.join(os.path.expanduser("~"), ".walt", "config")
    try:
        with open(path, encoding="utf-8") as stream:
            return parse(stream.read())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {path}: {error}") from None


def parse(text: str) -> dict[str, str]:
    """Read the scalars and comments, in groups, that WalT itself writes.

    Keys are those of the groups and of the line, joined by dots.
    """
    values: dict[str, str] = {}
    groups: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.split(" #", 1)[0].rstrip()
        if not stripped.strip() or stripped.lstrip().startswith("#"):
            continue
        key, colon, value = stripped.strip().partition(":")
        if not colon:
            continue
        depth = len(stripped) - len(stripped.lstrip())
        while groups and groups[-1][0] >= depth:
            groups.pop()
        name = ".".join([*(group for _, group in groups), key.strip()])
        if value.strip():
            values[name] = value.strip().strip("'\"")
        else:
            groups.append((depth, key.strip()))
    return values
