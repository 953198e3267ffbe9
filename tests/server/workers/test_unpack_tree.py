"""What changed on a node, put into a tree: types, owners, modes, times, attributes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.places import ON_DISK
from walt.common.archives import BoundedMember
from walt.common.errors import Invalid
from walt.server.workers.unpack_tree import XATTR, Tree

MTIME = "1234567890.123456789"
CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def member(name: str, data: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a directory of an archive."""
    return member(name, **{"mode": 0o755, **values}, type=tarfile.DIRTYPE)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """Return a link of an archive."""
    return member(name, type=kind, linkname=target)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


class TreeTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A tree, and something outside."""
        self.base = Path(tempfile.mkdtemp(prefix="walt-tree-", dir=ON_DISK))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.base)], check=True)
        self.tree, self.outside = self.base / "tree", self.base / "outside"
        self.tree.mkdir()
        self.outside.mkdir()
        (self.outside / "file").write_text("kept")

    def unpack(self, *members: tuple[tarfile.TarInfo, bytes]) -> list[str]:
        """Unpack with the program itself; return what it left out."""
        done = subprocess.run(
            [sys.executable, "-m", "walt.server.workers.unpack_tree", str(self.tree)],
            input=archive(*members), capture_output=True, check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout.decode().splitlines()

    def test_types(self) -> None:
        """A directory becomes a link, a file or the reverse."""
        for name in ("dir-link", "dir-file", "dir-pipe"):
            (self.tree / name / "deep").mkdir(parents=True)
            (self.tree / name / "deep/file").write_text("x")
        (self.tree / "file-dir").write_text("x")
        (self.tree / "link-dir").symlink_to(self.outside)
        (self.tree / "link-file").symlink_to(self.outside / "file")
        (self.tree / "stays").mkdir()
        (self.tree / "stays/old").write_text("old")
        self.unpack(
            link("./dir-link", "elsewhere"), member("./dir-file", b"new"),
            member("./dir-pipe", type=tarfile.FIFOTYPE), directory("./file-dir"),
            member("./file-dir/file", b"new"), directory("./link-dir"),
            member("./link-dir/file", b"new"), member("./link-file", b"new"),
            directory("./stays"), member("./stays/new", b"new"), member("./no/parents", b"new"),
            link("./hard", "./stays/new", tarfile.LNKTYPE),
        )
        self.assertEqual(os.readlink(self.tree / "dir-link"), "elsewhere")
        self.assertTrue((self.tree / "dir-pipe").is_fifo())
        for name in ("dir-file", "file-dir/file", "link-dir/file", "link-file", "stays/new",
                     "no/parents"):
            self.assertEqual((self.tree / name).read_text(), "new")
        self.assertFalse((self.tree / "link-dir").is_symlink())
        self.assertTrue((self.tree / "stays/old").exists())
        self.assertEqual((self.tree / "hard").stat().st_nlink, 2)
        self.assertEqual((self.outside / "file").read_text(), "kept")

    def test_keys_of_users(self) -> None:
        """What WalT put into root's authorized_keys for one node does not become part of an image.
        """
        keys = b"ssh-rsa A me\nssh-rsa B walt-user-key\n# C\nssh-rsa D walt-user-key"
        self.unpack(
            directory("./root"), directory("./root/.ssh", mode=0o700),
            member("./root/.ssh/authorized_keys", keys, mode=0o600),
            member("./root/other", keys),
        )
        kept = self.tree / "root/.ssh/authorized_keys"
        self.assertEqual(kept.read_bytes(), b"ssh-rsa A me\n# C\n")
        self.assertEqual(kept.stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.tree / "root/other").read_bytes(), keys)

    def test_everything_about_files(self) -> None:
        """Owners by number, modes, nanoseconds, attributes; of directories, too."""
        headers = {
            "mtime": MTIME, f"{XATTR}user.note": "é\udcff",
            f"{XATTR}security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
            f"{XATTR}trusted.overlay.opaque": "y",
        }
        mine: dict[str, Any] = {"uid": 1234, "gid": 4321, "uname": "root", "gname": "root"}
        self.unpack(
            directory("./d", mode=0o1555, pax_headers={"mtime": MTIME}, **mine),
            member("./d/f", b"x", mode=0o4711, pax_headers=headers, **mine),
            link("./d/l", "x"),
        )
        file, here = self.tree / "d/f", self.tree / "d"
        for path, mode in ((file, 0o4711), (here, 0o1555)):
            found = path.stat()
            self.assertEqual(
                (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_mtime_ns),
                (1234, 4321, mode, int(MTIME.replace(".", ""))),
            )
        self.assertEqual(os.getxattr(file, "user.note"), "é".encode() + b"\xff")
        self.assertEqual(os.getxattr(file, "security.capability"), CAPABILITY)
        self.assertNotIn("trusted.overlay.opaque", os.listxattr(file))

    def test_left_out(self) -> None:
        """Devices, and what is mounted in the tree."""
        (self.tree / "mounted").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "x", str(self.tree / "mounted")], check=True)
        self.addCleanup(subprocess.run, ["umount", str(self.tree / "mounted")], check=True)
        self.assertEqual(self.unpack(
            member("./disk", type=tarfile.BLKTYPE, devmajor=8), directory("./mounted"),
            member("./mounted/a", b"x"), member("./mounted/b/c", b"x"),
            member("./zero", type=tarfile.CHRTYPE), member("./kept", b"x"),
        ), ["/disk", "/mounted", "/mounted/a", "/mounted/b/c", "/zero"])
        self.assertEqual(sorted(os.listdir(self.tree)), ["kept", "mounted"])
        self.assertEqual(os.listdir(self.tree / "mounted"), [])

    def test_hostile(self) -> None:
        """Nothing outside is written, nor linked; the reason is told."""
        for members in (
            [member("../outside/file", b"x")], [member("a/../../outside/file", b"x")],
            [link("hard", "../outside/file", tarfile.LNKTYPE)],
            [link("hard", "nowhere", tarfile.LNKTYPE)],
            [member("a", b"x", pax_headers={"mtime": "nan"})],
            [member("a", b"x", pax_headers={"mtime": "9" * 40})],
            [member("a", b"x", pax_headers={"mtime": "1e999990"})],
        ):
            tree = Tree(str(self.tree))
            with tarfile.open(fileobj=io.BytesIO(archive(*members)), tarinfo=BoundedMember) as tar:
                with self.assertRaises((Invalid, OSError, OverflowError, ValueError)):
                    for one in tar:
                        tree.add(tar, one)
                    tree.finish()
        # Through a link that was there, or that the archive makes: it is replaced.
        (self.tree / "there").symlink_to(self.outside)
        self.unpack(
            member("./there/file", b"x"), link("./made", str(self.outside)),
            member("./made/file", b"x"), member(f"./{self.outside}/file", b"x"),
        )
        self.assertEqual(os.listdir(self.outside), ["file"])
        self.assertEqual((self.outside / "file").read_text(), "kept")

    @settings(max_examples=60)
    @given(st.lists(st.tuples(
        st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]),
    ), max_size=8))
    def test_any_types(self, wanted: list[tuple[str, bytes]]) -> None:
        """Whatever was there, the last member of a name is what is there."""
        tree = Tree(str(self.tree))
        data = archive(*(
            member(name, type=kind, linkname="/nowhere" if kind == tarfile.SYMTYPE else "")
            for name, kind in wanted
        ))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for one in tar:
                tree.add(tar, one)
        tree.finish()
        for number, (name, kind) in enumerate(wanted):
            later = [one for one, _ in wanted[number + 1:]]
            if any(one.startswith(f"{name}/") or name.startswith(f"{one}/") or one == name
                   for one in later):
                continue
            path = self.tree / name
            found = {
                tarfile.REGTYPE: path.is_file(), tarfile.DIRTYPE: path.is_dir(),
                tarfile.SYMTYPE: path.is_symlink(), tarfile.FIFOTYPE: path.is_fifo(),
            }
            self.assertTrue(found[kind], (name, kind))
