"""Run a program in a network that reaches the outside, but not this machine nor walt-net.

    outside.py [--closed NETWORK]… [--open NETWORK]… -- PROGRAM …

The program gets a network namespace of its own. slirp4netns(1), which stays in the network
it is started in, carries its connections; a filter in the namespace drops what is meant for
an address of this machine, for networks of links, and for each `--closed` network, unless
it is in an `--open` one. The containers of the program cannot change this: they lack the
capabilities (cap_net_admin, and cap_net_raw, since raw packets pass no filter), and so does the
program itself where it can do without (see `dropped`). IPv4 alone, names are resolved by the
machine's own resolvers.

Status: that of the program, 128 + n for signal n; 125 when the network cannot be made. The
program and slirp4netns end with it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

FAILED = 125
# The addresses of the namespace: of a network for benchmarks (RFC 2544), which no site uses.
OWN = IPv4Network("198.19.255.0/24")
RESOLVER = OWN[3]  # where slirp4netns answers for the machine's resolvers
# This host, loopback, links (and what clouds tell their machines there), groups.
NEVER = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
LOCAL = ("local", "broadcast", "anycast")  # types of routes that end here (ip-route(8))
NET_ADMIN, NET_RAW = 12, 13  # linux/capability.h
# With cgroup 2, what devices a container may use is a program of the kernel, and OCI runtimes
# need cap_net_admin to attach it (kernel/bpf/syscall.c). They give it to no container.
CGROUP2 = Path("/sys/fs/cgroup/cgroup.controllers")
RESOLV_CONF = Path("/etc/resolv.conf")
PATIENCE = 30  # seconds
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_SIGKILL = 9
_libc = ctypes.CDLL(None, use_errno=True)


class Trouble(Exception):
    """The network cannot be made; the text says why."""


def rules(closed: Iterable[IPv4Network], opened: Iterable[IPv4Network]) -> str:
    """Return the filter of the namespace, for nft(8)."""
    lines = [
        "table inet outside {", "chain output {",
        "type filter hook output priority 0; policy drop;",
        'oifname "lo" accept', "ct state established,related accept",
        f"ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"ip daddr {OWN} reject",
        *(f"ip daddr {network} accept" for network in opened),
        *(f"ip daddr {network} reject" for network in closed),
        "meta nfproto ipv4 accept", "}", "}",
    ]
    return "\n".join(lines) + "\n"


def dropped(cgroup2: Path = CGROUP2) -> tuple[int, ...]:
    """Return the capabilities that the program is started without."""
    return (NET_RAW,) if cgroup2.exists() else (NET_ADMIN, NET_RAW)


def local_networks(routes: str) -> list[IPv4Network]:
    """Return the destinations that are this machine, from `ip -json -4 route show table all`.

    A default route to this machine is one of a transparent proxy: it is for what passes.
    """
    return [
        IPv4Network(route["dst"]) for route in json.loads(routes or "[]")
        if route.get("type") in LOCAL and route["dst"] != "default"
    ]


def resolv_conf(text: str) -> str:
    """Return the settings of the machine's resolver, with the namespace's address for it."""
    kept = [
        line for line in text.splitlines()
        if line.split(maxsplit=1)[:1] in (["search"], ["domain"], ["options"])
    ]
    return "\n".join([f"nameserver {RESOLVER}", *kept]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the status."""
    parser = argparse.ArgumentParser(prog="outside", allow_abbrev=False)
    parser.add_argument("--closed", action="append", default=[], type=IPv4Network)
    parser.add_argument("--open", action="append", default=[], type=IPv4Network, dest="opened")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args(argv)
    try:
        closed = [*NEVER, *_own(), *options.closed]
        return _run(options.program, rules(closed, options.opened))
    except Trouble as error:
        print(f"The network of builds cannot be made: {error}", file=sys.stderr)
        return FAILED


def _own() -> list[IPv4Network]:
    return local_networks(_tool(["ip", "-json", "-4", "route", "show", "table", "all"]))


def _run(program: Sequence[str], filtering: str) -> int:
    """Run a program in a namespace with this filter; return its status."""
    made_read, made_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(made_read)
        os.close(go_write)
        _become(program, filtering, made_write, go_read)
    os.close(made_write)
    os.close(go_read)
    with os.fdopen(made_read, "rb") as made, os.fdopen(go_write, "wb") as go:
        if made.read(1):
            _connect(child)
            go.write(b"x")
    while True:
        pid, status = os.wait()  # others are orphans that were left to us
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _connect(child: int) -> None:
    """Start slirp4netns for the namespace of a process; return when it works."""
    ready_read, ready_write = os.pipe()
    with os.fdopen(ready_read, "rb") as ready, tempfile.TemporaryFile("w+") as words:
        try:
            subprocess.Popen(
                [
                    # Its sandbox detaches the root directory that it leaves; what is shared
                    # below, as the names of network namespaces are, would go everywhere.
                    "setpriv", "--pdeathsig", "KILL", "--",
                    "unshare", "--mount", "--propagation", "private", "--",
                    "slirp4netns", "--configure",
                    "--mtu=65520", f"--cidr={OWN}", "--disable-host-loopback",
                    "--enable-sandbox", "--enable-seccomp", f"--ready-fd={ready_write}",
                    str(child), "tap0",
                ],
                stdin=subprocess.DEVNULL, stdout=words, stderr=words, pass_fds=[ready_write],
            )
        finally:
            os.close(ready_write)
        if not select.select([ready], [], [], PATIENCE)[0] or not ready.read(1):
            words.seek(0)
            raise Trouble(" ".join(words.read().split())[-300:] or "slirp4netns did not start")


def _become(program: Sequence[str], filtering: str, made: int, go: int) -> None:
    """In the child: go into a namespace, wait until it is connected, be the program."""
    status = FAILED
    try:
        _check(_libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "asking for an end")
        _enter(filtering)
        os.write(made, b"x")
        os.close(made)
        if os.read(go, 1):
            os.close(go)
            for number in dropped():
                _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "dropping capabilities")
            os.execvp(program[0], list(program))  # noqa: S606 (there is none)
    except FileNotFoundError:
        status = 127
        print(f"{program[0]} is missing on the server", file=sys.stderr)
    except (OSError, Trouble) as error:
        why = getattr(error, "strerror", None) or error.args[0]
        print(f"The network of builds cannot be made: {why}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _enter(filtering: str) -> None:
    """Make the namespace, its filter, and its own view of /etc/resolv.conf."""
    text = RESOLV_CONF.read_text(errors="replace") if RESOLV_CONF.exists() else ""
    _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS), "making a network namespace")
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    _tool(["nft", "-f", "-"], filtering)
    _tool(["ip", "link", "set", "lo", "up"])
    if text:
        with tempfile.NamedTemporaryFile("w") as own:
            own.write(resolv_conf(text))
            own.flush()
            os.fchmod(own.fileno(), 0o644)
            _mount(own.name, os.path.realpath(RESOLV_CONF), _MS_BIND)


def _mount(source: str, target: str, flags: int) -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None),
        f"mounting {target}",
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        raise Trouble(f"{what}: {os.strerror(ctypes.get_errno())}")


def _tool(argv: Sequence[str], text: str = "") -> str:
    """Run a program of the system with this input; return its output."""
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except FileNotFoundError:
        raise Trouble(f"{argv[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{argv[0]} did not end") from None
    if done.returncode != 0:
        raise Trouble(f"{argv[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(main())
