"""Archives of images that strangers made: what is no image of ours is refused with a sentence."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import LimitExceeded, WaltError
from walt.common.image_archives import BLOBS, INDEX, LAYOUT, Reading, index, lacking, manifest

LAYER = b"the files of a layer" * 100


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


CONFIG = json.dumps(
    {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(LAYER)}"]}}
).encode()
MANIFEST = manifest((digest(CONFIG), len(CONFIG)), [(digest(LAYER), len(LAYER))])


def blob(data: bytes) -> tuple[str, bytes]:
    """Return a blob as a member."""
    return f"{BLOBS}/{digest(data)}", data


MEMBERS: list[tuple[str, bytes]] = [
    (LAYOUT, b"{}"), (INDEX, index({"ann/x:latest": MANIFEST})), blob(MANIFEST), blob(CONFIG),
    blob(LAYER),
]


def archive(
    members: list[tuple[str, bytes]], change: Callable[[tarfile.TarInfo], object] = lambda _: None
) -> bytes:
    """Return an archive; `change` sees the header of its last member."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in members:
            info = named(name, data)
            if (name, data) == members[-1]:
                change(info)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return made.getvalue()


def named(name: str, data: bytes) -> tarfile.TarInfo:
    """Return the header of a member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info


def swapped(place: int, data: bytes, name: str = "") -> bytes:
    """Return the archive with another content of a member, the name being what it was."""
    members = list(MEMBERS)
    members[place] = name or members[place][0], data
    return archive(members)


class ImageArchiveTests(SynchronousTestCase):
    def read(self, data: bytes, *, heads: bool = False, **limits: int) -> Reading:
        """Read an archive."""
        reading = Reading(**limits)
        reading.all(io.BytesIO(data), heads=heads)
        return reading

    def refused(self, data: bytes) -> str:
        """Return why an archive is refused."""
        return str(self.assertRaises(WaltError, self.read, data))

    def test_whole(self) -> None:
        """Its images, and their layers; heads are enough to know them."""
        identity = digest(CONFIG)
        whole = archive(MEMBERS)
        cut = whole[:whole.index(LAYER[:40]) + 100]
        for found in (self.read(whole), self.read(cut, heads=True)):
            self.assertEqual(found.images, {identity: [digest(LAYER)]})
            self.assertEqual(found.manifests, {identity: MANIFEST})
        self.assertEqual(lacking([identity, "9" * 64], found), ["9" * 64])
        kept: dict[str, IO[bytes]] = {}
        place = Path(self.mktemp())
        place.mkdir()

        def sink(name: str) -> IO[bytes]:
            kept[name] = (place / name).open("xb")
            return kept[name]

        Reading(sink).all(io.BytesIO(whole))
        self.assertEqual(
            {path.name: path.read_bytes() for path in place.iterdir()},
            {digest(data): data for data in (MANIFEST, CONFIG, LAYER)},
        )
        self.assertTrue(all(file.closed for file in kept.values()))

    def test_members(self) -> None:
        """Paths that climb, links, devices, twice the same, what belongs to no image."""
        layer = MEMBERS[-1]
        for name in ("../out", "/etc/passwd", "blobs/sha256/../../x", "blobs/md5/abc", "x" * 300):
            self.assertIn("which no archive of images does",
                          self.refused(archive([*MEMBERS[:-1], (name, b"x")])))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            def change(info: tarfile.TarInfo, kind: bytes = kind) -> None:
                info.type, info.linkname, info.size = kind, "/etc/shadow", 0
            self.assertIn("which no archive of images does",
                          self.refused(archive(MEMBERS, change)))
        self.assertIn("twice", self.refused(archive([*MEMBERS, layer])))
        self.assertIn("none of its images has",
                      self.refused(archive([*MEMBERS, blob(b"a stranger")])))
        self.assertIn("none of its images has", self.refused(archive([layer, *MEMBERS[:-1]])))

    def test_contents(self) -> None:
        """Wrong digests, wrong sizes, layers that are not those of the configuration."""
        other = bytes(reversed(LAYER))
        self.assertIn("another content", self.refused(swapped(4, other)))
        self.assertIn("bytes in place of", self.refused(swapped(4, LAYER + b"x")))
        same_size = CONFIG.replace(b"layers", b"LAYERS")
        self.assertIn("another content", self.refused(swapped(3, same_size)))
        self.assertIn("another size", self.refused(swapped(3, CONFIG + b" ")))
        self.assertIn("another size", self.refused(swapped(2, MANIFEST + b" ")))
        lying = json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest(other)}"]}}).encode()
        told = manifest((digest(lying), len(lying)), [(digest(LAYER), len(LAYER))])
        self.assertIn("not those that it tells", self.refused(archive([
            MEMBERS[0], (INDEX, index({"x": told})), blob(told), blob(lying), MEMBERS[4],
        ])))
        for nonsense in (b"", b"[]", b"{", b"[" * 100_000, b'{"manifests": [{"digest": 5}]}',
                         b'{"manifests": []}', b'{"manifests": "x"}',
                         b'{"manifests": [{"digest": "md5:x", "size": 1}]}'):
            self.assertTrue(self.refused(swapped(1, nonsense)))

    def test_cut_and_large(self) -> None:
        """Whatever ends early, or is larger than told."""
        whole = archive(MEMBERS)
        for size in (0, 100, 600, len(whole) // 2, whole.index(LAYER[:40]) + 50):
            self.assertTrue(self.refused(whole[:size]))
        self.assertIn("is missing", self.refused(archive(MEMBERS[:-1])))
        self.assertIn("no index", self.refused(archive(MEMBERS[:1])))
        self.assertRaises(LimitExceeded, self.read, whole, largest_text=20)
        self.assertRaises(WaltError, self.read, whole, largest=len(LAYER))
        huge = tarfile.TarInfo(MEMBERS[-1][0])
        huge.size = 1 << 45
        bomb = b"".join(
            header.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)
            for header, data in [*((named(*member), member[1]) for member in MEMBERS[:-1]),
                                 (huge, LAYER)]
        )
        self.assertIn("larger than 32 GiB", self.refused(bomb))
