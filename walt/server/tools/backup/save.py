"""Make a backup of a platform, whether people work on it or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from walt.client.session import Session
from walt.client.terminal import Terminal
from walt.common.errors import CommandFailed, Conflict
from walt.common.mounts import is_mounted
from walt.server.adapters.postgres.cluster import binaries
from walt.server.assembly.base import archive_target
from walt.server.config.model import ServerConfig
from walt.server.tools.backup import images, places, sparse
from walt.server.tools.backup.archive import Writer
from walt.server.tools.backup.freeze import frozen

LONGEST = 6 * 3600.0  # seconds: logs of years

Say = Callable[[str], None]


def save(config: ServerConfig, config_file: Path, file: Path, say: Say) -> None:
    """Write a new archive. Raises WaltError, OSError, Failure; nothing is left then."""
    if file.exists():
        raise Conflict(f"{file} exists; choose another name, or remove it")
    writer = Writer(file)
    try:
        # Beside the archive: there has to be space for the largest part of it twice.
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as name:
            scratch = Path(name)
            say("database")
            _add_database(writer, scratch)
            say("settings and keys")
            _add_files(writer, config, config_file)
            say("persistent data of nodes")
            _add_persistent(writer, config, scratch, say)
            if (target := archive_target(config)) is not None:
                say(f"archived log lines are not in it: keep a copy of {target}, too")
                secret = target.credentials
                if secret is not None and not places.is_saved(Path(secret), config_file):
                    say(f"{secret} is not in it: keep a copy of that file, too")
            say("images")
            saved = _add_images(writer, config, scratch)
            writer.close(saved)
    finally:
        writer.abandon()


def _add_database(writer: Writer, scratch: Path) -> None:
    session = Session(Terminal())
    variables: dict[str, str] = session.json("ss.database.reach", "variables")
    session.close()
    dump = scratch / "dump"
    done = subprocess.run(
        [str(binaries() / "pg_dump"), "--format=custom", "--no-owner", "--no-privileges",
         f"--file={dump}"],
        capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        timeout=LONGEST, env={**os.environ, **variables},
    )
    if done.returncode != 0:
        raise CommandFailed(f"pg_dump failed: {' / '.join(done.stderr.strip().splitlines()[-3:])}")
    writer.add_file(places.DATABASE, dump)
    dump.unlink()


def _add_files(writer: Writer, config: ServerConfig, config_file: Path) -> None:
    for name in places.CONFIG:
        path = config_file if name == "server.conf" else config_file.with_name(name)
        if path.exists():
            writer.add_bytes(f"config/{name}", path.read_bytes(), path.stat().st_mode & 0o777)
    for name, path in places.state_files(config.paths.state):
        # They are small, and may be replaced meanwhile: each is read at once.
        try:
            mode, data = path.stat().st_mode & 0o777, path.read_bytes()
        except FileNotFoundError:
            continue
        writer.add_bytes(name, data, mode)


def _add_persistent(writer: Writer, config: ServerConfig, scratch: Path, say: Say) -> None:
    for name, file, point in places.persistent_files(config.paths.nodes):
        packed = scratch / "persist"
        with packed.open("wb") as stream, ExitStack() as stack:
            if is_mounted(point):
                stack.enter_context(frozen(point))
            try:
                sparse.pack(file, stream)
            except FileNotFoundError:
                say(f"{file} was removed meanwhile")
                continue
        writer.add_file(name, packed)
        packed.unlink()


def _add_images(writer: Writer, config: ServerConfig, scratch: Path) -> dict[str, str]:
    storage, layout = images.storage_of(config), scratch / "oci"
    saved = images.names(storage)
    for name in saved:
        images.save(storage, name, layout, scratch)
    for path in sorted(layout.rglob("*")) if saved else ():
        if path.is_file():
            writer.add_file(f"{places.OCI}/{path.relative_to(layout)}", path)
            path.unlink()
    shutil.rmtree(layout, ignore_errors=True)
    return saved
