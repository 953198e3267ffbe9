"""`walt-server-backup FILE` and `walt-server-restore FILE` (`walt advanced backup`, `restore`).

A backup is made while the server runs; a restore needs directories without a platform, and no
server. Status: 0, or 1 for what was refused or failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from walt.client.errors import Failure
from walt.common.errors import WaltError, in_words
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.tools.backup.restore import restore
from walt.server.tools.backup.save import save

UNIT = "systemctl start walt-server"


def backup_main() -> int:
    """Make a backup."""
    return _run("walt-server-backup", "Save the platform in one file, while it runs.", _backup)


def restore_main() -> int:
    """Restore one."""
    return _run("walt-server-restore", "Make a platform of a backup.", _restore)


def _run(name: str, description: str, work: Callable[[argparse.Namespace], None]) -> int:
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print(f"{name}: this must be run by root, on the server", file=sys.stderr)
        return 1
    try:
        work(options)
    except (WaltError, Failure, OSError) as error:
        print(f"{name}: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _say(text: str) -> None:
    print(f"{text}...", flush=True)


def _backup(options: argparse.Namespace) -> None:
    config = load(options.config)
    os.environ["WALT_SERVER"] = f"unix:{config.paths.rpc_socket}"
    file = options.file.absolute()
    save(config, options.config.absolute(), file, _say)
    print(f"{file} is complete: {file.stat().st_size >> 20} MiB. Keep it secret: it has keys.")


def _restore(options: argparse.Namespace) -> None:
    config = restore(options.config.absolute(), options.file.absolute(), _say)
    print(
        f"{config.paths.state} is complete; the database is loaded when the server starts"
        f" ({UNIT})."
    )
