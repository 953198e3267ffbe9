"""Public keys of ssh: what is taken, what is refused, whatever comes."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.sshkeys import MAX_COMMENT, parse

ED25519 = "ssh-ed25519"


def blob(*parts: bytes) -> str:
    """Return strings after their lengths, in base 64."""
    return base64.b64encode(
        b"".join(len(one).to_bytes(4, "big") + one for one in parts)
    ).decode()


KEY = f"{ED25519} {blob(ED25519.encode(), bytes(32))}"


class ParseTests(SynchronousTestCase):
    def test_made_by_ssh_keygen(self) -> None:
        """Keys of each usual kind, with the fingerprint that ssh-keygen prints."""
        for kind, bits in (("ed25519", "256"), ("ecdsa", "384"), ("rsa", "2048")):
            with tempfile.TemporaryDirectory() as place:
                path = Path(place, "key")
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "ann's key",
                     "-f", str(path)], check=True,
                )
                public = Path(place, "key.pub")
                told = subprocess.run(
                    ["ssh-keygen", "-l", "-f", str(public)], check=True, capture_output=True,
                    text=True,
                ).stdout
                key = parse(public.read_text())
                self.assertEqual(key.fingerprint, told.split()[1])
                self.assertEqual((key.comment, f"{key.text} ann's key\n"),
                                 ("ann's key", public.read_text()))
                self.refuse(path.read_text(), "private key")

    def refuse(self, line: str, why: str) -> None:
        """Check that a line is refused, and what is said."""
        self.assertIn(why, str(self.assertRaises(ValueError, parse, line)))

    def test_refused(self) -> None:
        """Options, several lines, weak and damaged keys, other kinds."""
        self.refuse(f'command="sh" {KEY}', "options before the key")
        self.refuse(f"{KEY}\n{KEY}", "one line")
        self.refuse(f"{KEY} a\rb", "one line")
        self.refuse("", "not a public key")
        self.refuse(ED25519, "not a public key")
        self.refuse(f"ssh-dss {blob(b'ssh-dss', b'1')}", "not a kind of key")
        self.refuse(KEY[:-3], "damaged")
        self.refuse(f"ssh-rsa {KEY.split()[1]}", "do not belong together")
        self.refuse(f"{ED25519} {blob(ED25519.encode())}", "no key in it")
        weak = blob(b"ssh-rsa", b"\x01\x00\x01", b"\x7f" * 128)
        self.refuse(f"ssh-rsa {weak}", "2048 bits")
        self.refuse(KEY + " x" * 4096, "4096 characters")

    def test_comments(self) -> None:
        """What a terminal would obey is left out, and no more than a line of a table is kept."""
        self.assertEqual(parse(f"{KEY} a\u202eb {'c' * 200}").comment,
                         f"ab {'c' * 200}"[:MAX_COMMENT])

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever it is, it is a key of one safe line, or refused."""
        for line in (text, f"{KEY} {text}", f"{ED25519} {text}"):
            try:
                key = parse(line)
            except ValueError:
                continue
            self.assertEqual(len(f"{key.text} {key.comment}".splitlines()), 1)
            self.assertEqual(len(key.text.split(" ")), 2)
