"""What a console said, read by people."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client.chunks import console_bytes, readable


class ChunkTests(SynchronousTestCase):
    @given(st.binary())
    def test_any_bytes(self, chunk: bytes) -> None:
        """A chunk is read as it was written."""
        self.assertEqual(console_bytes(repr(chunk)), chunk)

    @given(st.text(alphabet="b'\"\\x0()+ \n\0é", max_size=20))
    def test_any_line(self, line: str) -> None:
        """Another text is none, or bytes."""
        console_bytes(line)

    def test_other_lines(self) -> None:
        """What Python would read, but is no chunk, is left alone."""
        for line in (
            "", "b'", "text", "'text'", "b'a' b'b'", "b'a'+b'b'", "b''" + "(" * 100_000, "b'\n'",
            "rb'a'", "b'\\xzz'", "b'é'",
        ):
            self.assertIs(console_bytes(line), None, line)

    def test_readable(self) -> None:
        """Lines of text without colours and moves; other streams stay."""
        for chunk, lines in (
            (b"SeaBIOS\r\nBooting...\r\r\n\r\n", ["SeaBIOS", "Booting..."]),
            (b"\x1b[1;32m ok \x1b[0m\x1b]0;title\x07\x1b(B\x1bPq\x1b\\", [" ok "]),
            (b" 50%\r 100%\r\n", [" 50%", " 100%"]), (b"\xc3\xa9 \xff", ["é \\xff"]),
            (b"\x1b[2J\x1b[H", []), (b"\x1b", ["\x1b"]), (b"a\x1b[", ["a\x1b["]),
        ):
            self.assertEqual(
                readable([(1.0, "n1", "virtualconsole", repr(chunk))]),
                [(1.0, "n1", "virtualconsole", line) for line in lines], chunk,
            )
        others = [(1.0, "n1", "exp", "b'x'"), (2.0, "n1", "netconsole", "[1.0] usb: x")]
        self.assertEqual(readable(others), others)
