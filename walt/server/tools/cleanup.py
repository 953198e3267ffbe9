"""`walt-server-cleanup`: what a server that died may have left (spec server §1.9).

    walt-server-cleanup [--config FILE]

Takes back exports, containers, tags of images that were being made, and mounts below the state
directory. A server that starts takes over what it finds, so that nodes go on: this is for the
person who wants a machine without any of it. It does nothing while the server runs, and always
ends with status 0; what fails is told.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from walt.common.errors import ConfigurationError, in_words
from walt.server.adapters.nfs.kernel import DIRECTORY, IMAGE_EXPORTS, PERSIST_EXPORTS
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import BACKUPS
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.config.model import ServerConfig

LIMIT = 120  # seconds for one program
LEFT = "localhost/"  # how images are called that have no name of a user's


def mounts_below(place: Path, table: str) -> list[Path]:
    """Return what is mounted below a directory, the last first; `table` is /proc/self/mounts."""
    found = []
    for line in table.splitlines():
        path = Path(line.split(" ")[1].encode().decode("unicode_escape"))
        if place in path.parents:
            found.append(path)
    return found[::-1]


class Cleaner:
    """Undoes one thing after the other; a failure is told, and the next thing tried."""

    def __init__(self, config: ServerConfig, exports: Path = DIRECTORY) -> None:
        self._config, self._exports = config, exports
        paths = config.paths
        self._storage = Storage() if config.images.storage == "system" else Storage.private(
            paths.state, paths.runtime
        )

    def is_running(self) -> bool:
        """Tell whether the server answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self._config.paths.rpc_socket))
            except OSError:
                return False
        return True

    def run(self) -> None:
        """Do all of it."""
        self._empty_exports()
        images = self._config.paths.images
        self._unmount(images)
        self._containers()
        self._names()
        self._unmount(self._config.paths.state)
        for place in images.glob("*/fs"):
            if not place.is_mount() and any(place.iterdir()):
                self._do("find", str(place), "-mindepth", "1", "-xdev", "-delete")

    def _empty_exports(self) -> None:
        changed = False
        for name in (IMAGE_EXPORTS, PERSIST_EXPORTS):
            file = self._exports / name
            if file.exists() and file.read_text().strip():
                file.write_text("")
                changed = True
        if changed:
            self._do("exportfs", "-r", "-f")

    def _unmount(self, place: Path) -> None:
        for point in mounts_below(place, Path("/proc/self/mounts").read_text()):
            if self._do("umount", str(point), quiet=True) is None:
                self._do("umount", "--lazy", str(point))

    def _containers(self) -> None:
        if self._do(*self._storage.podman("ps", "--all", "--quiet")):
            self._do(*self._storage.podman("rm", "--all", "--force", "--time", "3"))

    def _names(self) -> None:
        told = self._do(*self._storage.podman(
            "images", "--format", "{{range .Names}}{{.}}\n{{end}}", "--noheading"
        )) or ""
        # What a backup keeps has no other name for the moment: the next server gives it back.
        for name in sorted({
            name for name in told.split() if name.startswith(LEFT) and not name.startswith(BACKUPS)
        }):
            self._do(*self._storage.podman("untag", name, name))

    def _do(self, *argv: str, quiet: bool = False) -> str | None:
        """Run a program; return its output, None when it failed, which is told."""
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            wrong = in_words(error)
        else:
            if done.returncode == 0:
                return done.stdout
            wrong = done.stderr.strip()
        if not quiet:
            print(f"{argv[0]}: {wrong}", file=sys.stderr)
        return None


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; its status is 0."""
    parser = argparse.ArgumentParser(prog="walt-server-cleanup", allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="FILE")
    options = parser.parse_args(words)
    try:
        cleaner = Cleaner(load(options.config))
        if os.geteuid() != 0:
            print("this must be run by root: nothing was done", file=sys.stderr)
        elif cleaner.is_running():
            print("the server runs: nothing was done", file=sys.stderr)
        else:
            cleaner.run()
    except (ConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
