"""Names, sentences and tables."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common import names
from walt.common.sentences import enumerate_names, near, subject, verb
from walt.common.tables import render_table, without_empty_columns


class SlipTests(SynchronousTestCase):
    def test_one_slip_of_a_finger_is_understood(self) -> None:
        """A letter too many, too few, another one, two swapped; never another number."""
        known = {"vnode1", "my-nodes", "boot.timeout"}
        for word, found in (
            ("vnoode1", "vnode1"), ("vnde1", "vnode1"), ("vmode1", "vnode1"),
            ("vndoe1", "vnode1"), ("mynodes", "my-nodes"), ("boottimeout", "boot.timeout"),
            ("vnode2", None), ("", None), ("x" * 64, None), ("server", None),
        ):
            self.assertEqual(near(word, known), found, word)


class NameTests(SynchronousTestCase):
    def test_device_names(self) -> None:
        """A letter, then letters, digits and dashes, two characters at least, a DNS label."""
        for good in ("ab", "A1", "node-1", "z" * 63):
            self.assertTrue(names.is_device_name(good), good)
        for bad in (
            "", "a", "1a", "-a", "a_b", "a.b", "a\n", "a b", "z" * 64, "né", "--", "x-", "a-b-",
        ):
            self.assertFalse(names.is_device_name(bad), bad)

    def test_user_names(self) -> None:
        """What image names allow; never able to start an option."""
        for good in ("a", "alice", "user-2", "0"):
            self.assertTrue(names.is_user_name(good), good)
        for bad in ("", "-x", "Alice", "a/b", "a:b", "a\n", "x" * 64):
            self.assertFalse(names.is_user_name(bad), bad)

    def test_image_names(self) -> None:
        """At most one colon; `default` is reserved."""
        for good in ("img", "img:tag", "0-a"):
            self.assertTrue(names.is_image_name(good), good)
        for bad in ("default", "default:x", "a:b:c", "-a", "A", "a/b", "a:", ""):
            self.assertFalse(names.is_image_name(bad), bad)

    def test_image_parts(self) -> None:
        """The tag `latest` is implied; the user part is the owner."""
        self.assertEqual(names.image_fullname("u", "img"), "u/img:latest")
        self.assertEqual(names.image_fullname("u", "img:t"), "u/img:t")
        self.assertEqual(names.short_image_name("u/img:latest"), "img")
        self.assertEqual(names.short_image_name("u/img:t"), "img:t")
        self.assertEqual(names.image_user("u/img:t"), "u")
        self.assertEqual(names.default_image("m"), "waltplatform/m-default:latest")

    @given(st.text(max_size=30))
    def test_cleaned_host_names(self, text: str) -> None:
        """Nothing but letters, digits and dashes remains of an announced name."""
        self.assertRegex(names.clean_host_name(text), r"\A[a-zA-Z0-9-]*\Z")

    def test_macs(self) -> None:
        """Lower case, colon separated, six bytes."""
        self.assertTrue(names.is_mac("52:54:00:12:34:ab"))
        for bad in ("52:54:00:12:34:AB", "525400123456", "52:54:00:12:34", "x", "a:b:c:d:e:f"):
            self.assertFalse(names.is_mac(bad), bad)


class SentenceTests(SynchronousTestCase):
    def test_enumeration(self) -> None:
        """Sorted, with commas and a final `and`."""
        self.assertEqual(enumerate_names([]), "")
        self.assertEqual(enumerate_names(["b"]), "b")
        self.assertEqual(enumerate_names(["b", "a"]), "a and b")
        self.assertEqual(enumerate_names(["c", "a", "b"]), "a, b and c")

    def test_subject(self) -> None:
        """Singular, plural, and a count above five names."""
        self.assertEqual(subject(["n1"]), "Node n1")
        self.assertEqual(subject(["n2", "n1"]), "Nodes n1 and n2")
        self.assertEqual(subject("abcde"), "Nodes a, b, c, d and e")
        self.assertEqual(subject("abcdef"), "6 nodes")
        self.assertEqual(subject(["x"], "image"), "Image x")

    def test_verb(self) -> None:
        """The verb agrees."""
        self.assertEqual(verb(["a"], "belongs", "belong"), "belongs")
        self.assertEqual(verb(["a", "b"], "belongs", "belong"), "belong")


class TableTests(SynchronousTestCase):
    def test_layout(self) -> None:
        """Two spaces between columns, dashes under titles, no trailing blanks, blank cells."""
        rows = [{"name": "node-1", "ip": None}, {"name": "n", "ip": "10.0.0.2"}]
        self.assertEqual(render_table(["name", "ip"], rows), (
            "name    ip\n"
            "------  --------\n"
            "node-1\n"
            "n       10.0.0.2"
        ))

    def test_no_rows(self) -> None:
        """Titles and dashes alone."""
        self.assertEqual(render_table(["a", "bc"], []), "a  bc\n-  --")

    def test_empty_columns(self) -> None:
        """Columns without any value go; 0 and False are values."""
        rows = [{"a": None, "b": 0, "c": ""}, {"a": None, "b": False}]
        self.assertEqual(without_empty_columns(["a", "b", "c"], rows), ["b"])
