"""Images between skopeo's directories (`dir:`, containers-transports(5)) and one archive.

A copy to `oci:` writes another configuration where an image has docker's formats: it would be
another image. Here the configuration stays byte by byte; what is written anew are manifests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import IO, Any

from walt.common.errors import CommandFailed, Invalid, LimitExceeded
from walt.common.image_archives import (
    BLOBS,
    INDEX,
    LAYOUT,
    LAYOUT_TEXT,
    Reading,
    contents_of,
    digest_of,
    index,
    lacking,
    load,
    manifest,
)
from walt.common.room import check_room
from walt.server.workers.main import Progress

MEMORY = 1 << 30  # bytes of address space for a job


def pack(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Make the layout `layout` of the directories `images`, by identity: (directory, name).

    Returns the names of its files, in their order. Raises CommandFailed for an image whose
    directory is not what its identity says.
    """
    layout = Path(arguments["layout"])
    blobs = layout / BLOBS
    blobs.mkdir(parents=True)
    manifests: dict[str, bytes] = {}
    configs: dict[str, None] = {}
    layers: dict[str, None] = {}
    for image_id, (directory, name) in arguments["images"].items():
        place = Path(directory)
        found = load((place / "manifest.json").read_bytes(), "a manifest")
        config = digest_of(found["config"])
        told = [digest_of(layer) for layer in found["layers"]]
        contents = contents_of(load((place / config[0]).read_bytes(), "a configuration"))
        if config[0] != image_id or contents != [digest for digest, _ in told]:
            raise CommandFailed(f"the image {name} cannot be read as it is")
        for digest, _ in (config, *told):
            if not (blobs / digest).exists():
                (place / digest).rename(blobs / digest)
        shutil.rmtree(place)
        manifests[name] = manifest(config, told)
        configs[image_id] = None
        layers.update(dict.fromkeys(digest for digest, _ in told))
    texts = {hashlib.sha256(text).hexdigest(): text for text in manifests.values()}
    for digest, text in texts.items():
        (blobs / digest).write_bytes(text)
    (layout / LAYOUT).write_bytes(LAYOUT_TEXT)
    (layout / INDEX).write_bytes(index(manifests))
    return [LAYOUT, INDEX, *(
        f"{BLOBS}/{digest}" for digest in dict.fromkeys([*texts, *configs, *layers])
    )]


def unpack(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Make directories `directory`/<identity> for skopeo of the `images` of `archive`.

    Raises Invalid for an archive that is not one, or has not these images; LimitExceeded.
    """
    directory = Path(arguments["directory"])
    blobs = directory / "blobs"
    blobs.mkdir(mode=0o700)
    archive = Path(arguments["archive"])
    check_room(blobs, archive.stat().st_size)
    reading = Reading(partial(_opened, blobs))
    try:
        with archive.open("rb") as stream:
            reading.all(stream)
    except Invalid as error:
        raise Invalid(f"the archive of images is refused: {error}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LimitExceeded(f"the server cannot keep this: {error.strerror}") from None
        raise
    archive.unlink()
    missing = lacking(arguments["images"], reading)
    if missing:
        raise Invalid(f"the archive of images has no image {missing[0][:12]}")
    for image_id in arguments["images"]:
        place = directory / image_id
        place.mkdir(mode=0o700)
        text = reading.manifests[image_id]
        (place / "manifest.json").write_bytes(_plain(text))
        (place / "version").write_text("Directory Transport Version: 1.1\n")
        for digest in dict.fromkeys([image_id, *reading.images[image_id]]):
            os.link(blobs / digest, place / digest)
    return {}


def _plain(text: bytes) -> bytes:
    """Return a manifest with what matters of it alone: types and annotations are a stranger's."""
    found = load(text, "a manifest")
    return manifest(digest_of(found["config"]), [digest_of(layer) for layer in found["layers"]])


def _opened(blobs: Path, digest: str) -> IO[bytes]:
    return open(blobs / digest, "xb")
