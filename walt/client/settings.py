"""Which server, which user (spec user-surface §4.1, design D15 and §5)."""

from __future__ import annotations

import os

from walt.client.errors import Failure, NotConfigured
from walt.common.ports import RPC, STREAMS

LOCAL_SOCKET = "/run/walt/rpc.sock"
SERVER_FILE = "/etc/walt/server.conf"  # where it is, this machine is a server
THIS_MACHINE = ("localhost", "127.0.0.1")


class Target:
    """What to connect to: the `path` of a socket, or a `host` and a `port`, `encrypted` or not."""

    def __init__(
        self, path: str | None = None, host: str = "", port: int = 0, encrypted: bool = True
    ) -> None:
        self.path = path
        self.host = host
        self.port = port
        self.encrypted = encrypted


def server() -> str:
    """Return which server to use: `unix:PATH`, a host, or `tcp:HOST` for one without TLS.

    Raises NotConfigured on a machine that is no server, when nothing says which.
    """
    stated = named()
    if not stated and not is_server():
        stated = _of_plugin()
    if not stated or stated in THIS_MACHINE:
        return f"unix:{LOCAL_SOCKET}"
    return stated


def _of_plugin() -> str:
    """Return the server that a plugin knows. Raises NotConfigured when none does."""
    from walt.client import plugins

    known = plugins.call("config-missing-server")
    if not known:
        raise NotConfigured
    return str(known)


def named() -> str | None:
    """Return the server that the environment or the configuration file states."""
    return os.environ.get("WALT_SERVER") or configured().get("walt.server")


def is_server() -> bool:
    """Tell whether this machine has a server of its own, started or not."""
    return os.path.exists(os.path.dirname(LOCAL_SOCKET)) or os.path.exists(SERVER_FILE)


def rpc_target() -> Target:
    """Return what to connect to for calls."""
    where = server()
    if where.startswith("unix:"):
        return Target(where[len("unix:"):])
    return _target(where, "rpc.sock", RPC)


def stream_target() -> Target:
    """Return what to connect to for streams: a socket beside the RPC's, or another port."""
    return _target(server(), "streams.sock", STREAMS)


def _target(where: str, socket_name: str, port: int) -> Target:
    if where.startswith("unix:"):
        return Target(os.path.join(os.path.dirname(where[len("unix:"):]), socket_name))
    if where.startswith("tcp:"):
        return Target(None, where[len("tcp:"):], port, encrypted=False)
    from walt.client import enrolment

    if not enrolment.enrolled(where):
        raise Failure(
            f"this account is not enrolled at {where}. Somebody on the server can run"
            f" `walt advanced add-user {username()}`; type here the command that it prints.\n"
            f"(A server open to everybody is reached as tcp:{where}.)"
        )
    return Target(None, where, port)


def account() -> str | None:
    """Return the WalT user that the environment or the configuration file states."""
    return os.environ.get("WALT_USERNAME") or configured().get("walt.username")


def username() -> str:
    """Return the WalT user: environment, configuration file, certificate, else the account."""
    stated = account() or _enrolled_as()
    if stated:
        return stated
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise Failure("this account has no name; set WALT_USERNAME") from None


def _enrolled_as() -> str | None:
    host = server()
    if host.startswith(("unix:", "tcp:")):
        return None
    from walt.client import enrolment

    return enrolment.user(host)


def configured() -> dict[str, str]:
    """Return the values of ~/.walt/config as {"walt.server": …}; empty without file."""
    if not _known:
        from walt.client import config_file

        _known.append(config_file.read())
    return _known[0]


def assume(values: dict[str, str]) -> None:
    """Go on as if the file held these values."""
    _known[:] = [values]


def forget_configuration() -> None:
    """Read ~/.walt/config anew at the next use."""
    _known.clear()


_known: list[dict[str, str]] = []
