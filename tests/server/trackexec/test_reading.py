"""Stacks, steps, breakpoints, jumps and sums of a record."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from tests.server.trackexec.recorded import SAMPLE, lines, recorded
from walt.server.trackexec import analyse
from walt.server.trackexec.record import Record
from walt.server.trackexec.session import Refused, Session, moment
from walt.server.trackexec.sources import Source
from walt.server.trackexec.stacks import Stacks

STEPS = """
from twisted.internet.defer import Deferred
waiting = Deferred()
async def wf_first():
    await used()
    await waiting
    await used()
async def used():
    return 1
def wf_second():
    return 2
async def run():
    await wf_first()
    wf_second()
def other():
    return sum(range(9))
def main():
    Deferred.fromCoroutine(run())
    for _ in range(10):
        other()
    waiting.callback(None)
"""


def at(text: str, source: str = SAMPLE) -> int:
    """Return the number of the line that begins with a text."""
    return next(
        number for number, line in enumerate(source.splitlines(), 1)
        if line.strip().startswith(text)
    )


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()

    def session(self, text: str = SAMPLE) -> Session:
        """Return a session on the record of a program."""
        _, where = recorded(self.directory, text)
        record = Record(where)
        self.addCleanup(record.close)
        return Session(record)

    def test_stacks(self) -> None:
        """Each coroutine has its own callers, whatever ran in between."""
        _, where = recorded(self.directory)
        record = Record(where)
        self.addCleanup(record.close)
        found = lines(record)
        value = at("value = await waiting")
        begun, went_on = (
            [one for one in found if one.endswith(f"inner:{line}")]
            for line in (value, value + 1)
        )
        loop, first = at("Deferred.fromCoroutine"), at("first.callback")
        self.assertEqual(
            [one.split(" > ")[0] for one in begun[:2]], [f"main:{loop}", f"main:{loop}"]
        )
        # Both were resumed by the callback, called by their own `outer`.
        one = at("one = await inner")
        self.assertEqual(len(went_on), 2)
        for line in went_on:
            self.assertTrue(line.startswith(f"main:{first} > "), line)
            self.assertTrue(line.endswith(f"outer:{one} > inner:{value + 1}"), line)
        deepest = [line for line in found if line.count("Thing.count") == 4]
        self.assertTrue(deepest)

    def test_steps(self) -> None:
        """s goes into calls, n passes them over and stays in its coroutine, w tells who called."""
        session = self.session(STEPS)

        def here() -> tuple[int, str]:
            return session.replay.line, session.replay.stack[-1].function.name

        self.assertEqual(here(), (at("Deferred.from", STEPS), "main"))
        session.run("s")
        self.assertEqual(here(), (at("await wf_first", STEPS), "run"))
        session.run("s")
        self.assertEqual(here(), (at("await used", STEPS), "wf_first"))
        session.run("n")
        self.assertEqual(here(), (at("await waiting", STEPS), "wf_first"))
        told = session.run("w").splitlines()
        self.assertEqual([line.split()[1] for line in told], ["main:", "run", "wf_first:"])
        self.assertIn("(waits)", told[1])
        session.run("n")  # the others run ten times meanwhile
        self.assertEqual(here(), (at("await waiting", STEPS) + 1, "wf_first"))
        session.run("n")
        self.assertEqual(here(), (at("wf_second()", STEPS), "run"))
        session.run("n")
        self.assertIn("end of the record", session.position)

    def test_breakpoints(self) -> None:
        """On lines that were executed, on functions; c stops there, in order."""
        session = self.session(STEPS)
        self.assertIn("breakpoint at used", session.run("b used"))
        line = at("return sum", STEPS)
        session.run(f"b {line}")
        self.assertEqual(session.breakpoints(session.shown.number if session.shown else 0),
                         {line, at("async def used", STEPS)})
        stops = []
        while "end of" not in session.position:
            session.run("c")
            stops.append(session.replay.line)
        inside = at("return 1", STEPS)
        self.assertEqual(stops[:-1], [inside, *[line] * 10, inside])
        session.run("j +0 s")
        self.assertIn("no breakpoint at used any more", session.run("b used"))
        for wrong, reason in (
            (f"b {at('wf_second()', STEPS) + 100}", "was not executed"), ("b nowhere", "function"),
            ("x", "no command"), ("nn", "no command"), ("n 3", "no command"), ("", "no command"),
            ("f nowhere.py", "no recorded file"), ("/", "give a text"), ("/nowhere", "no recorded"),
            ("j soon", "is no time"), ("j 2026-13-01", "is no time"),
        ):
            with self.assertRaises(Refused, msg=wrong) as caught:
                session.run(wrong)
            self.assertIn(reason, str(caught.exception))

    def test_jumps(self) -> None:
        """To the last line before a time, back to the start, on to a text."""
        session = self.session(STEPS)
        started = session.replay.time
        session.run("/range(9)")
        self.assertEqual(session.replay.line, at("return sum", STEPS))
        session.run("j +1h")
        self.assertEqual(session.replay.line, at("wf_second()", STEPS) - 3, session.position)
        session.run("j -2 d")
        self.assertIn("start of the record", session.position)
        session.run("s")
        self.assertEqual(session.replay.time, started)
        self.assertIn("program.py", session.run("f program.py") or session.position)

    def test_sums(self) -> None:
        """Counts are exact; time is that of the turns; steps have what they awaited."""
        _, where = recorded(self.directory, STEPS)
        record = Record(where)
        self.addCleanup(record.close)
        by_line = {row.line: row for row in analyse.by_line(record)}
        self.assertEqual(by_line[at("return sum", STEPS)].count, 10)
        self.assertEqual(by_line[at("return 1", STEPS)].count, 2)
        spent = sum(row.seconds for row in by_line.values())
        entry = record.entries[0]
        self.assertLessEqual(spent, (record.entries[-1].end - entry.begin) / 1e6)
        functions = {row.name: row for row in analyse.by_function(record)}
        self.assertEqual(functions["other"].count, 10)
        waiting = {row.name for row in analyse.by_function(record, only_waiting=True)}
        self.assertEqual(waiting, {"run", "used", "wf_first"})
        steps = {row.name: row for row in analyse.by_step(record)}
        self.assertEqual({name: row.count for name, row in steps.items()},
                         {"wf_first": 1, "wf_second": 1})
        self.assertGreater(steps["wf_first"].seconds, functions["wf_first"].seconds)
        hottest = analyse.hottest(list(by_line.values()), "frequency", 3)
        self.assertEqual([row.count for row in hottest], [10, 10, 10])

    @given(some.lists(some.integers(0, (1 << 32) - 1), max_size=50))
    def test_any_codes(self, found: list[int]) -> None:
        """Whatever codes follow each other, a stack comes of it."""
        source = Source(1, "program.py", STEPS)
        stacks = Stacks(lambda number: source)
        for code in found:
            stacks.follow(code)

    @given(some.text(max_size=20))
    def test_any_time(self, text: str) -> None:
        """A time, or words."""
        try:
            self.assertGreaterEqual(moment(text, 10**15), 0)
        except Refused as error:
            self.assertIn("is no time", str(error))

    @given(some.from_regex(r"[+-] ?[0-9]{1,9} ?[smhd]", fullmatch=True))
    def test_relative_times(self, text: str) -> None:
        """As far as nine digits of days lead."""
        try:
            self.assertGreaterEqual(moment(text, 10**15), 0)
        except Refused:
            self.fail(text)
