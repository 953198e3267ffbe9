"""Editing an image's tree never reaches the server's own files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.podman.imageroot import ImageRoot


class TreeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wtir-"))
        self.addCleanup(shutil.rmtree, self.base)
        self.tree = self.base / "image"
        self.tree.mkdir()
        self.secret = self.base / "secret"
        self.secret.write_text("server")
        self.root = ImageRoot(self.tree)
        self.addCleanup(self.root.__exit__, None, None, None)

    def untouched(self) -> None:
        self.assertEqual(self.secret.read_text(), "server")
        self.assertEqual(sorted(p.name for p in self.base.iterdir()), ["image", "secret"])


class ImageRootTests(TreeCase):
    def test_write_makes_directories_and_file(self) -> None:
        """A missing path is made, with the mode asked for."""
        self.assertTrue(self.root.write("/a/b/c", b"x", 0o600))
        self.assertEqual((self.tree / "a/b/c").read_bytes(), b"x")
        self.assertEqual((self.tree / "a/b/c").stat().st_mode & 0o777, 0o600)

    def test_write_same_content_changes_nothing(self) -> None:
        """Writing twice keeps the same file: preparing a tree again is cheap."""
        self.root.write("/a", b"x")
        inode = (self.tree / "a").stat().st_ino
        self.assertFalse(self.root.write("/a", b"x"))
        self.assertEqual((self.tree / "a").stat().st_ino, inode)
        self.assertTrue(self.root.write("/a", b"x", 0o600))

    def test_link_out_of_the_image_is_replaced(self) -> None:
        """A link to a file of the server is replaced by a file, its target untouched."""
        for target in (str(self.secret), "../secret", "../../../../../../" + str(self.secret)):
            link = self.tree / "conf"
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            self.root.write("/conf", b"image")
            self.assertFalse(link.is_symlink())
            self.untouched()

    def test_directory_link_out_of_the_image_stays_inside(self) -> None:
        """A directory that links to the server's is the one of that name in the image."""
        (self.tree / "etc").symlink_to(self.base)
        self.root.write("/etc/secret", b"image")
        self.untouched()
        self.assertEqual((self.tree / str(self.base).lstrip("/") / "secret").read_bytes(), b"image")

    def test_parents_stop_at_the_root(self) -> None:
        """`..` never leads above the image, in paths and in links."""
        (self.tree / "up").symlink_to("../../..")
        self.root.write("/up/secret", b"image")
        self.root.write("/../../x", b"image")
        self.assertEqual((self.tree / "secret").read_bytes(), b"image")
        self.assertEqual((self.tree / "x").read_bytes(), b"image")
        self.untouched()

    def test_merged_usr_is_followed_inside(self) -> None:
        """/bin -> usr/bin, relative or absolute, leads to the image's /usr/bin."""
        (self.tree / "usr/bin").mkdir(parents=True)
        (self.tree / "bin").symlink_to("usr/bin")
        (self.tree / "sbin").symlink_to("/usr/bin")
        self.root.write("/bin/a", b"1")
        self.root.write("/sbin/b", b"2")
        self.assertEqual((self.tree / "usr/bin/a").read_bytes(), b"1")
        self.assertEqual((self.tree / "usr/bin/b").read_bytes(), b"2")
        self.assertEqual(self.root.real("/sbin/b"), "/usr/bin/b")

    def test_link_loops_are_errors(self) -> None:
        """Links in a circle raise OSError in place of turning for ever."""
        (self.tree / "a").symlink_to("b")
        (self.tree / "b").symlink_to("a")
        with self.assertRaises(OSError):
            self.root.write("/a/x", b"")
        with self.assertRaises(OSError):
            self.root.real("/a")
        self.assertFalse(self.root.exists("/a"))

    def test_a_fifo_is_neither_read_nor_written(self) -> None:
        """A named pipe where a file is expected does not hang: reading it is an error."""
        os.mkfifo(self.tree / "pipe")
        with self.assertRaises(OSError):
            self.root.read("/pipe")
        self.assertEqual(self.root.kind("/pipe"), "other")
        self.root.write("/pipe", b"x")
        self.assertEqual((self.tree / "pipe").read_bytes(), b"x")

    def test_reading_follows_no_last_link(self) -> None:
        """read() of a link raises, so nothing of the server can be read."""
        (self.tree / "shadow").symlink_to(self.secret)
        with self.assertRaises(OSError):
            self.root.read("/shadow")

    def test_removing_a_link_keeps_its_target(self) -> None:
        """remove() and rename() act on the link itself."""
        (self.tree / "a").symlink_to(self.secret)
        self.root.rename("/a", "b")
        self.assertEqual(self.root.read_link("/b"), str(self.secret))
        self.root.remove("/b")
        self.root.remove("/b")
        self.untouched()

    def test_links_below_lists_without_following(self) -> None:
        """links_below() names links, those to directories too, and enters none."""
        (self.tree / "boot/x").mkdir(parents=True)
        (self.tree / "boot/x/out").symlink_to("/etc")
        (self.tree / "boot/k").symlink_to("x/out")
        self.assertEqual(sorted(self.root.links_below("/boot")), ["/boot/k", "/boot/x/out"])
        (self.tree / "linked").symlink_to("boot")
        self.assertEqual(self.root.links_below("/linked"), [])

    def test_bad_paths_are_refused(self) -> None:
        """A relative path, or one without a last name, is a programming error."""
        for path in ("", "a", "/", "/a/..", "/a/."):
            with self.assertRaises(ValueError):
                self.root.write(path, b"")


PART = st.sampled_from(["a", "b", "c", "..", ".", "/", "secret"])


class HostileTreeTests(TreeCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(["a", "b", "c", "a/b", "b/c"]),
                           st.lists(PART, min_size=1, max_size=5)), max_size=5),
        st.lists(PART, max_size=5),
    )
    def test_no_write_leaves_the_tree(
        self, links: list[tuple[str, list[str]]], path: list[str]
    ) -> None:
        """Whatever links a tree holds, files are written inside it or not at all."""
        for name in list(self.tree.iterdir()):
            if name.is_dir() and not name.is_symlink():
                shutil.rmtree(name)
            else:
                name.unlink()
        for name, target in links:
            place = self.tree / name
            if place.parent.is_symlink():
                continue  # this test itself would leave the tree
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to("/".join(target))
            except OSError:
                continue
        try:
            self.root.write("/" + "/".join([*path, "secret"]), b"image")
        except (OSError, ValueError):
            pass
        self.untouched()
