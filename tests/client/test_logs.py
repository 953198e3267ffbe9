"""`walt log wait`, `export` and checkpoints, as processes on the real services."""

from __future__ import annotations

import ast
import csv
import json
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pyarrow import parquet
from twisted.trial.unittest import TestCase

from tests.client.platform import SECOND, Server, Walt, until
from tests.patience import patient
from tests.server.streams.platform import NODE


class LogCase(TestCase):
    """A server, and a way to run a command to its end."""

    timeout = patient(30)

    def setUp(self) -> None:
        self.server = Server(self)
        self.logs = self.server.platform.logs

    async def run_walt(self, *words: str) -> tuple[int, bytes, bytes]:
        walt = Walt(self.server, *words)
        walt.transport.closeStdin()
        status = await walt.ended
        return status, walt.out, walt.err

    async def waiting(self, *words: str) -> Walt:
        """Start a wait; return when the server knows about it."""
        walt = Walt(self.server, "log", "wait", *words)
        await until(lambda: self.logs._subscribers)
        return walt


class WaitTests(LogCase):
    async def test_any(self) -> None:
        """The first matching line ends it, and is printed."""
        walt = await self.waiting("--mode", "any", "--format", "{line}", "go+d$")
        self.logs.write(NODE.mac, "exp", "goods")
        self.logs.write(NODE.mac, "exp", "very good")
        self.assertEqual(await walt.ended, 0)
        self.assertEqual(walt.out, b"very good\n")
        await until(lambda: not self.logs._subscribers)

    async def test_all(self) -> None:
        """One line of each issuer; all that match meanwhile are printed."""
        walt = await self.waiting("--mode", "ALL", "--format", "{issuer} {line}", "ready")
        self.logs.write(NODE.mac, "exp", "ready 1")
        self.logs.write(NODE.mac, "exp", "ready 2")
        await walt.shows(b"node-1 ready 2\n")
        self.logs.write(SECOND.mac, "exp", "ready 3")
        self.assertEqual(await walt.ended, 0)
        self.assertEqual(walt.out, b"node-1 ready 1\nnode-1 ready 2\nnode-2 ready 3\n")

    async def test_time_margin(self) -> None:
        """Lines of the last seconds count, older ones do not."""
        now = self.server.platform.clock.seconds()
        self.logs.write(NODE.mac, "exp", "old ready", timestamp=now - 100)
        self.logs.write(NODE.mac, "exp", "ready before", timestamp=now - 5)
        status, out, _ = await self.run_walt(
            "log", "wait", "--time-margin", "20", "--format", "{line}", "ready"
        )
        self.assertEqual((status, out), (0, b"ready before\n"))

    async def test_timeout(self) -> None:
        """Told on stderr, rc 1; ctrl-C: rc 130."""
        status, out, err = await self.run_walt("log", "wait", "--timeout", "1", "never")
        self.assertEqual((status, out), (1, b""))
        self.assertIn(b"Timeout", err)
        walt = await self.waiting("never")
        walt.transport.signalProcess("INT")
        self.assertEqual(await walt.ended, 130)

    async def test_refused(self) -> None:
        """Expressions that are none, issuers that are none, modes that are none."""
        for words, status in (
            (("(",), 2), (("--issuers", "ghost", "x"), 1), (("--mode", "SOME", "x"), 2),
            (("--issuers", "switch-1", "x"), 1), ((r"(a)\1",), 2), ((r"\d",), 2),
            (("(?i)x",), 2), (("[[:foo:]]",), 2), (("--streams", "[[:foo:]]", "x"), 2),
            (("--platform", "--issuers", "server", "x"), 2),
        ):
            got, out, err = await self.run_walt("log", "wait", *words)
            self.assertEqual(got, status, words)
            self.assertTrue(out + err)

    async def test_expression_that_explodes(self) -> None:
        """Refused or searched at once: it cannot hold the server up."""
        walt = await self.waiting("(a|aa)*(a|aa)*(a|aa)*b$")
        self.logs.write(NODE.mac, "exp", "a" * 100_000)
        self.logs.write(NODE.mac, "exp", "ab")
        self.assertEqual(await walt.ended, 0)
        status, _, err = await self.run_walt("log", "wait", "((a{1,200}){1,200}){1,200}")
        self.assertEqual(status, 2)
        self.assertIn(b"repetition", err)


class CheckpointTests(LogCase):
    async def test_life(self) -> None:
        """Added now, at a date, at a relative date; listed, used as bounds, removed."""
        status, out, _ = await self.run_walt("log", "list-checkpoints")
        self.assertEqual(status, 0)
        self.assertIn(b"no checkpoint", out)
        for words in (
            ("start",), ("--date", "2020-05-01 12:00:00", "long-ago"), ("--date", "-1h", "before"),
        ):
            status, out, err = await self.run_walt("log", "add-checkpoint", *words)
            self.assertEqual((status, err), (0, b""), words)
            self.assertIn(f"Checkpoint {words[-1]} was added at ".encode(), out)
        status, out, _ = await self.run_walt("log", "list-checkpoints")
        lines = out.decode().splitlines()
        self.assertEqual([line.split()[-1] for line in lines[-3:]], ["long-ago", "before", "start"])
        self.assertIn("2020-05-01 12:00:00", out.decode())
        now = self.server.platform.clock.seconds()
        self.logs.write(NODE.mac, "exp", "between", timestamp=now - 1800)
        self.logs.write(NODE.mac, "exp", "earlier", timestamp=now - 7200)
        status, out, _ = await self.run_walt(
            "log", "show", "--history", "before:start", "--format", "{line}"
        )
        self.assertEqual((status, out), (0, b"between\n"))
        self.assertEqual(
            await self.run_walt("log", "remove-checkpoint", "start"), (0, b"Done.\n", b"")
        )
        status, _, err = await self.run_walt("log", "remove-checkpoint", "start")
        self.assertEqual(status, 1)
        self.assertIn(b'no checkpoint named "start"', err)

    async def test_dates_are_local(self) -> None:
        """An absolute date is one of the client's time zone, wherever the server is."""
        for zone, name, epoch in (
            ("UTC0", "here", 1588334400), ("JST-9", "east", 1588302000),
            ("EST5", "west", 1588352400),
        ):
            walt = Walt(
                self.server, "log", "add-checkpoint", "--date", "2020-05-01 12:00:00", name,
                variables={"TZ": zone},
            )
            self.assertEqual(await walt.ended, 0, walt.err)
            self.assertEqual(self.server.checkpoints.times["alice", name], epoch)

    async def test_refused(self) -> None:
        """Names and dates that are none, names that are taken."""
        await self.run_walt("log", "add-checkpoint", "taken")
        for words, text in (
            (("taken",), b"already"), (("-x",), b""), (("a b",), b"not a valid name"),
            (("x",), b"not a valid name"), (("--date", "yesterday", "xx"), b"YYYY-MM-DD hh:mm:ss"),
            (("--date", "-5y", "xx"), b"not a relative date"),
            (("--date", "1901-01-01 00:00:00", "xx"), b"1970"),
        ):
            status, out, err = await self.run_walt("log", "add-checkpoint", *words)
            self.assertNotEqual(status, 0, words)
            self.assertIn(text, out + err)


class ZoneTests(LogCase):
    async def test_difference_to_utc(self) -> None:
        """A format may tell the zone: an hour of autumn comes twice; without, dates are as ever."""
        year = datetime.fromtimestamp(self.logs.now(), UTC).year - 1
        sunday = next(day for day in range(1, 8) if date(year, 11, day).weekday() == 6)
        for hour in (5, 6):  # half past one, and half past one again, in New York
            moment = datetime(year, 11, sunday, hour, 30, tzinfo=UTC).timestamp()
            self.logs.write(NODE.mac, "zone", "x", timestamp=moment)
        found = {}
        for template in ("{timestamp:%H:%M%z %Z}", "{timestamp:%H:%M}", "{timestamp}"):
            walt = Walt(
                self.server, "log", "show", "--history", "full", "--streams", "zone", "--format",
                template, variables={"TZ": "EST5EDT,M3.2.0,M11.1.0"},
            )
            self.assertEqual(await walt.ended, 0, walt.err)
            found[template] = walt.out.decode().splitlines()
        self.assertEqual(
            found["{timestamp:%H:%M%z %Z}"], ["01:30-0400 EDT", "01:30-0500 EST"]
        )
        self.assertEqual(found["{timestamp:%H:%M}"], ["01:30", "01:30"])
        self.assertEqual(found["{timestamp}"], [f"{year}-11-0{sunday} 01:30:00"] * 2)


class ExportTests(LogCase):
    async def export(self, *words: str) -> tuple[int, bytes, bytes]:
        return await self.run_walt("log", "export", *words)

    def setUp(self) -> None:
        super().setUp()
        self.now = float(int(self.server.platform.clock.seconds()))
        self.lines = ["one", 'with "quotes", commas', "é", "", "x" * 1000]
        for number, line in enumerate(self.lines):
            self.logs.write(NODE.mac, "exp", line, timestamp=self.now - 60 + number + 0.25)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    async def test_formats(self) -> None:
        """The same records in each format."""
        expected = [
            (self.now - 60 + number + 0.25, "node-1", "exp", line)
            for number, line in enumerate(self.lines)
        ]
        for format in ("jsonl", "CSV", "parquet"):
            path = self.directory / f"out.{format}"
            status, out, err = await self.export("--format", format, str(path))
            self.assertEqual((status, err), (0, b""))
            self.assertIn(b"5 log lines were written", out)
            found: list[Any]
            if format == "jsonl":
                found = [tuple(json.loads(one).values()) for one in path.open(encoding="utf-8")]
            elif format == "CSV":
                rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
                self.assertEqual(rows[0], ["timestamp", "issuer", "stream", "line"])
                found = [(float(row[0]), *row[1:]) for row in rows[1:]]
            else:
                found = [
                    (row["timestamp"].timestamp(), row["issuer"], row["stream"], row["line"])
                    for row in parquet.read_table(path).to_pylist()
                ]
            self.assertEqual(found, expected, format)
        self.assertEqual(len(os.listdir(self.directory)), 3)

    async def test_selection(self) -> None:
        """Expressions, streams, ranges with checkpoints."""
        path = str(self.directory / "out")
        self.server.checkpoints.times["alice", "then"] = self.now - 58
        for words, count in (
            (("--history", "then:"), 3), (("--streams", "nothing"), 0), (("--history", ":then"), 2),
        ):
            _, out, _ = await self.export(*words, path)
            self.assertIn(f"{count} log lines".encode(), out)
        _, out, _ = await self.export(path, "^(one|é)$")
        self.assertIn(b"2 log lines", out)

    async def test_places(self) -> None:
        """Links and rights of a file stay; a device or a pipe is written, not replaced."""
        secret, link = self.directory / "secret", self.directory / "link"
        secret.touch(0o600)
        link.symlink_to("secret")
        status, _, err = await self.export(str(link))
        self.assertEqual((status, err), (0, b""))
        self.assertTrue(link.is_symlink())
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(secret.read_text().splitlines()), len(self.lines))
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        device = self.directory / "null"
        device.symlink_to("/dev/null")
        for format in ("jsonl", "csv"):
            walt = Walt(
                self.server, "log", "export", "--format", format, str(pipe),
                shell=f'cat {pipe} & "$@"; wait',
            )
            self.assertEqual(await walt.ended, 0, walt.err)
            self.assertIn(b"one", walt.out, walt.err)
            status, _, err = await self.export("--format", format, str(device))
            self.assertEqual((status, err), (0, b""))
        self.assertTrue(pipe.is_fifo())
        self.assertTrue(Path("/dev/null").is_char_device())
        status, _, err = await self.export(str(self.directory))
        self.assertEqual(status, 1)
        self.assertIn(b"Is a directory", err)

    async def test_open_files(self) -> None:
        """What the shell opened is written itself: a pipe, the end of a file."""
        file = self.directory / "all"
        file.write_text("before\n")
        for path, shell in (
            ("/dev/stdout", '"$@" | cat'), ("/dev/fd/1", '"$@" | cat'),
            ("/dev/fd/5", '"$@" 5>&1 | cat'), ("/dev/stdout", f'"$@" >> {file} && cat {file}'),
        ):
            walt = Walt(self.server, "log", "export", path, shell=shell)
            self.assertEqual(await walt.ended, 0, walt.err)
            lines = [line for line in walt.out.split(b"\n") if line.startswith(b"{")]
            self.assertEqual(len(lines), len(self.lines), (path, shell, walt.err))
            told = f"{len(self.lines)} log lines were written to {path}.\n".encode()
            self.assertEqual(walt.err, told)
        self.assertTrue(file.read_text().startswith("before\n{"))

    async def test_odd_texts(self) -> None:
        """Quotes, line ends of other systems, what looks like a formula: the same in each file."""
        odd = ["=1+1", "\r", "a\rb", "\u2028 \x85", '",\'";', "\\n", " ", "\x1b[31m", "\ufeff"]
        for number, line in enumerate(odd):
            self.logs.write(NODE.mac, "odd", line, timestamp=self.now - 9 + number / 10)
        for format in ("jsonl", "csv", "parquet"):
            path = self.directory / format
            await self.export("--format", format, "--streams", "odd", str(path))
            if format == "jsonl":
                found = [json.loads(one)["line"] for one in path.read_bytes().split(b"\n") if one]
            elif format == "csv":
                with path.open(encoding="utf-8", newline="") as file:
                    found = [row[3] for row in csv.reader(file)][1:]
            else:
                found = [row["line"] for row in parquet.read_table(path).to_pylist()]
            self.assertEqual(found, odd, format)

    async def test_failures(self) -> None:
        """Places and ranges that are none: nothing is left, the old file stays."""
        path = self.directory / "out"
        path.write_text("old")
        for words in (
            ("/nonexistent/out",), ("--history", "none", str(path)),
            ("--issuers", "ghost", str(path)), ("--history", "bad", str(path)),
            ("--format", "xml", str(path)),
        ):
            status, _, _ = await self.export(*words)
            self.assertNotEqual(status, 0, words)
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(os.listdir(self.directory), ["out"])


class TimelineTests(LogCase):
    async def test_boot(self) -> None:
        """What `make run` shows: the stages of the last boot, from the log of the node."""
        now = self.server.platform.clock.seconds()
        for age, chunk in ((9, b"SeaBIOS (version"), (8, b"iPXE initialising devices")):
            self.logs.write(
                NODE.mac, "virtualconsole", repr(chunk), timestamp=now - age, mode="chunk"
            )
        self.logs.write(NODE.mac, "walt-init", "Starting up.", timestamp=now - 4)
        code = "from walt.server.tools.timeline import boot_timeline as b; print(b('node-1'))"
        walt = Walt(self.server, shell=f'exec "{sys.executable}" -c "{code}"')
        self.assertEqual(await walt.ended, 0, walt.err)
        self.assertEqual(
            [(round(when), name) for when, name in ast.literal_eval(walt.out.decode())],
            [
                (0, "power-on"), (1, "iPXE starts"), (5, "root mounted, walt-init starts"),
                (9, "booted (notified)"),
            ],
        )
