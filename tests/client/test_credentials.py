"""Where passwords of registries are kept."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.client.scripted import environment
from walt.client import config_file, credentials, settings
from walt.client.errors import Failure

ACCOUNT = {"username": "ann", "password": "s3cret é"}
HELPER = """#!/bin/sh
umask 077
case "$1" in
    store) cat > "$HOME/stored" ;;
    get) read -r place; grep -q "$place" "$HOME/stored" && cat "$HOME/stored" ||
        { echo credentials not found; exit 1; } ;;
esac
"""


class CredentialsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / ".walt").mkdir(parents=True)
        helper = self.home / "docker-credential-mine"
        helper.write_text(HELPER)
        helper.chmod(0o755)
        variables = environment(
            HOME=str(self.home), PATH=f"{self.home}:{os.environ['PATH']}",
        )
        variables.__enter__()
        self.addCleanup(variables.__exit__, None, None, None)

    def configure(self, text: str) -> None:
        (self.home / ".walt" / "config").write_text(text)
        settings.forget_configuration()

    def text(self) -> str:
        return (self.home / ".walt" / "config").read_text()

    def test_file(self) -> None:
        """Without a store: in the file, masked."""
        credentials.keep("hub", ACCOUNT)
        self.assertEqual(credentials.stored(["hub", "other"]), {"hub": ACCOUNT})
        self.assertIn(config_file.masked(b"s3cret").hex(), self.text())

    def test_store(self) -> None:
        """With one: only the name is in the file."""
        self.configure("walt:\n  credential-helper: mine\n")
        credentials.keep("hub", ACCOUNT)
        self.assertNotIn("password", self.text().replace("Passwords", ""))
        self.assertEqual(credentials.stored(["hub"]), {"hub": ACCOUNT})
        (self.home / "stored").write_text("nothing")
        self.assertEqual(credentials.stored(["hub"]), {})

    def test_unusable_store(self) -> None:
        """A program that is not there, a name that is none: told, and nothing is kept."""
        for name in ("absent", "'-x'", "../mine", "'a b'"):
            self.configure(f"walt:\n  credential-helper: {name}\n")
            self.assertRaises(Failure, credentials.keep, "hub", ACCOUNT)
            self.assertNotIn("ann", self.text())

    def test_damaged(self) -> None:
        """A password that cannot be unmasked is asked again."""
        self.configure("registries:\n  hub:\n    username: ann\n    password: xyz\n")
        self.assertEqual(credentials.stored(["hub"]), {})
