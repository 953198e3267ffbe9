"""A live server is recorded; the commands of trackexec read that."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from walt.server.runtime.process import ProcessResult

MAIN = "from walt.server.tools.trackexec import {0}_main as main; main()"


def keys(record: Path, typed: list[tuple[str, str]]) -> tuple[list[str], int]:
    """Type on a terminal of 100 x 30 that shows a replay; return what each key brought.

    With each comes what its screen must show: that is waited for. Returns the exit status as well.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", LINES="30", COLUMNS="100", PYTHONPATH=str(ROOT))
        os.execv(sys.executable, [sys.executable, "-c", MAIN.format("replay"), str(record)])
    shown = []
    for text, wanted in typed:
        os.write(terminal, text.encode())
        shown.append(_read(terminal, wanted))
    os.close(terminal)
    return shown, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(terminal: int, wanted: str) -> str:
    """Return what is written until it has something that is wanted; nothing: until the end."""
    found, text, limit = b"", "", time.monotonic() + patient(30.0)
    while not wanted or not re.search(wanted, text):
        if not select.select([terminal], [], [], max(0.0, limit - time.monotonic()))[0]:
            break
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the program has ended
            break
        if not data:
            break
        found += data
        text = re.sub(r"\x1b[\[(][0-9;?]*[A-Za-z]", " ", found.decode(errors="replace"))
    return text


class TrackexecTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.addCleanup(self.platform.close)

    async def tool(self, name: str, *words: str, stdin: str = "") -> ProcessResult:
        """Run one of the two commands."""
        return await self.platform.runner.run(
            [sys.executable, "-c", MAIN.format(name), *words], check=False, stdin=stdin.encode(),
            env={"PYTHONPATH": str(ROOT)}, timeout=patient(120),
        )

    async def test_replay_and_analysis(self) -> None:
        """While the server runs and after it was killed; keys, commands, tables, errors."""
        directory = self.platform.base / "l" / "trackexec"
        directory.mkdir()
        await self.platform.start()
        record = (directory / "latest" / "server").resolve()

        async def is_written() -> bool:
            done = await self.tool("analyse", str(record), "--by", "function",
                                   "--num-items", "5000")
            self.assertEqual(done.status, 0, done.stderr)
            return b"Decoder.feed()" in done.stdout

        await self.platform.until(is_written, "the calls of a command are in the record")
        self.assertTrue(list(record.parent.glob("worker-*/about")))

        done = await self.tool("analyse", str(record))
        head, *rows = done.stdout.decode().splitlines()
        self.assertEqual(head.split(), ["file-id", "cumulated", "average", "count", "location,",
                                        "code"])
        self.assertEqual(len(rows), 20)
        number = rows[0].split()[0]
        done = await self.tool("analyse", str(record), "--file-id", number)
        self.assertIn(b"def ", done.stdout)
        for words in (["--file-id", number, "--num-items", "3"], ["--num-items", "0"],
                      ["--sort-column", "name"], []):
            done = await self.tool("analyse", *([str(record)] if words else []), *words)
            self.assertEqual((done.status, done.stdout), (2, b""), words)
        done = await self.tool("analyse", str(directory))
        self.assertEqual(done.status, 1)
        self.assertIn(b"is no execution record", done.stderr)

        # The start of the server is one coroutine: n stays in it while others run.
        done = await self.tool(
            "replay", str(record), stdin="b WaltServer._start\nc\n" + "n\n" * 8 + "w\nzz\n",
        )
        self.assertEqual(done.status, 2, done.stdout)
        self.assertIn(b"no command 'zz'", done.stderr)
        steps = [one for one in done.stdout.decode().splitlines() if "WaltServer._start:" in one]
        self.assertGreaterEqual(len(steps), 9, done.stdout)
        numbers = [int(one.split(".py:")[1].split()[0]) for one in steps[:9]]
        self.assertEqual(numbers, sorted(numbers))
        self.assertIn("WaltServer._begin: self._starting", done.stdout.decode())

        typed = [
            ("", r"\b(def|class) \w+"),  # of the module that is read first
            ("sb", "b _"),
            ("WaltServer._start\n", "breakpoint at WaltServer._start"),
            ("c", r"config = self\._config"), ("n", r"preflight\.check\(config\)"), ("f", "f _"),
            ("ampbox.p\t\n", "AMP framing with the standard library"), ("h", "jump to a time"),
            ("q", ""),
        ]
        shown, status = await deferToThread(keys, record, typed)
        for (text, wanted), screen in zip(typed, shown, strict=True):
            self.assertTrue(re.search(wanted, screen), (text, screen))
        self.assertEqual(status, 0)

        # What ran in the last second before it was killed is there.
        await self.platform.ok("device", "show")
        await self.platform.sleep(1.0)
        killed = time.time()
        await self.platform.stop(signal.SIGKILL)
        done = await self.tool("replay", str(record), stdin="j +9d\n")
        self.assertEqual(done.status, 0, done.stderr)
        last = done.stdout.decode().splitlines()[-1]
        found = time.mktime(time.strptime(last[:19], "%Y-%m-%d %H:%M:%S"))
        self.assertGreater(found, killed - patient(4.0), last)
        # The next one has a record of its own, and takes over what was left.
        await self.platform.start()
        self.assertNotEqual((directory / "latest" / "server").resolve(), record)

    async def test_without(self) -> None:
        """Nothing is recorded unless the directory is there; a file in its place is no reason."""
        (self.platform.base / "l" / "trackexec").write_text("")
        await self.platform.start()
        self.assertEqual((self.platform.base / "l" / "trackexec").read_text(), "")

    async def test_nobody_may_write(self) -> None:
        """What cannot be recorded is told; the server starts all the same."""
        directory = self.platform.base / "l" / "trackexec"
        directory.mkdir()
        run = self.platform.runner.run
        await run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(directory)])
        self.addCleanup(run, ["umount", "-l", str(directory)])
        self.platform.expects("the execution is not recorded")
        await self.platform.start()
        self.assertIn("Read-only file system", self.platform.told())
