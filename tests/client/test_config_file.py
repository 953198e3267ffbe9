"""The configuration file of the client (spec user-surface §4.1)."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

from tests.client.scripted import environment
from walt.client import config_file, settings

MASKED = config_file.masked(b"secret").hex()
NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,6}\Z")


class ConfigFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.file = self.home / ".walt" / "config"
        home = environment(HOME=str(self.home))
        home.__enter__()
        self.addCleanup(home.__exit__, None, None, None)

    def write(self, text: str, place: Path | None = None) -> None:
        place = place or self.file
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)

    def read(self) -> tuple[dict[str, str], str]:
        """Return the values, and what was told."""
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            return config_file.read(), told.getvalue()

    def test_written_by_walt_10(self) -> None:
        """Groups, comments, quotes, the line of a cache at the end."""
        self.write(
            "# comment\nwalt:\n  # more\n  server: 'host.example' # here\n  username: bob\n\n"
            "registries:\n  hub:\n    username: \"bo\\u0062\"\n    password: 00ff\n"
            "# fast-load: gASVJAAAAAAAAAB9lCg=\n"
        )
        self.assertEqual(self.read(), ({
            "walt.server": "host.example", "walt.username": "bob",
            "registries.hub.username": "bob", "registries.hub.password": "00ff",
        }, ""))
        self.assertEqual(settings.configured()["walt.username"], "bob")

    def test_former_layouts(self) -> None:
        """Top-level values, a group hub, the former file."""
        self.assertEqual(config_file.modern({"server": "h", "username": "u", "password": "p"}), {
            "walt.server": "h", "walt.username": "u", "registries.hub.username": "u",
            "registries.hub.password": "p",
        })
        self.assertEqual(config_file.modern({"server": "h", "username": "u"}), {
            "walt.server": "h", "walt.username": "u",
        })
        self.assertEqual(
            config_file.modern({"walt.server": "h", "hub.username": "u", "hub.password": "p"}),
            {"walt.server": "h", "walt.username": "u", "registries.hub.username": "u",
             "registries.hub.password": "p"},
        )
        self.write("server: old\nusername: ann\n", self.home / ".waltrc")
        self.assertEqual(self.read(), ({"walt.server": "old", "walt.username": "ann"}, ""))
        self.assertFalse((self.home / ".waltrc").exists())
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.write("server: other\n", self.home / ".waltrc")
        self.assertEqual(self.read()[0]["walt.server"], "old")

    def test_unusable(self) -> None:
        """What cannot be read is told, and treated as empty."""
        for text in ("nonsense\n", "walt: [\n", "- a\n", "walt:\n  server: 'x\n"):
            self.write(text)
            values, told = self.read()
            self.assertEqual(values, {}, text)
            self.assertIn("is ignored", told)
        self.file.write_bytes(b"\xff\xfe")
        self.assertIn("is ignored", self.read()[1])

    def test_other_yaml(self) -> None:
        """More than WalT writes is left to the library."""
        self.write("{walt: {server: host, username: bob}}\n")
        self.assertEqual(self.read()[0], {"walt.server": "host", "walt.username": "bob"})

    def test_saved(self) -> None:
        """The file has comments, is for its owner only, keeps what else it had."""
        self.write("walt:\n  server: old\nother:\n  key: kept\n")
        self.file.chmod(0o644)
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            config_file.update({
                "walt.server": "10.0.0.1", "walt.username": None, "registries.hub.username": "ann",
                "registries.hub.password": MASKED,
            }, "This was")
        self.assertIn(f"This was saved in {self.file}", told.getvalue())
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(self.file.read_text().split("\n", 3)[3], (
            "# The platform.\nwalt:\n  # IP address or host name of the server\n"
            '  server: "10.0.0.1"\nother:\n  key: kept\n'
            "# Accounts at image registries. Passwords are masked, not encrypted.\nregistries:\n"
            f'  hub:\n    password: "{MASKED}"\n    username: ann\n'
        ))
        self.assertEqual(os.listdir(self.file.parent), ["config"])

    @given(st.dictionaries(
        st.tuples(st.sampled_from(["walt", "registries.hub", "a.b"]), NAMES).map(".".join),
        st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12),
        max_size=6,
    ))
    @limited(max_examples=30)
    def test_any_values(self, values: dict[str, str]) -> None:
        """What is written is read, by our reader and by the library."""
        text = config_file.render(values)
        self.assertEqual(config_file.parse(text), values)
        loaded = YAML(typ="safe", pure=True).load(text) or {}
        self.assertEqual(config_file._flat(loaded), values)

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text is read or refused."""
        try:
            config_file.parse(text)
        except config_file.NotSimple:
            pass
