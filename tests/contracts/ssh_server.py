"""A real ssh server on the loopback, with keys of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater

from tests.system.netns import short_dir
from walt.server.adapters.ssh.options import node_options
from walt.server.runtime.process import ProcessRunner


def why_not() -> str | None:
    """Return why there can be no server."""
    return None if shutil.which("dropbear") else "dropbear is not installed"


async def start(case: Any) -> list[str]:
    """Start dropbear on 127.0.0.1; return the options of ssh clients. The case ends it."""
    base = Path(short_dir(case))
    runner = ProcessRunner(reactor)
    for name in ("host", "client"):
        await runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(base / name)])
    await runner.run([
        "dropbearconvert", "openssh", "dropbear", str(base / "host"), str(base / "host.db"),
    ])
    (base / "known").write_text("walt.node " + (base / "host.pub").read_text())
    authorized = base / "authorized"
    authorized.mkdir(mode=0o700)
    (authorized / "authorized_keys").write_text((base / "client.pub").read_text())
    (authorized / "authorized_keys").chmod(0o600)
    port = 20000 + os.getpid() % 20000
    argv = [
        "unshare", "--mount", "sh", "-c",
        'mkdir -p /root/.ssh && mount -o bind "$1" /root/.ssh && exec dropbear -F -E -s'
        ' -p "127.0.0.1:$2" -r "$3" -P "$4"',
        "sh", str(authorized), str(port), str(base / "host.db"), str(base / "pid"),
    ]
    transport: Any = reactor.spawnProcess(  # type: ignore[attr-defined]
        ProcessProtocol(), argv[0], argv, dict(os.environ)
    )
    case.addCleanup(_end, transport)
    while not (base / "pid").exists():
        await deferLater(reactor, 0.05)
    return [*node_options(base / "known", base / "client"), "-p", str(port)]


async def _end(transport: Any) -> None:
    try:
        transport.signalProcess("TERM")
    except ProcessExitedAlready:
        return
    while transport.pid:
        await deferLater(reactor, 0.05)
