"""Texts that others made, on terminals: nothing in them is obeyed."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.client.platform import Walt
from tests.client.test_logs import LogCase
from tests.server.streams.platform import NODE
from walt.client.terminal import Busy, print_block
from walt.client.visible import Visible, protect_terminals
from walt.common.controls import visible
from walt.common.tables import render_table

# The title, the clipboard, a forged line, an erased one, its colours, C1, another direction.
HOSTILE = (
    "\x1b]0;owned\x07", "\x1b]52;c;cm0gLXJmIC8=\x07", "ok\rforged", "\x1b[2K\x1b[1A", "\x1b[31m",
    "\x9b31m", "\x90", "a\b\b", "\x7f", "\x0b\x0c\x85\u2028", "\u202egnp.exe", "\u2066x\u2069",
)


class Terminal(io.StringIO):
    """A text stream to a terminal."""

    def isatty(self) -> bool:
        return True


class VisibleTests(SynchronousTestCase):
    def test_hostile(self) -> None:
        """What a terminal obeys is written down; the rest stays."""
        for text in HOSTILE:
            shown = visible(text)
            self.assertTrue(shown.isprintable(), ascii(shown))
            self.assertEqual(
                shown.encode("latin-1", "backslashreplace").decode("unicode_escape"), text
            )
        self.assertEqual(visible("a\tb\nc é 🐧 \\x1b"), "a\tb\nc é 🐧 \\x1b")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """No control character is left but newlines and tabs."""
        shown = visible(text).replace("\n", "").replace("\t", "")
        self.assertFalse([one for one in shown if ord(one) < 32 or 127 <= ord(one) < 160])

    def test_streams(self) -> None:
        """Terminals are protected, whatever way is written; files and pipes are not."""
        screen, pipe = Terminal(), io.StringIO()
        self.patch(sys, "stdout", screen)
        self.patch(sys, "stderr", pipe)
        protect_terminals()
        print("\x1b[31m", file=sys.stderr)
        self.assertEqual(pipe.getvalue(), "\x1b[31m\n")
        print("one\r")
        sys.stdout.write("two\r\n")
        sys.stdout.writelines(["three\r\n"])
        self.assertEqual(screen.getvalue(), "one\\r\ntwo\\r\nthree\\r\n")

    def test_own_drawings(self) -> None:
        """Titles are bold and the indicator turns, and names in them are harmless."""
        screen = Terminal()
        self.patch(sys, "stdout", Visible(screen))
        print_block("Images of \x1b[31m:", render_table(["name"], [{"name": "\x1b[2J"}]))
        self.assertIn("\x1b[1mImages of \\x1b[31m:\x1b[0m", screen.getvalue())
        self.assertIn("\\x1b[2J", screen.getvalue())
        busy: Any = Busy("Downloading \x1b]0;x\x07")
        turns = iter([False, True])
        self.patch(
            __import__("walt.client.terminal", fromlist=["select"]).select, "select",
            lambda *args: ([1], [], []) if next(turns) else ([], [], []),
        )
        busy.wait(None)
        self.assertIn("\rDownloading \\x1b]0;x\\x07... ", screen.getvalue())

    def test_cells(self) -> None:
        """A value makes no rows of its own."""
        table = render_table(["name"], [{"name": "a\nforged  row"}])
        self.assertEqual(len(table.split("\n")), 3)


class LogTests(LogCase):
    async def test_consoles(self) -> None:
        """They are shown when asked for: their text on a terminal, whatever they try; or raw."""
        chunk = repr(b"\x1b[31mlogin:\x1b[0m \x07\r\nroot\x1b]0;owned")
        self.logs.write(NODE.mac, "virtualconsole", chunk, mode="chunk")
        self.logs.write(NODE.mac, "exp", "said")
        words = ("log", "show", "--history", "full", "--format", "{stream} {line}")
        for more, shown, piped in (
            ((), b"exp said\n", b"exp said\n"),
            (("--consoles",),
             b"virtualconsole login: \\x07\nvirtualconsole root\\x1b]0;owned\nexp said\n",
             f"virtualconsole {chunk}\nexp said\n".encode()),
        ):
            walt = Walt(self.server, *words, *more, terminal=True)
            self.assertEqual(await walt.ended, 0)
            # On a busy machine it has time to say that it waits.
            told = re.sub(rb"(\r[^\r\n]*\.\.\. [^\r\n]*)+\r *\r", b"", walt.out)
            self.assertEqual(told.replace(b"\r\n", b"\n"), shown)
            self.assertEqual((await self.run_walt(*words, *more))[1], piped)
        _, out, _ = await self.run_walt(*words, "--streams", "console")
        self.assertEqual(out, f"virtualconsole {chunk}\n".encode())

    async def test_terminal_and_pipe(self) -> None:
        """Lines of a node are harmless on a terminal, in all commands; a pipe has them raw."""
        for text in HOSTILE:
            self.logs.write(NODE.mac, "exp", text)
        words = ("log", "show", "--history", "full", "--format", "{line}")
        walt = Walt(self.server, *words, terminal=True)
        self.assertEqual(await walt.ended, 0)
        obeyed = walt.out.decode().replace("\r\n", "")
        self.assertTrue(obeyed.isprintable(), ascii(obeyed))
        self.assertIn(b"\\x1b]0;owned\\x07", walt.out)
        status, out, _ = await self.run_walt(*words)
        self.assertEqual(status, 0)
        self.assertIn(b"\x1b]0;owned\x07", out)
        refused = Walt(self.server, "node", "blink", "no\x1b]0;x\x07", "1", terminal=True)
        self.assertNotEqual(await refused.ended, 0)
        self.assertNotIn(b"\x1b]0", refused.out)
        self.assertIn(b"x1b]0;x", refused.out)
