"""Images that an archive keeps: all that the nodes of a run booted, in one OCI archive."""

from __future__ import annotations

import shutil

from walt.client.answers import NUMBER
from walt.client.errors import Failure, Refused
from walt.client.experiment.archive import IMAGES, fresh
from walt.client.formats import readable
from walt.client.operations.transfers import Told, receive_pieces, send_pieces
from walt.client.scripting.link import LINK
from walt.client.stream import Stream
from walt.common.errors import Invalid, LimitExceeded
from walt.common.image_archives import LARGEST, MOST_IMAGES, Reading
from walt.common.names import short_image_name

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from walt.client.experiment.archive import Archive
    from walt.client.operations.transfers import Listener

SAVE, LOAD = "REQ_SAVE_IMAGES", "REQ_LOAD_IMAGES"


class _Pieces:
    """The file that tarfile reads, of pieces that come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """Return that many bytes, fewer at the end only."""
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held += piece
        found = bytes(self._held[:size])
        del self._held[:size]
        return found


def images_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of the images that a run used, with their short names."""
    used = {node["image"] for node in manifest["nodes"].values()}
    return {
        image_id: short_image_name(name) for name, image_id in manifest["images"].items()
        if name in used
    }


def kept(archive: Archive, *, whole: bool) -> set[str]:
    """Return the ids of the images that an archive keeps.

    `whole`: all of them is read, and compared with the ids. Raises Failure for what is none.
    """
    if IMAGES not in archive.names:
        return set()
    reading = Reading()
    try:
        reading.all(_Pieces(archive.pieces(IMAGES)), heads=not whole)
    except (Invalid, LimitExceeded) as error:
        raise Failure(f"{IMAGES} of {archive.path} is refused: {error}") from None
    return set(reading.images)


def check(folder: Path, manifest: Mapping[str, Any], tell: Callable[[str], object]) -> None:
    """Raise Failure for images of a run that its folder cannot keep; tell when it is close."""
    wanted = images_of(manifest)
    if len(wanted) > MOST_IMAGES:
        raise Failure(
            f"this run uses {len(wanted)} images, and an archive keeps up to {MOST_IMAGES}"
        )
    look = {kind: [{"id": str, "size": NUMBER}] for kind in ("own", "others", "default")}
    tables = LINK.json("cs.images.show", "tables", look, all=True, refresh=False)
    sizes = {row["id"]: row["size"] for kind in look for row in tables[kind]}
    gone = [name for image_id, name in wanted.items() if image_id not in sizes]
    if gone:
        raise Failure(f"the image {gone[0]} of this run is not on the platform any more")
    room = min(shutil.disk_usage(folder).free, LARGEST)
    needed = [sizes[image_id] for image_id in wanted]
    told = (
        f"images take up to {readable(sum(needed))}, and {readable(room)} can be kept in {folder}"
    )
    if max(needed, default=0) > room:
        raise Failure(told)
    if sum(needed) > room:  # layers that they share are kept once
        tell(f"{told}: perhaps they are not kept")


def save(
    manifest: Mapping[str, Any], write: Callable[[bytes], object], listener: Listener
) -> None:
    """Give the images of a run, as one file, to `write`.

    Raises Failure, also when one of them is not on the platform any more.
    """
    wanted = images_of(manifest)
    if not wanted:
        raise Failure("nobody knows which images this run used: none is kept")
    try:
        receive_pieces(Stream(SAVE, {"ids": sorted(wanted)}), write, listener)
    except Refused as refused:
        gone = [name for image_id, name in wanted.items() if image_id[:12] in str(refused)]
        if refused.code != "NOT_FOUND" or not gone:
            raise
        raise Failure(
            f"the image {gone[0]} of this run is not on the platform any more, so it cannot be"
            " kept; `walt experiment run --with-images` keeps images while they are there"
        ) from None


def save_into(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Keep the images of a run in its folder, unless they are there. Raises Failure."""
    if not (folder / IMAGES).exists():
        with fresh(folder / IMAGES) as file:
            save(manifest, file.write, Told())


def load(archive: Archive, images: Mapping[str, str], listener: Listener) -> None:
    """Put images of an archive, ids by the names they get, into the caller's set.

    Raises Failure.
    """
    send_pieces(Stream(LOAD, {"images": dict(images)}), archive.pieces(IMAGES), listener)
