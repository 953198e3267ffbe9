from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.commands.help import read, topics
from walt.client.help.inline import Span, read_spans
from walt.client.help.parse import (
    Code,
    Heading,
    Item,
    Listing,
    Paragraph,
    Quote,
    Rule,
    Table,
    parse,
)
from walt.client.help.render import ASCII, LINK, UNICODE, columns, render

TOPICS = {"logs", "log-show"}
MARKS = st.sampled_from([
    *"`*_[]()|#->+~:\\\n\t 1.=ab\x1b\u202e\u4e2d\u0301", "    ", "- ", "1. ",
    "> ", "```", "|-|-|\n", "**", "walt help show logs", "\n\n",
])
TEXTS = st.one_of(st.text(max_size=300), st.lists(MARKS, max_size=80).map("".join))


def plain(text: str) -> tuple[Span, ...]:
    return (Span(text),)


class SpanTests(SynchronousTestCase):
    def check(self, text: str, *spans: Span) -> None:
        self.assertEqual(read_spans(text, TOPICS), spans, text)

    def test_emphasis(self) -> None:
        """Bold, italic, both; marks inside words and alone are text."""
        self.check("a **b** c", Span("a "), Span("b", bold=True), Span(" c"))
        self.check("*a* __b__", Span("a", italic=True), Span(" "), Span("b", bold=True))
        self.check("**a _b_**", Span("a ", bold=True), Span("b", bold=True, italic=True))
        self.check("my_node_1", Span("my"), Span("_"), Span("node"), Span("_"), Span("1"))
        for text in ("2 * 3 * 4", "**open", r"\*a\*"):
            self.assertEqual({one[1:] for one in read_spans(text, TOPICS)}, {Span("")[1:]})
        self.assertEqual("".join(one.text for one in read_spans(r"\*a\*", TOPICS)), "*a*")

    def test_code(self) -> None:
        """Nothing is read inside; the number of quotes counts."""
        self.check("`**a**`", Span("**a**", code=True))
        self.check("`` a`b ``", Span("a`b", code=True))
        self.check("`a", Span("`"), Span("a"))

    def test_links(self) -> None:
        """Links to topics and commands that show one; other addresses are told."""
        show = Span("walt help show logs", code=True, topic="logs")
        self.check("see `walt help show logs`.", Span("see "), show, Span("."))
        self.check("`walt help show\nlogs`", show)
        self.check("`walt help show other`", Span("walt help show other", code=True))
        self.check("`walt help show logs -x`", Span("walt help show logs -x", code=True))
        for target in ("logs", "logs.md", "logs.html#part"):
            self.check(f"[the **logs**]({target})", Span("the ", topic="logs"),
                       Span("logs", bold=True, topic="logs"))
        self.check("[site](https://x.example/)", Span("site"), Span(" (https://x.example/)"))


class BlockTests(SynchronousTestCase):
    def check(self, text: str, *blocks: object) -> None:
        self.assertEqual(parse(text, TOPICS), blocks, text)

    def test_simple(self) -> None:
        """Titles, paragraphs, rules, quotes."""
        self.check("# A b #\ntext\nof two lines\n\n---\n> said\n> so\n", Heading(1, plain("A b")),
                   Paragraph(plain("text of two lines")), Rule(),
                   Quote((Paragraph(plain("said so")),)))
        self.check("#no title", Paragraph(plain("#no title")))
        self.check("one  \ntwo\\\nthree", Paragraph(plain("one\ntwo\nthree")))

    def test_code(self) -> None:
        """By margin and by fences; commands that show a topic are links."""
        lines = ((Span("a  *b*", code=True),), (), (Span("  c", code=True),))
        self.check("    a  *b*\n\n      c\n\n", Code(lines))
        self.check("```sh\na  *b*\n\n  c\n```\nd", Code(lines), Paragraph(plain("d")))
        self.check("~~~\na  *b*\n\n  c", Code(lines))
        self.check("    x: walt help show logs now", Code(((
            Span("x: ", code=True), Span("walt help show logs", code=True, topic="logs"),
            Span(" now", code=True),
        ),)))

    def test_lists(self) -> None:
        """Bullets, numbers, lines that go on, lists and code in them."""
        self.check("text\n- a\n  b\nc\n- d\n\nend", Paragraph(plain("text")), Listing((
            Item("", (Paragraph(plain("a b c")),)), Item("", (Paragraph(plain("d")),)),
        )), Paragraph(plain("end")))
        self.check("3. a\n\n       x\n   - b\n4. c", Listing((
            Item("3", (Paragraph(plain("a")), Code(((Span("x", code=True),),)),
                       Listing((Item("", (Paragraph(plain("b")),)),)))),
            Item("4", (Paragraph(plain("c")),)),
        )))

    def test_tables(self) -> None:
        """As many cells as the header; escaped bars."""
        self.check(r"""| a | b |
|---|:-:|
| `x\|y` | 2 | 3 |
| 1

end""", Table((plain("a"), plain("b")), (
            ((Span("x|y", code=True),), plain("2")), (plain("1"), ()),
        )), Paragraph(plain("end")))
        self.check("a | b\nc", Paragraph(plain("a | b c")))

    @given(TEXTS, st.integers(1, 120), st.sampled_from([UNICODE, ASCII]))
    def test_any_text(self, text: str, width: int, signs: object) -> None:
        """Any text is a page for any width: no line is wider, nothing steers the terminal."""
        page = render(parse(text, TOPICS), width, signs)  # type: ignore[arg-type]
        for line in page.lines:
            self.assertLessEqual(columns(line), width)
            for piece in line:
                self.assertTrue(piece.text.isprintable(), piece)
                self.assertEqual(piece.link >= 0, bool(piece.style & LINK))
        for link in page.links:
            self.assertIn(link.topic, TOPICS)
            self.assertIn(link.number, [piece.link for piece in page.lines[link.line]])
        self.assertEqual(list(page.starts), sorted(page.starts))


class RenderTests(SynchronousTestCase):
    def lines(self, text: str, width: int) -> list[str]:
        page = render(parse(text, TOPICS), width)
        return ["".join(piece.text for piece in line).rstrip() for line in page.lines]

    def test_text(self) -> None:
        """Words are wrapped, long ones cut; wide characters count twice."""
        self.assertEqual(self.lines("one two three\n\nabcdefghijklmno pq", 10),
                         ["one two", "three", "", "abcdefghij", "klmno pq"])
        self.assertEqual(self.lines("\u4e2d" * 6, 10), ["\u4e2d" * 5, "\u4e2d"])

    def test_blocks(self) -> None:
        """Margins of lists, code and quotes."""
        self.assertEqual(
            self.lines("9. one two three\n10. four\n\n> said\n\n    code  here\n\n***", 12),
            [" 9. one two", "    three", "10. four", "", "│ said", "", "    code  he", "    re", "",
             "────────────"],
        )

    def test_table(self) -> None:
        """Columns are aligned; the widest gives way."""
        text = "|a|bb|\n|-|-|\n|1|words of this cell|\n|222|x|\n"
        self.assertEqual(self.lines(text, 40), [
            "a    bb", "───  ──────────────────", "1    words of this cell", "222  x",
        ])
        self.assertEqual(self.lines(text, 16), [
            "a    bb", "───  ───────────", "1    words of", "     this cell", "222  x",
        ])

    def test_own_pages(self) -> None:
        """Every command that shows a topic, in the pages there are, leads to one."""
        names = topics()
        for name in names:
            text = read(name)
            page = render(parse(text, names), 78)
            commands = " ".join(text.split()).count("walt help show ")
            unknown = " ".join(text.split()).count("walt help show <")
            self.assertEqual(len(page.links), commands - unknown, name)
