"""The daemon's own log, for people and for programs."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase

from walt.server.assembly.logging import VARIABLE, observer, worth_telling


class Hostile:
    """A value that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no")


class LoggingTests(SynchronousTestCase):
    def log(self, form: str) -> tuple[Logger, io.StringIO]:
        """Return a log, and what is written."""
        out = io.StringIO()
        return Logger("walt.test", observer=observer(out, {VARIABLE: form})), out

    def objects(self, out: io.StringIO) -> list[dict[str, Any]]:
        """Return what was written, as a program reads it."""
        return [json.loads(line) for line in out.getvalue().split("\n")[:-1]]

    def test_for_people(self) -> None:
        """One line, where nothing acts on the terminal."""
        log, out = self.log("")
        log.info("{name} is here", name="a\x1b[31mb")
        self.assertIn("a\\x1b[31mb is here\n", out.getvalue())

    def test_for_programs(self) -> None:
        """What it says, and with which values; levels below `info` are left out."""
        log, out = self.log("json")
        log.info("{name} has {count} nodes", name="bob", count=3, secret="s")
        log.debug("nothing")
        (told,) = self.objects(out)
        self.assertEqual(told["message"], "bob has 3 nodes")
        self.assertEqual(told["values"], {"name": "bob", "count": 3})
        self.assertEqual((told["level"], told["source"]), ("info", "walt.test"))
        self.assertRegex(told["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")

    def test_libraries(self) -> None:
        """Neither log of the daemon keeps what strangers can make a library say."""
        events: list[LogEvent] = []
        kept = worth_telling(events.append)
        for library in ("twisted.python.log", "twisted.protocols.amp", "twisted.internet.tcp", "-"):
            log = Logger(library, observer=kept)
            log.info("a stranger has asked")
            log.warn("it fails")
        Logger("walt.test", observer=kept).info("a node booted")
        self.assertEqual([event["log_format"] for event in events],
                         ["it fails"] * 4 + ["a node booted"])

    def test_failures(self) -> None:
        """The kind of error, and where it was."""
        log, out = self.log("json")
        try:
            raise KeyError("x")
        except KeyError:
            log.failure("it {what}", what="broke")
        (told,) = self.objects(out)
        self.assertEqual((told["error"], told["level"]), ("KeyError", "critical"))
        self.assertIn("test_failures", told["traceback"])
        self.assertIn("broke", told["message"])

    def test_odd_values(self) -> None:
        """What JSON has not is shown as text; what cannot be shown loses nothing else."""
        log, out = self.log("json")
        log.info(
            "{a} {b.x} {c!r} {d} {e:>9} {f[0]}", a=float("nan"), b=[1], c=b"\xff", d=Hostile(),
            e="x" * 100_000, f=1 << 200,
        )
        (told,) = self.objects(out)
        self.assertEqual(set(told["values"]), set("abcdef"))
        self.assertEqual(told["values"]["b"], "[1]")
        self.assertEqual(told["values"]["a"], "nan")
        self.assertLess(len(out.getvalue()), 24_000)

    @given(st.text(), st.text())
    def test_one_line_each(self, first: str, second: str) -> None:
        """Whatever texts have, one event is one line of ASCII."""
        log, out = self.log("json")
        log.info("{first}.{second}", first=first, second=second)
        written = out.getvalue()
        self.assertTrue(written.isascii())
        self.assertEqual(written.count("\n"), 1)
        (told,) = self.objects(out)
        self.assertEqual(told["values"], {"first": first, "second": second})
