"""`walt help show` on a real pseudo-terminal."""

from __future__ import annotations

import sys

from twisted.trial.unittest import TestCase

from tests.client.ansi import ALTERNATE, CURSOR, WHEEL, Window
from tests.client.platform import Walt, until
from tests.client.test_process import python39
from tests.patience import patient
from walt.client.commands.help import read


class Reader(Walt):
    """A person who reads help pages."""

    def __init__(self, *words: str, **options) -> None:  # type: ignore[no-untyped-def]
        self.window = Window()
        super().__init__(None, "help", "show", *words, terminal=True, **options)

    def outReceived(self, data: bytes) -> None:
        super().outReceived(data)
        self.window.feed(data)

    def change_size(self, rows: int, columns: int) -> None:
        """Have a window of another size."""
        self.window.size = rows, columns
        self.resize(rows, columns)

    async def sees(self, text: str) -> None:
        """Return when the window holds a text."""
        await until(lambda: text in self.window.text())

    async def type(self, keys: bytes, text: str) -> None:
        """Type, and return when the window holds a text."""
        self.write(keys)
        await self.sees(text)


class PagerTests(TestCase):
    timeout = patient(20)

    def check_restored(self, reader: Reader) -> None:
        """The terminal is as it was."""
        self.assertEqual(reader.left, reader.before)
        self.assertEqual(reader.window.modes, {CURSOR})

    async def test_reading(self) -> None:
        """Shows, scrolls, follows a link, returns, is resized, quits with 0."""
        reader = Reader()
        await reader.sees("q: quit")
        window = reader.window
        self.assertEqual(window.modes, {ALTERNATE, WHEEL})
        self.assertNotEqual(reader.attributes(), reader.before)
        self.assertEqual(window.looking("1"), "Introduction to WalT")
        self.assertIn("walt node create vnode1       create", window.looking("36"))
        reader.change_size(12, 80)
        await until(lambda: " 11/" in window.row(12))
        last = window.row(12).rpartition("/")[2]
        await reader.type(b"\x1b[B", f" 12/{last}")
        self.assertEqual(window.row(1), "")
        await reader.type(b"\x1b[A", " Introduction to WalT")
        await reader.type(b"\x1b[F", f" {last}/{last}")
        self.assertIn("• walt help show tutorial: ten minutes", window.text())
        await reader.type(b"\t\t", "")
        await until(lambda: "walt help show node-ownership" in window.looking("7"))
        await reader.type(b"\r", " node-ownership   ")
        self.assertEqual(window.row(1), " Whose nodes are whose")
        await reader.type(b"\x7f", " help-intro   ")
        self.assertIn("walt help show node-ownership", window.looking("7"))
        reader.change_size(10, 30)
        await until(lambda: window.row(1) == "Please enlarge this window to")
        self.assertNotIn("WalT", window.text())
        reader.change_size(60, 60)
        await until(lambda: "help-intro" in window.row(60))
        self.assertEqual(window.row(1), " Introduction to WalT")
        reader.write(b"q")
        self.assertEqual(await reader.ended, 0)
        self.check_restored(reader)

    async def test_table(self) -> None:
        """Tables are aligned."""
        reader = Reader("logging")
        await reader.type(b"\x1b[6~", "───")
        rows = reader.window.text().splitlines()
        at = next(number for number, row in enumerate(rows) if row.startswith(" ──"))
        stream = rows[at - 1].index("stream")
        self.assertTrue(rows[at + 1][stream:].startswith("platform.nodes"), rows)
        self.assertTrue(rows[at + 3][stream:].startswith("walt-init"), rows)
        reader.write(b"q")
        self.assertEqual(await reader.ended, 0)

    async def test_ended(self) -> None:
        """The terminal is restored after TERM, ctrl-C, INT and a failure."""
        broken = (
            "import sys; from walt.client import main; from walt.client.help import pager;"
            "pager.Pager.key = None; sys.argv[1:] = sys.argv[3:]; main.main()"
        )
        for end, status in (
            ("TERM", 143), ("HUP", 129), ("\x03", 130), ("INT", 130), ("failure", 1),
        ):
            failure = end == "failure"
            python = (sys.executable, *(["-c", broken] if failure else []))
            reader = Reader(python=python)
            await reader.sees("Introduction to WalT")
            if end.isupper():
                reader.transport.signalProcess(end)
            else:
                reader.write(b"q" if failure else b"\x03")
            self.assertEqual(await reader.ended, status, end)
            self.check_restored(reader)
            if failure:
                self.assertIn(b"TypeError", reader.out)

    async def test_no_colour(self) -> None:
        """NO_COLOR: links and the selection are still seen; nothing is bold, nor has a colour."""
        reader = Reader(variables={"NO_COLOR": "1"})
        await reader.sees("Introduction to WalT")
        reader.write(b"\t")
        await until(lambda: "walt help show tutorial" in reader.window.looking("7"))
        reader.write(b"q")
        self.assertEqual(await reader.ended, 0)
        self.assertEqual(reader.window.looks, {"", "4", "4;7", "7"})

    async def test_old_python(self) -> None:
        """Python 3.9 stays usable for the client."""
        reader = Reader("image-build", python=(python39(),))
        await reader.sees(" Building images")
        reader.write(b"q")
        self.assertEqual(await reader.ended, 0)
        self.check_restored(reader)

    async def test_other_encoding(self) -> None:
        """What the terminal cannot show is drawn with what it can."""
        reader = Reader("logging", variables={"PYTHONIOENCODING": "ascii"})
        await reader.type(b"\x1b[6~", "------  ---")
        reader.write(b"q")
        self.assertEqual(await reader.ended, 0)
        self.assertTrue(reader.out.isascii())

    async def test_plain(self) -> None:
        """A terminal that cannot place text gets the text."""
        for term in ("dumb", "", "no-such-terminal"):
            reader = Reader("log-tee", variables={"TERM": term})
            self.assertEqual(await reader.ended, 0)
            self.assertEqual(reader.out.replace(b"\r\n", b"\n").decode(), read("log-tee"))
            self.check_restored(reader)

    async def test_unknown(self) -> None:
        """A page that is not there: told on stderr, rc 2."""
        reader = Reader("ghost")
        self.assertEqual(await reader.ended, 2)
        self.assertIn(b"walt help list", reader.out)
