"""Archives of local files, and hostile archives."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.errors import Failure
from walt.client.operations import archives
from walt.client.operations.ignored import ignored_in
from walt.common.ignored import Ignored
from walt.common.transfers import DIRECTORY, FILE, MISSING, OTHER, Place


def make(*members: tuple[str, Any]) -> io.BytesIO:
    """Return an archive; a member is a name and bytes, or attributes of its TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(member, key, value)
                archive.addfile(member)
    stream.seek(0)
    return stream


DIR = {"type": tarfile.DIRTYPE, "mode": 0o755}


class ArchiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.base.mkdir()
        self.told: list[str] = []

    def unpack(self, stream: Any, kind: str, name: str | None = "out") -> bool:
        return archives.unpack(stream, kind, Place(str(self.base), name), self.told.append)

    def test_to_be_built(self) -> None:
        """What is ignored is not looked at; special files are left out, modes are kept."""
        context = self.base / "context"
        for name in ("kept/file", "ignored/deep/file", "ignored/deep/but", "empty/file"):
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text("x")
        (context / "empty/file").unlink()
        os.mkfifo(context / "ignored/pipe")
        os.mkfifo(context / "pipe")
        (context / "kept").chmod(0o1777)
        (context / ".dockerignore").write_text("ignored\n!ignored/deep/but\nDockerfile\n")
        (context / "Dockerfile").write_text("FROM x\n")
        stream = io.BytesIO()
        archives.pack(str(context), None, stream, self.told.append, ignored_in(str(context)))
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            modes = {one.name: one.mode for one in archive}
        self.assertEqual(list(modes), [
            "./.dockerignore", "./Dockerfile", "./empty", "./ignored", "./ignored/deep",
            "./ignored/deep/but", "./kept", "./kept/file",
        ])
        self.assertEqual(modes["./kept"], 0o1777)
        self.assertEqual(self.told, [f"{context.resolve()}/pipe: a pipe cannot be copied"])

    @given(st.text(max_size=60), st.text(max_size=30))
    def test_any_rule(self, text: str, path: str) -> None:
        """Any text is read or refused with a reason, and answers."""
        try:
            rules = Ignored(text.splitlines())
        except ValueError:
            return
        self.assertIn(path in rules, (True, False))

    def test_kinds(self) -> None:
        """Links are followed."""
        (self.base / "file").write_bytes(b"")
        (self.base / "link").symlink_to("file")
        for path, kind in (
            (".", DIRECTORY), ("file", FILE), ("link", FILE), ("ghost", MISSING),
            ("/dev/null", OTHER),
        ):
            self.assertEqual(archives.kind_of(str(self.base / path)), kind)

    def tree(self) -> Path:
        """A directory with a bit of everything."""
        top = self.base / "tree"
        (top / "sub" / "deep").mkdir(parents=True)
        (top / "a file").write_bytes(b"content")
        (top / "a file").chmod(0o640)
        (top / "sub" / "again").hardlink_to(top / "a file")
        (top / "link").symlink_to("/etc/passwd")
        (top / ("long" * 40)).write_bytes(b"x" * 5000)
        os.mkfifo(top / "sub" / "fifo")
        return top

    def test_round_trip(self) -> None:
        """Contents, modes, dates and links come back; a new directory gets its mode."""
        top = self.tree()
        (top / "sub").chmod(0o700)
        os.utime(top / "sub", (1e9, 1e9))
        stream = io.BytesIO()
        archives.pack(str(top), "out", stream, self.told.append)
        stream.seek(0)
        self.assertTrue(self.unpack(stream, DIRECTORY))
        out = self.base / "out"
        self.assertEqual((out / "a file").read_bytes(), b"content")
        self.assertEqual(stat.S_IMODE((out / "a file").stat().st_mode), 0o640)
        self.assertEqual((out / "sub" / "again").read_bytes(), b"content")
        self.assertEqual(os.readlink(out / "link"), "/etc/passwd")
        self.assertEqual(stat.S_IMODE((out / "sub").stat().st_mode), 0o700)
        self.assertEqual((out / "sub").stat().st_mtime, 1e9)
        self.assertEqual(len((out / ("long" * 40)).read_bytes()), 5000)
        self.assertEqual(self.told, ["./sub/fifo: a special file was left out"])

    def test_links_to_files_stay(self) -> None:
        """What goes where a link to a file is goes through it; links of archives are not such."""
        real, victim = self.base / "real", self.base / "victim"
        for kind, entry in ((FILE, "out"), (DIRECTORY, "out/link")):
            stream = io.BytesIO()
            (self.base / "source").mkdir(exist_ok=True)
            (self.base / "source" / "link").write_text("new")
            real.write_text("old")
            (self.base / "out").parent.mkdir(exist_ok=True)
            if kind == DIRECTORY:
                (self.base / "out").unlink()
                (self.base / "out").mkdir()
            (self.base / entry).symlink_to(real.absolute())
            source = self.base / "source"
            archives.pack(
                str(source / "link" if kind == FILE else source),
                "out" if kind == FILE else None, stream, self.told.append,
            )
            stream.seek(0)
            self.assertTrue(self.unpack(stream, kind))
            self.assertTrue((self.base / entry).is_symlink())
            self.assertEqual(real.read_text(), "new")
        victim.write_text("safe")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            link = tarfile.TarInfo("./trap")
            link.type, link.linkname = tarfile.SYMTYPE, str(victim.absolute())
            archive.addfile(link)
            archive.addfile(tarfile.TarInfo("./trap"), io.BytesIO())
        stream.seek(0)
        self.unpack(stream, DIRECTORY)
        self.assertEqual(victim.read_text(), "safe")

    def test_files_of_the_kernel(self) -> None:
        """Their size is not known before they are read."""
        stream = io.BytesIO()
        archives.pack("/proc/version", "out", stream, self.told.append)
        stream.seek(0)
        self.assertTrue(self.unpack(stream, FILE))
        self.assertEqual((self.base / "out").read_text(), Path("/proc/version").read_text())

    def test_other_programs_read_it(self) -> None:
        """The tar of GNU and the one of busybox; everything belongs to root."""
        top = self.tree()
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        here = os.getcwd()
        os.chdir(top)
        listening.bind("sock")
        os.chdir(here)
        stream = io.BytesIO()
        archives.pack(str(top), None, stream, self.told.append)
        self.assertIn("a socket cannot be copied", self.told[0])
        for program in (["tar"], ["busybox", "tar"]):
            listed = subprocess.run(
                [*program, "-tv"], input=stream.getvalue(), capture_output=True, check=True,
            ).stdout.decode()
            self.assertIn("long" * 40, listed)
            self.assertIn("root/root", listed)
            self.assertNotIn(" ./\n", listed)  # merged: not the directory itself

    def test_file(self) -> None:
        """One file, through a link, replaces another when it is whole."""
        (self.base / "source").write_bytes(b"new")
        (self.base / "link").symlink_to("source")
        (self.base / "out").write_bytes(b"old")
        stream = io.BytesIO()
        archives.pack(str(self.base / "link"), "out", stream, self.told.append)
        whole = stream.getvalue()
        self.assertRaises(Failure, self.unpack, io.BytesIO(whole[:514]), FILE)
        self.assertEqual((self.base / "out").read_bytes(), b"old")
        self.assertEqual(sorted(os.listdir(self.base)), ["link", "out", "source"])
        self.assertTrue(self.unpack(io.BytesIO(whole), FILE))
        self.assertEqual((self.base / "out").read_bytes(), b"new")

    def test_unreadable(self) -> None:
        """A source that vanished is a failure with its name."""
        failure = self.assertRaises(
            Failure, archives.pack, "/nonexistent/x", "x", io.BytesIO(), self.told.append
        )
        self.assertIn("/nonexistent/x", str(failure))

    def test_hostile(self) -> None:
        """Nothing is written outside, whatever the archive says."""
        outside = self.base / "outside"
        outside.mkdir()
        for members in (
            [("../outside/x", b"bad")],
            [("./../outside/x", b"bad")],
            [("./a", DIR), ("./a/../../outside/x", b"bad")],
            [("./l", {"type": tarfile.SYMTYPE, "linkname": "../outside"}), ("./l/x", b"bad")],
            [("./l", {"type": tarfile.SYMTYPE, "linkname": str(outside)}), ("l/x/y", b"bad")],
            [("./h", {"type": tarfile.LNKTYPE, "linkname": "../outside/../../secret"})],
            [("./f", b""), ("./f/x", b"bad")],
            [(".", b"bad")],
        ):
            self.assertRaises(Failure, self.unpack, make(*members), DIRECTORY)
            self.assertEqual(os.listdir(outside), [], members)
        self.assertTrue(self.unpack(
            make(("./dev", {"type": tarfile.CHRTYPE}), ("./etc", DIR), ("/etc/x", b"in")),
            DIRECTORY, "absolute",
        ))
        self.assertEqual((self.base / "absolute" / "etc" / "x").read_bytes(), b"in")
        self.assertEqual(self.told[-1], "./dev: a special file was left out")

    def test_link_to_a_directory_is_not_entered(self) -> None:
        """A directory of the archive does not follow a link that an earlier member made."""
        stream = make(
            ("./d", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("./d", DIR),
        )
        self.assertRaises(Failure, self.unpack, stream, DIRECTORY)

    def test_links_that_exist(self) -> None:
        """A link to a directory that the person has stays one, and is entered, as by `cp -r`."""
        place, disk = self.base / "out", self.base / "disk"
        place.mkdir()
        disk.mkdir()
        (place / "data").symlink_to("../disk")
        self.unpack(make(("./data", DIR), ("./data/x", b"in")), DIRECTORY)
        self.assertEqual(os.readlink(place / "data"), "../disk")
        self.assertEqual((disk / "x").read_bytes(), b"in")
        # One that the archive makes is never entered, under whatever name it is met.
        (place / "here").mkdir()
        (place / "alias").symlink_to("here")
        link = {"type": tarfile.SYMTYPE, "linkname": str(self.base)}
        for name in ("./here/l/x", "./alias/l/x"):
            members = make(("./alias/l", link), (name, b"bad"))
            self.assertRaises(Failure, self.unpack, members, DIRECTORY)
        hard = {"type": tarfile.LNKTYPE, "linkname": "alias/l"}
        members = make(("./alias/l", link), ("./h", hard), ("./h/x", b"bad"))
        self.assertRaises(Failure, self.unpack, members, DIRECTORY)
        self.assertFalse((self.base / "x").exists())

    def test_setuid(self) -> None:
        """What is received never runs as another user."""
        self.unpack(make(("./x", {"mode": 0o6755, "size": 0})), DIRECTORY)
        self.assertEqual(stat.S_IMODE((self.base / "out" / "x").stat().st_mode), 0o755)

    def test_not_what_was_asked(self) -> None:
        """A directory in place of a file, a file onto a directory."""
        self.assertRaises(Failure, self.unpack, make(("./x", DIR)), FILE)
        (self.base / "out").mkdir()
        self.assertRaises(Failure, self.unpack, make(("./x", b"")), FILE)
        self.assertFalse(self.unpack(io.BytesIO(b"\0" * 10240), FILE, "other"))
        self.assertFalse(self.unpack(io.BytesIO(b""), FILE, "other"))

    @given(st.binary(max_size=2000))
    def test_garbage(self, data: bytes) -> None:
        """Bytes that are no archive are a failure or nothing."""
        try:
            archives.unpack(
                io.BytesIO(data), FILE, Place(str(self.base), "garbage"), self.told.append
            )
        except Failure:
            pass
