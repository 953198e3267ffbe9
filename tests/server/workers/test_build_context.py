"""Archives that a client sends: whatever they hold, nothing leaves the directory."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid, LimitExceeded
from walt.server.workers import build_context


def member(name: str, content: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


class UnpackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.base.mkdir()
        self.outside = self.base / "outside"
        self.outside.mkdir()
        self.count = 0

    def unpack(
        self, *members: tuple[tarfile.TarInfo, bytes], data: bytes | None = None, **limits: int
    ) -> Path:
        self.count += 1
        if data is None:
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w") as archive:
                for info, content in members:
                    archive.addfile(info, io.BytesIO(content))
            data = made.getvalue()
        (self.base / "archive").write_bytes(data)
        place = self.base / f"content-{self.count}"
        build_context.unpack(
            {"archive": str(self.base / "archive"), "directory": str(place)}, lambda text: None,
            **limits,
        )
        return place

    def test_ordinary(self) -> None:
        """Files, directories, links; parents are made; modes are kept."""
        place = self.unpack(
            member("./a/b/file", b"content", mode=0o4755), link("./a/link", "/etc/passwd"),
            link("hard", "a/b/file", tarfile.LNKTYPE),
            member("a", type=tarfile.DIRTYPE, mode=0o755),
            member("all", type=tarfile.DIRTYPE, mode=0o1777),
            member("none", type=tarfile.DIRTYPE, mode=0o555), member("none/file", b"x", mode=0o400),
            member("loop", type=tarfile.DIRTYPE), link("loop/self", "."),
        )
        self.assertEqual((place / "a/b/file").read_bytes(), b"content")
        self.assertEqual((place / "a/b/file").stat().st_mode & 0o7777, 0o4755)
        for name, mode in (("all", 0o1777), ("none", 0o555), ("none/file", 0o400)):
            self.assertEqual((place / name).stat().st_mode & 0o7777, mode)
        self.assertTrue((place / "a/link").is_symlink())
        self.assertEqual((place / "hard").stat().st_ino, (place / "a/b/file").stat().st_ino)

    def test_hostile(self) -> None:
        """Nothing is written outside, and the reason is told."""
        outside = str(self.outside)
        for members in (
            [member("../outside/file", b"x")], [member("a/../../outside/file", b"x")],
            [member(f"{self.outside.absolute()}/file", b"x")],
            [link("out", outside), member("out/file", b"x")],
            [link("out", "../outside"), member("out/file", b"x")],
            [link("a", "b"), link("b", "a"), member("a/file", b"x")],
            [link("hard", "../outside/file", tarfile.LNKTYPE)],
            [member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
            [member("block", type=tarfile.BLKTYPE)], [member("pipe", type=tarfile.FIFOTYPE)],
            [member(".", b"x")], [member("a", b"x"), member("a/b", b"x")],
        ):
            self.assertRaises(Invalid, self.unpack, *members)
        self.assertEqual(os.listdir(self.outside), [])
        # A link in the place of a file is replaced, never written through.
        (self.outside / "file").write_text("kept")
        place = self.unpack(link("f", str(self.outside.absolute() / "file")), member("f", b"new"))
        self.assertEqual((self.outside / "file").read_text(), "kept")
        self.assertEqual((place / "f").read_text(), "new")

    def test_depth(self) -> None:
        """100 levels of directories."""
        place = self.unpack(member("/".join(["d"] * 100) + "/file", b"x"))
        self.assertTrue((place / "/".join(["d"] * 100) / "file").exists())

    def test_bombs(self) -> None:
        """Much out of little is stopped before the disk is full, in bounded time."""
        zeros = gzip.compress(bytes(64 << 20))
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for number in range(40):
                info = tarfile.TarInfo(f"f{number}")
                info.size = 1 << 40
                archive.addfile(info)
        small = 1 << 20
        self.assertRaises(LimitExceeded, self.unpack, data=made.getvalue(), most_bytes=small)
        huge = io.BytesIO()
        with tarfile.open(fileobj=huge, mode="w:gz") as archive:
            info = tarfile.TarInfo("zeros")
            info.size = 64 << 20
            archive.addfile(info, gzip.GzipFile(fileobj=io.BytesIO(zeros)))
        self.assertLess(len(huge.getvalue()), small)
        self.assertRaises(LimitExceeded, self.unpack, data=huge.getvalue(), most_bytes=small)
        many = [member(f"f{n}") for n in range(11)]
        self.assertRaises(LimitExceeded, self.unpack, *many, most_members=10)

    def test_damaged(self) -> None:
        """Neither garbage nor half an archive."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as archive:
            info = tarfile.TarInfo("file")
            info.size = 100_000
            archive.addfile(info, io.BytesIO(os.urandom(100_000)))
        for data in (b"garbage" * 1000, made.getvalue()[:50_000]):
            self.assertRaises(Invalid, self.unpack, data=data)

    def test_headers(self) -> None:
        """Numbers and headers that make no sense, or take much memory, are the archive's fault."""
        header = tarfile.TarInfo("header")
        header.type, header.size = tarfile.XHDTYPE, 900 << 20
        long = header.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)
        header.size = 13
        endless = (header.tobuf(tarfile.GNU_FORMAT) + b"13 comment=x\n".ljust(512, b"\0")) * 3000
        for data in (gzip.compress(long), gzip.compress(endless)):
            self.assertRaises(Invalid, self.unpack, data=data)
        for moment in ("1e30", "-1e30", "nan", "inf", "1e999"):
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
                info = tarfile.TarInfo("file")
                info.pax_headers = {"mtime": moment}
                archive.addfile(info)
            self.assertRaises(Invalid, self.unpack, data=made.getvalue())

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(
        st.text("./ab", min_size=1, max_size=12), st.sampled_from("fdsh"),
        st.text("./ab", min_size=1, max_size=12),
    ), max_size=8))
    def test_any_names(self, entries: list[tuple[str, str, str]]) -> None:
        """Any mixture of members stays inside or is refused."""
        kinds = {"d": tarfile.DIRTYPE, "s": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}
        members = [
            member(name, b"x") if kind == "f"
            else member(name, type=kinds[kind], linkname=target)
            for name, kind, target in entries
        ]
        before = set(os.listdir(self.base))
        try:
            self.unpack(*members)
        except Invalid:
            pass
        self.assertEqual(
            set(os.listdir(self.base)) - before - {"archive"}, {f"content-{self.count}"}
        )
        self.assertEqual(os.listdir(self.outside), [])
