"""`walt-server-daemon`: the server in the foreground (the same as `twistd -n walt-server`)."""

from __future__ import annotations

import sys

from twisted.scripts.twistd import run


def main() -> None:
    """Run twistd without leaving the terminal; options are those of the plugin."""
    sys.argv = [
        "twistd", "--nodaemon", "--pidfile=", "--logger", "walt.server.assembly.logging.observer",
        "walt-server", *sys.argv[1:],
    ]
    run()
