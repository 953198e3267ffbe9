from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.help.keys import Keys
from walt.client.help.pager import ENLARGE, Pager
from walt.client.help.render import REVERSE, columns

TOPICS = ("one", "two")
PAGES = {
    "one": "# First\n\n" + "\n\n".join(f"line {number}" for number in range(20))
    + "\n\n[to two](two) and `walt help show two`\n\n" + "\n\n".join(
        f"rest {number}" for number in range(20)),
    "two": "# Second\n\n[back](one), [myself](two)\n",
}
NAMES = (
    "search", "typed t", "typed 世", "next-match", "previous-match", "up", "down", "page-up",
    "page-down", "home", "end", "next-link", "previous-link", "open", "back",
)


class KeysTests(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=8), max_size=20))
    def test_parts(self, parts: list[bytes]) -> None:
        """Any bytes, in any parts, mean the same."""
        keys = Keys()
        found = [name for part in parts for name in keys.feed(part)]
        self.assertEqual(found, list(Keys().feed(b"".join(parts))))

    def test_names(self) -> None:
        """Keys of usual terminals; the rest is nothing, and a lone escape hides no key."""
        typed = b"\x1b[A\x1bOB\x1b[5~ \x1b[1~\x1bOF\t\x1b[Z\r\x7fx\x1b[<64;1;1M\x1bq\x03/nN"
        self.assertEqual(list(Keys().feed(typed)), [
            "up", "down", "page-up", "page-down", "home", "end", "next-link", "previous-link",
            "open", "back", "quit", "interrupt", "search", "next-match", "previous-match",
        ])


class PagerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pager = Pager("one", TOPICS, PAGES.__getitem__)
        self.pager.resize(10, 60)

    def keys(self, *names: str) -> list[str]:
        """Type, and return the rows."""
        for name in names:
            self.assertTrue(self.pager.key(name))
        return self.rows()

    def rows(self) -> list[str]:
        return ["".join(piece.text for piece in row).strip() for row in self.pager.frame()]

    def selected(self) -> str:
        return "".join(
            piece.text for row in self.pager.frame()[:-1] for piece in row
            if piece.style & REVERSE
        )

    def test_scrolling(self) -> None:
        """By line and by page, never beyond the ends."""
        self.assertEqual(self.keys("up")[0], "First")
        self.assertEqual(self.keys("down", "down")[0], "line 0")
        self.assertEqual(self.keys("page-down")[0], "line 4")
        self.assertEqual(self.keys("page-up", "home")[0], "First")
        rows = self.keys("end", "down", "page-down")
        self.assertEqual(rows[-2], "rest 19")
        self.assertRegex(rows[-1], r"^one .* q: quit +83/83$")

    def test_links(self) -> None:
        """Selection goes round and scrolls; what is out of sight is not selected."""
        self.keys("next-link")
        self.assertEqual(self.selected(), "to two")
        self.keys("next-link")
        self.assertEqual(self.selected(), "walt help show two")
        self.keys("next-link", "previous-link", "previous-link")
        self.assertEqual(self.selected(), "to two")
        self.keys("home")
        self.assertEqual(self.selected(), "")
        self.keys("open")
        self.assertEqual(self.pager.topic, "one")

    def test_going_and_coming(self) -> None:
        """A topic, another, and back to the place and the link left."""
        before = self.keys("next-link", "down", "previous-link")
        self.assertEqual(self.keys("open")[0], "Second")
        self.assertEqual(self.keys("next-link", "next-link", "open")[0], "First")
        self.assertEqual(self.keys("back")[0], "Second")
        self.assertEqual(self.keys("back", "back"), before)
        self.assertEqual(self.selected(), "walt help show two")

    def test_window(self) -> None:
        """What was at the top stays; a window too small asks."""
        top = self.keys("page-down", "page-down")[0]
        self.pager.resize(30, 45)
        self.assertEqual(self.rows()[0], top)
        self.pager.resize(30, 30)
        self.assertEqual(" ".join(self.rows()), ENLARGE)
        self.pager.resize(3, 100)
        self.assertEqual(self.rows(), [ENLARGE])
        self.pager.resize(10, 60)
        self.assertEqual(self.rows()[0], top)

    def test_a_word_is_found_in_a_page(self) -> None:
        """`/`, a word, Enter; n and N go on, round the ends; it is marked; Backspace gives up."""

        def type_(data: bytes) -> list[str]:
            keys = Keys(lambda: self.pager.typing)
            for name in keys.feed(data):
                self.assertTrue(self.pager.key(name))
            return self.rows()

        rows = type_(b"/REST 1q")
        self.assertEqual(rows[-1], "/REST 1q")
        rows = type_(b"\x7f\r")
        self.assertEqual((rows[0], self.selected()), ("rest 1", "rest 1"))
        rows = type_(b"nn")
        self.assertIn("rest 11", rows)
        self.assertEqual(self.selected(), "rest 1")
        self.assertIn("rest 10", type_(b"N"))
        self.assertIn("rest 1", type_(10 * b"n"))
        self.assertRegex(self.rows()[-1], "q: quit")
        self.assertEqual(type_(b"/marmalade\n")[-1], "not found: marmalade")
        self.assertRegex(self.keys("home")[-1], "q: quit")
        self.assertEqual(type_(b"/ab\x7f\x7f")[-1], "/")
        self.assertRegex(type_(b"\x7f")[-1], "q: quit")
        self.assertEqual(type_("/né ".encode())[-1], "/né")

    def test_ends(self) -> None:
        """q, and ctrl-C."""
        self.assertFalse(self.pager.key("quit"))
        self.assertRaises(KeyboardInterrupt, self.pager.key, "interrupt")

    @given(st.lists(st.one_of(
        st.sampled_from(NAMES), st.tuples(st.integers(1, 60), st.integers(1, 150)),
    ), max_size=40))
    def test_anything(self, steps: list[str | tuple[int, int]]) -> None:
        """Whatever is done, the frame fits the window."""
        pager = Pager("one", TOPICS, PAGES.__getitem__)
        size = (24, 80)
        for step in steps:
            if isinstance(step, str):
                pager.key(step)
            else:
                size = step
                pager.resize(*size)
            frame = pager.frame()
            self.assertLessEqual(len(frame), size[0])
            self.assertTrue(all(columns(row) <= size[1] for row in frame))
