"""What init of busybox runs: the server with the environment and the limits of its unit.

Usage: python3 -I -m walt.server.tools.init_run [--config FILE]

Init gives it neither. Its process is recorded, since set-up ends and restarts it by signals.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from walt.common.files import write_atomic
from walt.server.config.load import DEFAULT_FILE
from walt.server.runtime.child import process_start
from walt.server.tools.environment_file import arguments, variables
from walt.server.tools.setup.busybox import RECORD
from walt.server.tools.setup.files import ENVIRONMENT

DESCRIPTORS = 16384  # as LimitNOFILE of the unit
PATIENCE = 60.0  # seconds for AppArmor


def main(words: Sequence[str] | None = None) -> int:
    """Become the server; return 1 if that cannot be."""
    parser = argparse.ArgumentParser(prog="walt-server-run")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    config = str(parser.parse_args(words).config)
    programs = Path(sys.prefix) / "bin"
    environment = dict(os.environ)
    with suppress(FileNotFoundError):
        text = Path(ENVIRONMENT).read_text(encoding="utf-8", errors="surrogateescape")
        environment |= variables(text)
    with suppress(OSError, ValueError):  # a container may have less
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    with suppress(OSError):  # set-up cannot restart it then, and says so
        Path(RECORD).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(RECORD), f"{os.getpid()} {process_start(os.getpid())}\n")
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [str(programs / "walt-server-apparmor"), "--config", config], env=environment,
            stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE,
        )
    server = str(programs / "walt-server-daemon")
    more = arguments(environment.get("DAEMON_ARGS", ""))
    try:
        os.execve(server, [server, "--config", config, *more], environment)  # noqa: S606 (a vector)
    except OSError as error:
        print(f"walt-server-run: {server}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
