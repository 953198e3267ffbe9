"""`walt-server-vpn-test-ssh-entrypoint`: try to come in as a board does (spec server §1.11).

    walt-server-vpn-test-ssh-entrypoint [--config FILE] [--step N] HOST[:PORT]

Status: 0 when the entry point leads to this server, else 1. `--step N` is a number in front of
what it says, for programs that show steps of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import ConfigurationError
from walt.server.adapters.vpn.authority import CA_KEY
from walt.server.assembly.vpn import full_name
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.domain.vpn.model import EntryPoints
from walt.server.tools.vpn.entry_point import try_ssh


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="walt-server-vpn-test-ssh-entrypoint", description="Come in as a board does."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="FILE")
    parser.add_argument("--step", type=int, metavar="N")
    parser.add_argument("entrypoint", metavar="HOST[:PORT]")
    options = parser.parse_args(words)
    before = "" if options.step is None else f"{options.step}. "
    try:
        config = load(options.config)
        host, port = EntryPoints(options.entrypoint, "", "permissive").ssh_address
    except (ConfigurationError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    wrong = try_ssh(
        host, port, full_name(config), config.paths.state / "vpn-server" / CA_KEY,
        lambda text: print(f"{before}{text}", flush=True),
    )
    print(f"{before}{wrong or 'boards can come in'}", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
