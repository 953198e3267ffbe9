"""`walt-device-ssh`: a shell on a device that is no node, from the server (spec server §1.11).

    walt-device-ssh [--config FILE] [USER@]HOST

For the person who looks after a server: as `walt device shell`, whether the server runs
or not, by name or address, and with this account's own keys. The status is that of ssh,
2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from walt.common.errors import ConfigurationError
from walt.server.adapters.ssh.options import device_command
from walt.server.config.load import DEFAULT_FILE, load

_TARGET = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_.-]*)@)?([A-Za-z0-9][A-Za-z0-9.:-]*)")


def command(target: str, namespace: str | None) -> list[str] | None:
    """Return what to run for `[user@]host`, None when the text is no such thing.

    `namespace` is that of walt-net, None on the host's own network.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        return None
    prefix = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
    return [*prefix, *device_command(match[2], match[1] or "root", own_keys=True)]


def main() -> None:
    """Run the command line of the process; ssh takes its place."""
    parser = argparse.ArgumentParser(prog="walt-device-ssh", allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="FILE")
    parser.add_argument("target", metavar="[USER@]HOST")
    given = parser.parse_args()
    try:
        argv = command(given.target, load(given.config).namespace)
    except ConfigurationError as error:
        sys.exit(str(error))
    if argv is None:
        parser.error(f"{given.target[:80]!r} is not a host, nor user@host")
    os.execvp(argv[0], argv)  # noqa: S606 (a vector, no shell)


if __name__ == "__main__":
    main()
