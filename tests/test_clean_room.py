"""What a clean room takes over from the machine, and what the rooms of CI count."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent


def program(path: str) -> ModuleType:
    """Return a program of the repository as a module."""
    name = path.strip(".").replace("/", "_").replace("-", "_").removesuffix(".py")
    loader = SourceFileLoader(name, str(ROOT / path))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = kept
    return module


STANZAS = """\
# the archive
Types: deb
URIs: https://deb.example.org/debian-bookworm
Suites: bookworm bookworm-updates
Components: main non-free
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: https://deb.example.org/security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://other.example.org
Suites: bookworm
Components: stable

Types: deb
Enabled: no
URIs: https://deb.example.org/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://other.example.org
Suites: bookworm-pgdg
Components: main
"""
LINES = """\
# deb http://deb.example.org/debian bookworm main
deb [signed-by=/k.gpg] http://deb.example.org/debian bookworm main
deb-src http://deb.example.org/debian bookworm main
deb http://deb.example.org/security bookworm-security main contrib
deb http://other.example.org cloud-sdk-bookworm main
deb http://other.example.org bookworm stable
"""


class SourcesTests(SynchronousTestCase):
    room = program("scripts/clean-room")

    def test_stanzas(self) -> None:
        """Debian's own suites for the other release; the address stays; no one else's."""
        text = self.room.for_release(STANZAS, "bookworm", "trixie")
        self.assertEqual(text.count("Types: deb"), 2)
        self.assertIn("URIs: https://deb.example.org/debian-bookworm\n", text)
        self.assertIn("Suites: trixie trixie-updates\n", text)
        self.assertIn("Suites: trixie-security\n", text)
        self.assertIn("Signed-By: /usr/share/keyrings/archive.gpg\n", text)
        self.assertNotIn("other.example.org", text)

    def test_lines(self) -> None:
        """The older format, by the same rules."""
        self.assertEqual(
            self.room.for_release(LINES, "bookworm", "trixie"),
            "deb [signed-by=/k.gpg] http://deb.example.org/debian trixie main\n"
            "deb http://deb.example.org/security trixie-security main contrib\n",
        )

    def test_settings(self) -> None:
        """Proxies and checks are taken over; empty values, scripts and the rest are not."""
        for line, expected in (
            ('Acquire::http::Proxy "http://proxy:3128";', True),
            ('Acquire::Check-Valid-Until "false";', True),
            ('Acquire::https::CaInfo "/etc/ssl/own.pem";', True),
            ('Acquire::http::Proxy "";', False),
            ('Acquire::http::Proxy-Auto-Detect "/usr/bin/find-proxy";', False),
            ('Acquire::Languages:: "none";', False),
        ):
            self.assertEqual(bool(self.room.APT_SETTING.match(line)), expected, line)


class RoomsTests(SynchronousTestCase):
    rooms = program(".ci/rooms.py")

    def test_total(self) -> None:
        """All summaries of a room count; a failure that nobody counted counts as one."""
        total = self.rooms.total
        lines = ["x\n", "1 passed, 0 failed, 0 skipped\n", "20 passed, 2 failed, 3 skipped\n",
                 "9 passed, 9 failed, 9 skipped, says a test\n"]
        self.assertEqual(total(1, lines), [21, 2, 3])
        self.assertEqual(total(0, lines[:2]), [1, 0, 0])
        self.assertEqual(total(2, lines[:2]), [1, 1, 0])
        self.assertEqual(total(125, []), [0, 1, 0])

    def test_time(self) -> None:
        """The end of the time cuts off what may be left out, and is no failure of it then."""
        platform, *_, last = self.rooms.ROOMS
        passed, failed = "1 passed, 0 failed, 0 skipped\n", "3 passed, 1 failed, 0 skipped\n"
        judged = self.rooms.judged
        self.assertEqual(judged(platform, 130, [passed], cut=True), ([1, 1, 0], []))
        self.assertEqual(
            judged(last, 130, [passed], cut=True),
            ([1, 0, 0], [f"not finished for want of time: {last.title}"]),
        )
        self.assertEqual(judged(last, 130, [failed], cut=True)[0], [3, 1, 0])
        self.assertEqual(judged(last, 1, [passed], cut=False), ([1, 1, 0], []))
        self.assertEqual(judged(last, 0, [passed], cut=False), ([1, 0, 0], []))
