"""`walt-server-doctor`, which `walt doctor` is: try each step of a node's boot.

Usage: walt-server-doctor [--json] [--config FILE]

Nothing of the platform is changed: no address is taken, no device registered. Status: 0, or 1
when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from walt.common.errors import ConfigurationError
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.tools.doctor.findings import Finding, status, summary
from walt.server.tools.doctor.machine import Machine
from walt.server.tools.doctor.network import Network
from walt.server.tools.doctor.outside import Site
from walt.server.tools.doctor.vpn import VpnSteps

NAME = "walt-server-doctor"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Try each step of a node's boot, and tell what is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args(words)
    if os.geteuid() != 0:
        print(f"{NAME}: this must be run by root, on the server", file=sys.stderr)
        return 1
    findings: list[Finding] = []
    for finding in _examine(options.config):
        findings.append(finding)
        if not options.json:
            print(finding.line(), flush=True)
    if options.json:
        print(json.dumps([finding.row() for finding in findings], indent=1))
    else:
        print(summary(findings))
    return status(findings)


def _examine(file: Path) -> Iterator[Finding]:
    """Try one step after the other."""
    try:
        config = load(file)
    except ConfigurationError as error:
        yield Finding(
            "server.conf", "wrong", str(error), "correct it; the administrator manual has all keys"
        )
        return
    yield Finding("server.conf", "good", f"the server is {config.walt_interface}")
    site = Site(config.namespace)
    try:
        for step in (
            *Machine(config, site).steps(), *Network(config, site).steps(),
            *VpnSteps(config, site).steps(),
        ):
            yield step.finding()
    finally:
        site.unplug()


if __name__ == "__main__":
    sys.exit(main())
