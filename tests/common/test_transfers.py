"""Operands of transfers, and where things go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Conflict, Invalid, NotFound
from walt.common.transfers import (
    DOWNLOAD,
    TO_BOOTED_IMAGE,
    UPLOAD,
    Operand,
    Place,
    parse_operand,
    parse_transfer,
    resolve,
)


class ParseTests(SynchronousTestCase):
    def test_operands(self) -> None:
        """Remote paths are absolute, without slash at the end."""
        for text, expected in (
            ("file", Operand(None, "file")),
            ("dir/", Operand(None, "dir", slash=True)),
            ("dir/.", Operand(None, "dir/.")),
            ("/", Operand(None, "/", slash=True)),
            ("img:/etc/", Operand("img", "/etc", slash=True)),
            ("img:tag:/etc", Operand("img:tag", "/etc")),
            ("img:x", Operand("img", "/root/x")),
            ("img:", Operand("img", "/root")),
            ("img:/", Operand("img", "/", slash=True)),
            ("img:.", Operand("img", "/root/.")),
        ):
            self.assertEqual(parse_operand("image", text), expected, text)

    def test_colons_in_names(self) -> None:
        """Files are often named by a time of day: they can be copied, on both sides."""
        for kind, text, expected in (
            ("node", "./12:30.log", Operand(None, "./12:30.log")),
            ("node", "/tmp/12:30:59/", Operand(None, "/tmp/12:30:59", slash=True)),
            ("node", "runs/12:30", Operand(None, "runs/12:30")),
            ("node", "n:/tmp/12:30.log", Operand("n", "/tmp/12:30.log")),
            ("node", "n:12:30.log", Operand("n", "/root/12:30.log")),
            ("image", "./12:30.log", Operand(None, "./12:30.log")),
            ("image", "img:/12:30.log", Operand("img", "/12:30.log")),
            ("image", "img:tag:/12:30.log", Operand("img:tag", "/12:30.log")),
            ("image", "img:tag:12:30", Operand("img:tag", "/root/12:30")),
            ("image", "img:tag:a/12:30", Operand("img:tag", "/root/a/12:30")),
        ):
            self.assertEqual(parse_operand(kind, text), expected, (kind, text))

    def test_directions(self) -> None:
        """Exactly one side is remote, or the target is the image that a node boots."""
        self.assertEqual(parse_transfer("image", "a", "img:/b").direction, UPLOAD)
        self.assertEqual(parse_transfer("image", "img:/b", "a").direction, DOWNLOAD)
        booted = parse_transfer("node", "n1:/etc", "booted-image")
        self.assertEqual((booted.direction, booted.entity), (TO_BOOTED_IMAGE, "n1"))
        self.assertEqual(booted.target, Operand("n1", "/etc"))

    def test_refused(self) -> None:
        """Anything else gets the usage text."""
        for kind, source, target in (
            ("image", "a", "b"), ("image", "i:a", "j:b"), ("image", "", "i:a"),
            ("image", ":a", "b"), ("node", "a", "booted-image"), ("image", "i:a", ""),
        ):
            refused = self.assertRaises(Invalid, parse_transfer, kind, source, target)
            self.assertIn(f"walt {kind} cp", str(refused))
        # For images this is the name of a file.
        self.assertEqual(parse_transfer("image", "i:a", "booted-image").direction, DOWNLOAD)

    def test_bad_paths(self) -> None:
        """Paths are bounded."""
        for text in ("i:" + "a" * 5000, "i:a\0b"):
            self.assertRaises(Invalid, parse_operand, "image", text)

    @given(st.sampled_from(("node", "image")), st.text(max_size=50))
    def test_any_text(self, kind: str, text: str) -> None:
        """No operand makes the parser fail otherwise."""
        try:
            operand = parse_operand(kind, text)
        except Invalid:
            return
        self.assertEqual(operand.entity is None, ":" not in text.partition("/")[0])
        if operand.entity is not None:
            self.assertTrue(operand.path.startswith("/"))


class ResolveTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The destination rules, in their order."""
        for arguments, place in (
            (("a", "f", "/x/new", "-", "d"), Place("/x", "new")),
            (("a", "d", "/x/new", "-", "d"), Place("/x", "new")),
            (("a/.", "d", "/x/new", "-", "d"), Place("/x", "new")),
            (("a", "f", "/x/old", "f", "d"), Place("/x", "old")),
            (("p/a", "f", "/x", "d", "d"), Place("/x", "a")),
            (("p/a", "d", "/x", "d", "d"), Place("/x", "a")),
            (("p/a/.", "d", "/x", "d", "d"), Place("/x", None)),
            (("/", "d", "/x", "d", "d"), Place("/x", None)),
            (("..", "d", "x", "d", "d"), Place("x", None)),
            (("a", "f", "new", "-", "d"), Place(".", "new")),
            (("a", "f", "/new", "-", "d"), Place("/", "new")),
        ):
            self.assertEqual(resolve(*arguments), place, arguments)
        self.assertEqual(
            resolve("/etc", "d", "/etc", "d", "d", in_place=True), Place("/etc", None)
        )
        self.assertEqual(Place("/", "new").path, "/new")

    def test_a_slash_at_the_end(self) -> None:
        """It means a directory that is there, unless a directory is copied."""
        self.assertEqual(resolve("a", "f", "/x", "d", "d", slash=True), Place("/x", "a"))
        self.assertEqual(resolve("a", "d", "/x", "-", "d", slash=True), Place("/", "x"))
        for kind in ("-", "f"):
            self.assertRaises(NotFound, resolve, "a", "f", "/x", kind, "d", slash=True)

    def test_refused(self) -> None:
        """What cannot be copied says so, quoting the path."""
        for arguments, error, quoted in (
            (("a", "-", "/x", "d", "d"), NotFound, "'a'"),
            (("a", "o", "/x", "d", "d"), Invalid, "'a'"),
            (("a", "f", "/x/y", "-", "-"), NotFound, "'/x/y'"),
            (("a", "f", "/x/y", "-", "f"), NotFound, "'/x/y'"),
            (("a", "d", "/x/y", "f", "d"), Conflict, "'/x/y'"),
            (("a", "f", "/dev/null", "o", "d"), Invalid, "'/dev/null'"),
        ):
            refused = self.assertRaises(error, resolve, *arguments)
            self.assertIn(quoted, str(refused))
