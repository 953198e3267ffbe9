"""A process of its own for the tests of NetworkNamespace: it changes its namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from walt.common.errors import WaltError
from walt.server.adapters.network.namespace import NetworkNamespace


def interfaces() -> str:
    """Return the names of the interfaces that `ip` shows here."""
    shown = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    return ",".join(sorted(line.split()[0].split("@")[0] for line in shown.stdout.splitlines()))


def main() -> None:
    """Create the namespace, say what is seen inside and outside, remove it on demand."""
    name, marker, ending = sys.argv[1:]
    outside = interfaces()
    namespace = NetworkNamespace(name, Path(marker))
    try:
        namespace.create_and_enter()
    except WaltError as error:
        print(f"refused: {error}")
        return
    print("inside:", interfaces())
    with namespace.host(), socket.socket() as listening:
        print("host:", interfaces() == outside)
        listening.bind(("127.0.0.1", 0))
    print("back:", interfaces())
    through = subprocess.run(
        ["nsenter", f"--net={namespace.host_path}", "ip", "-brief", "link"],
        capture_output=True, text=True, check=True,
    )
    print("child:", len(through.stdout.splitlines()) == len(outside.split(",")))
    print("visible:", os.path.ismount(namespace.path))
    if ending == "wait":
        sys.stdout.flush()
        sys.stdin.read()
    if ending == "crash":
        sys.stdout.flush()
        os._exit(9)
    namespace.remove()
    print("removed:", not namespace.path.exists(), interfaces() == outside)


if __name__ == "__main__":
    main()
