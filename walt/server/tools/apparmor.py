"""`walt-server-apparmor`: have AppArmor let the server's daemons use the server's directories.

Usage: walt-server-apparmor [--config FILE]

It adds to /etc/apparmor.d/local what Debian's profiles of dhcpd, named and dhclient lack; where
there are no profiles, or nothing lacks, it does nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import WaltError, in_words
from walt.server.assembly import confinement
from walt.server.config.load import DEFAULT_FILE, load

NAME = "walt-server-apparmor"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Have AppArmor let daemons use the server's directories."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args(words)
    if os.geteuid() != 0:
        print(f"{NAME}: this must be run by root: it changes {confinement.PROFILES}",
              file=sys.stderr)
        return 1
    try:
        for file in confinement.allow(load(options.config).paths):
            print(f"{NAME}: {file} was written")
    except (WaltError, OSError) as error:
        print(f"{NAME}: {in_words(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
