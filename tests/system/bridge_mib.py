"""BRIDGE-MIB (RFC 4188) of a bridge of Linux, for snmpd, which has none: a program of pass_persist.

Run by the machine's Python as the account of snmpd: the standard library alone. See
snmpd.conf(5), MIB extensions: questions are lines, answers are lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

BASE = (1, 3, 6, 1, 2, 1, 17)
LEARNED = 3
KEPT = 1.0  # seconds


def shown(*argv: str) -> list[dict[str, object]]:
    """Return what a command of iproute2 tells as JSON."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=True)
    found: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return found


def rows(bridge: str) -> dict[tuple[int, ...], tuple[str, str]]:
    """Return type and value of each object; ports are numbered from 1, by their ifIndex."""
    links = {str(one["ifname"]): one for one in shown("ip", "-json", "link", "show")}
    found = {}
    ports = {}
    address = str(links[bridge]["address"])
    found[(*BASE, 1, 1, 0)] = ("octet", address.replace(":", " "))
    members = sorted(
        (int(str(one["ifindex"])), name) for name, one in links.items()
        if one.get("master") == bridge
    )
    for number, (index, name) in enumerate(members, 1):
        ports[name] = number
        found[(*BASE, 1, 4, 1, 2, number)] = ("integer", str(index))
    for one in shown("bridge", "-json", "fdb", "show", "br", bridge):
        if one.get("state") == "permanent" or str(one.get("ifname")) not in ports:
            continue
        index = tuple(int(part, 16) for part in str(one["mac"]).split(":"))
        found[(*BASE, 4, 3, 1, 2, *index)] = ("integer", str(ports[str(one["ifname"])]))
        found[(*BASE, 4, 3, 1, 3, *index)] = ("integer", str(LEARNED))
    return found


def main() -> None:
    """Answer snmpd until it closes the pipe."""
    at, table = float("-inf"), {}
    for line in sys.stdin:
        command = line.strip()
        if command == "PING":
            print("PONG", flush=True)
            continue
        asked = tuple(int(part) for part in sys.stdin.readline().strip().split(".") if part)
        if command == "set":
            sys.stdin.readline()
            print("not-writable", flush=True)
            continue
        if time.monotonic() - at > KEPT:
            at, table = time.monotonic(), rows(sys.argv[1])
        name: tuple[int, ...] | None = asked if asked in table else None
        if command == "getnext":
            name = min((one for one in table if one > asked), default=None)
        if name is None:
            print("NONE", flush=True)
            continue
        kind, value = table[name]
        print(f".{'.'.join(map(str, name))}\n{kind}\n{value}", flush=True)


if __name__ == "__main__":
    main()
