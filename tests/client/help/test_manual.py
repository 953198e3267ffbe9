"""Manual pages: of commands, topics and programs, read by the programs that show them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.client import main
from walt.client.commands.help import topics
from walt.client.help.manual import manual
from walt.client.help.parse import parse
from walt.client.help.roff import page
from walt.server.tools.setup.manual import programs


def faults(text: str) -> str:
    """Return what mandoc(1) finds wrong with a page, besides what is a matter of style."""
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error"], input=text, capture_output=True, text=True,
        check=False, timeout=60,
    )
    return done.stdout + done.stderr


def shown(text: str) -> str:
    """Return a page as it is shown, without emphasis."""
    done = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=180"], input=text, capture_output=True, text=True,
        check=True, timeout=60, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    letters: list[str] = []
    for letter in done.stdout:
        if letter == "\b":
            letters.pop()
        else:
            letters.append(letter)
    return "".join(letters)


class ManualTests(SynchronousTestCase):
    skip = None if shutil.which("mandoc") else "needs mandoc"

    def test_all_pages(self) -> None:
        """There is one for each category, topic and program, without a fault."""
        found = {**manual(), **programs()}
        for name in ("man1/walt.1", *(f"man1/walt-{one}.1" for one in main.CATEGORIES),
                     *(f"man7/walt-{one}.7" for one in topics()), "man8/walt-server-setup.8"):
            self.assertIn(name, found)
        wrong = {name: told for name, text in found.items() if (told := faults(text))}
        self.assertEqual(wrong, {})

    def test_commands(self) -> None:
        """What `--help` says of each subcommand is there."""
        for category in main.CATEGORIES:
            text = shown(manual()[f"man1/walt-{category}.1"])
            for name, command in main.load(category).items():
                self.assertIn(f"{category} {name}", text)
                for switch in command.switches:
                    self.assertIn(switch.name, text)

    def test_blocks(self) -> None:
        """Lists, tables, examples and quotes; what looks like a request is text."""
        text = shown(page("p", 7, "about", parse(
            "# Title\n\n.TH is `no -request`\n\n    .EX \\fB 'x' a-b\n\n- one\n\n      code\n\n"
            "1. two\n\n> quoted\n\n| a | b |\n|---|---|\n| .x | y-z |\n\n## Next\n\nlast", (),
        ), version="1"))
        for line in (".TH is no -request", ".EX \\fB 'x' a-b", "one", "code", "two", "quoted",
                     ".x", "y-z", "NEXT" if "NEXT" in text else "Next", "last"):
            self.assertIn(line, text)

    @given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zs", "Zl", "Zp"]),
                   max_size=60))
    def test_any_text(self, text: str) -> None:
        """Whatever a paragraph says, nothing of it is an order; all of it is there."""
        paragraph = parse(f"x{text}", ())
        made = page("p", 7, "about", paragraph, version="1")
        for line in made.split("\n")[8:]:
            self.assertFalse(line.startswith((".", "'")) and line[:3] not in (".PP", ".SH", ".RS"),
                             line)

    def test_written(self) -> None:
        """`walt advanced dump-manual` writes them where man(1) finds them."""
        place = Path(self.mktemp()).absolute()
        done = subprocess.run(
            [sys.executable, "-m", "walt.client.main", "advanced", "dump-manual", str(place)],
            capture_output=True, text=True, check=False, timeout=60,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("pages are below", done.stdout)
        self.assertTrue((place / "man7/walt-log-format.7").read_text().startswith("'"))
