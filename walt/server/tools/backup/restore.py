"""Make a platform of a backup, in directories where there is none.

The database is left where the server loads it at its first start
(`walt.server.adapters.postgres.restore`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from walt.common.errors import Conflict, Invalid
from walt.common.files import write_durable
from walt.server.adapters.postgres.restore import UNFINISHED, pending
from walt.server.adapters.volumes.images import close_images, open_images
from walt.server.adapters.volumes.loop import run
from walt.server.config.load import load, parse
from walt.server.config.model import ServerConfig
from walt.server.tools.backup import images, places, sparse
from walt.server.tools.backup.archive import PIECE, Contents, Member, verified, walk

LARGEST_FILE = 64 << 20  # bytes of a key, a lease file, a firmware
SETUP = "setup.json"  # what walt-server-setup remembers may be there already

Say = Callable[[str], None]


def restore(config_file: Path, file: Path, say: Say) -> ServerConfig:
    """Restore; a configuration that is there decides where, else that of the archive is taken.

    Raises WaltError, OSError. Nothing is written for an archive that is refused; a restore that
    was cut is begun again by the next call.
    """
    say("reading the archive")
    contents = verified(file)
    _check(contents)
    config = load(config_file) if config_file.exists() else None
    if config is None:
        config = parse(_text(file, "config/server.conf"))
    state = config.paths.state
    _check_empty(state)
    write_durable(_begun(state), b"")
    say("settings, keys and persistent data")
    layout = state / "restore" / "oci"
    shutil.rmtree(layout, ignore_errors=True)
    for name, stream in walk(file):
        _put(name, stream, contents.members[name], config, config_file, layout)
    if contents.images:
        say("images")
        _put_images(config, contents, layout, say)
    shutil.rmtree(layout, ignore_errors=True)
    _begun(state).unlink()
    return config


def _begun(state: Path) -> Path:
    place = state / "restore" / UNFINISHED
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _check(contents: Contents) -> None:
    """Raise Invalid for members that no place is for: they are no mistake."""
    for name in contents.members:
        if not (
            name == places.DATABASE or name.startswith(f"{places.OCI}/")
            or places.target_of(name, Path("/s"), Path("/c/server.conf")) is not None
            or places.persistent_target(name, Path("/n")) is not None
        ):
            raise Invalid(f"the archive is refused: it holds {name}, which no backup does")
    for name in contents.images:
        if not images.is_image_name(name):
            raise Invalid(f"the archive is refused: {name[:80]!r} is no name of an image")
    for name in (places.DATABASE, "config/server.conf"):
        if name not in contents.members:
            raise Invalid(f"the archive is refused: it lacks {name}")


def _check_empty(state: Path) -> None:
    if (state / "restore" / UNFINISHED).exists():
        return
    there = [path.name for path in state.iterdir() if path.name != SETUP] if state.exists() else []
    if there:
        raise Conflict(
            f"{state} holds a platform already ({', '.join(sorted(there)[:3])}…): stop its server"
            " and move the directory away, or give a --config whose state-dir is another one"
        )


def _text(file: Path, wanted: str) -> str:
    for name, stream in walk(file):
        if name == wanted:
            return stream.read(LARGEST_FILE).decode(errors="replace")
    raise Invalid(f"the archive lacks {wanted}")


def _put(
    name: str, stream: IO[bytes], member: Member, config: ServerConfig, config_file: Path,
    layout: Path,
) -> None:
    """Write one member to its place. Raises Invalid, OSError."""
    state = config.paths.state
    if name == places.DATABASE:
        _copy(stream, pending(state))
    elif name.startswith(f"{places.OCI}/"):
        _copy(stream, layout / name.removeprefix(f"{places.OCI}/"))
    elif (persistent := places.persistent_target(name, config.paths.nodes)) is not None:
        persistent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        persistent.unlink(missing_ok=True)
        sparse.unpack(stream, persistent)
        run(["e2fsck", "-f", "-p", str(persistent)], good=(0, 1))
    else:
        target = places.target_of(name, state, config_file)
        assert target is not None  # checked for all members
        if name.startswith("config/") and target.exists():
            return  # that of this machine stays
        if member.size > LARGEST_FILE:
            raise Invalid(f"the archive holds {name} of {member.size >> 20} MiB")
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_durable(target, stream.read(), member.mode & 0o755)


def _copy(stream: IO[bytes], target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.open("wb") as out:
        while data := stream.read(PIECE):
            out.write(data)


def _put_images(config: ServerConfig, contents: Contents, layout: Path, say: Say) -> None:
    state, storage = config.paths.state, images.storage_of(config)
    scratch = state / "restore"
    config.paths.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    open_images(state, say, storage=config.images.storage == "private")
    try:
        storage.protect()
        for name in contents.images:
            images.load(storage, name, layout, scratch)
        for name in images.differing(storage, contents.images):
            say(f"warning: {name} is not what it was when it was saved")
    finally:
        close_images(state)
