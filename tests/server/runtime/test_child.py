from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.processes import FIRST_PID, FakeProcess, ProcessClock
from tests.patience import patient
from walt.server.runtime.child import (
    ChildService,
    ChildSpec,
    end_left_over,
    process_start,
    recorded_process,
    with_parent,
)
from walt.server.runtime.kept import LOGGED, MINUTE
from walt.server.runtime.process import Launcher


class ChildServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ProcessClock()
        self.lines: list[str] = []
        self.restarts: list[int] = []
        self.pid_file = Path(self.mktemp())
        self.child = ChildService(
            self.clock, Launcher(), ChildSpec("sleepd", ("sleepd", "-f")),
            on_line=self.lines.append, on_restart=self.restarts.append, pid_file=self.pid_file,
        )

    @property
    def process(self) -> FakeProcess:
        """The present child."""
        return self.clock.processes[-1]

    def pauses(self) -> list[float]:
        """Return the pause of each of eight restarts."""
        found = []
        for _ in range(8):
            self.process.end(status=1)
            (call,) = self.clock.getDelayedCalls()
            found.append(call.getTime() - self.clock.seconds())
            self.clock.advance(found[-1])
        return found

    def test_starts_behind_the_launcher(self) -> None:
        """The daemon dies with the server, has a session of its own, and a fixed environment."""
        self.child.startService()
        self.assertEqual(self.process.argv[-2:], ["sleepd", "-f"])
        self.assertIn("--pdeathsig", self.process.argv)
        self.assertEqual(self.process.env["LC_ALL"], "C.UTF-8")
        self.assertEqual(self.child.pid, FIRST_PID)
        self.assertTrue(self.child.health.running)

    def test_lines(self) -> None:
        """Output comes line by line, whatever the segments; an endless line is cut."""
        self.child.startService()
        for descriptor, data in (
            (1, b"one\ntw"), (2, b"bad \xff"), (1, b"o\n"), (2, b"\n"), (1, b"x" * 70000),
        ):
            self.process.protocol.childDataReceived(descriptor, data)
        self.assertEqual(self.lines[:3], ["one", "two", "bad \ufffd"])
        self.assertEqual(len(self.lines[3]), 70000)

    def test_many_lines(self) -> None:
        """Peers of a daemon do not fill the log by what it writes: what is left out is told."""
        child = ChildService(self.clock, Launcher(), ChildSpec("sleepd", ("sleepd", "-f")))
        self.clock.advance(MINUTE)
        child.startService()
        said: list[str] = []

        def observer(event: dict[str, Any]) -> None:
            said.append(formatEvent(event))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.process.protocol.childDataReceived(2, b"refused\n" * (LOGGED + 7))
        self.clock.advance(MINUTE)
        self.process.protocol.childDataReceived(2, b"last\n")
        self.assertEqual(said, [
            *["sleepd: refused"] * LOGGED, "sleepd: 7 more lines were not logged", "sleepd: last",
        ])

    def test_back_off(self) -> None:
        """Quick deaths are followed by longer and longer pauses, up to a minute."""
        self.child.startService()
        self.assertEqual(self.pauses(), [1, 2, 4, 8, 16, 32, 60, 60])
        self.assertEqual(self.child.health.restarts, 8)
        self.assertEqual(self.restarts, [1] * 8)
        self.assertEqual(self.child.health.last_status, 1)

    def test_healthy_life_resets_the_back_off(self) -> None:
        """After ten seconds of life the next pause is short again."""
        self.child.startService()
        self.pauses()
        self.clock.advance(10)
        self.process.end(signal=9)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime() - self.clock.seconds(), 1)
        self.assertEqual(self.child.health.last_status, 137)

    def test_missing_program(self) -> None:
        """A program that cannot be started is tried again."""
        self.clock.error = FileNotFoundError(2, "No such file or directory")
        self.child.startService()
        self.assertFalse(self.child.health.running)
        self.assertEqual(
            self.child.health.trouble,
            "cannot be started: No such file or directory",
        )
        self.clock.advance(1)
        self.assertTrue(self.child.health.running)

    def test_stop_escalates(self) -> None:
        """TERM, then KILL after five seconds; the answer comes when the daemon is gone."""
        self.child.startService()
        stopped = self.child.stopService()
        again = self.child.stopService()
        self.assertEqual(self.process.signals, ["TERM"])
        self.clock.advance(5)
        self.assertEqual(self.process.signals, ["TERM", "KILL"])
        self.assertNoResult(stopped)
        self.process.end(signal=9)
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.clock.processes), 1)

    def test_every_signal(self) -> None:
        """Any signal may be among those that end a daemon (PostgreSQL: INT, QUIT, KILL)."""
        spec = ChildSpec("pg", ("pg",), stop_signals=(("INT", 1.0), ("QUIT", 1.0), ("KILL", 1.0)))
        child = ChildService(self.clock, Launcher(), spec)
        child.startService()
        child.stopService()
        self.clock.pump([1, 1])
        self.assertEqual(self.process.signals, ["INT", "QUIT", "KILL"])
        self.process.end(signal=9)

    def test_prepare(self) -> None:
        """What the daemon reads is written before each start."""
        prepared: list[int] = []
        child = ChildService(
            self.clock, Launcher(), ChildSpec("x", ("x",)),
            prepare=lambda: prepared.append(len(self.clock.processes)),
        )
        child.startService()
        self.process.end(status=1)
        self.clock.advance(1)
        self.assertEqual(prepared, [0, 1])

    def test_state_and_trouble(self) -> None:
        """What it is doing, and the last words of one that ended, however late they come."""
        self.assertEqual(self.child.health.state, "stopped")
        self.child.startService()
        self.clock.advance(100)
        self.assertEqual((self.child.health.state, self.child.health.trouble), ("running", None))
        first = self.process.protocol
        first.childDataReceived(2, b"one\n\nline 7: bad word\n")
        self.process.end(status=1)
        first.childDataReceived(2, b"  giving up\n")
        health = self.child.health
        self.assertEqual(health.state, "restarting in 1 s")
        self.assertEqual(health.trouble, "ended with status 1: line 7: bad word / giving up")
        self.assertEqual(health.trouble_time, 100)
        self.clock.advance(1)
        self.process.protocol.childDataReceived(2, b"all is well\n")
        self.assertEqual(self.child.health.state, "running")
        self.process.end(signal=9)
        self.assertEqual(self.child.health.trouble, "ended with status 137")
        self.successResultOf(self.child.stopService())
        self.assertEqual(self.child.health.state, "stopped")
        self.assertEqual(self.child.health.trouble, "ended with status 137")

    def test_observers(self) -> None:
        """They are told of each start and each end, before those who wait for it."""
        told: list[object] = []
        self.child.observe(told.append)
        self.child.startService()
        self.child.restart().addCallback(lambda _: told.append("restarted"))
        self.process.end(signal=15)
        self.child.stopService().addCallback(lambda _: told.append("stopped"))
        self.process.end(signal=15)
        self.assertEqual(told, [True, False, True, "restarted", False, "stopped"])

    def test_stop_during_a_pause(self) -> None:
        """A daemon that waits for its restart is not started any more."""
        self.child.startService()
        self.process.end(status=1)
        self.successResultOf(self.child.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart(self) -> None:
        """A restart waits for the end, then starts at once, without back-off."""
        self.child.startService()
        first = self.process
        done = self.child.restart()
        self.assertEqual(first.signals, ["TERM"])
        self.assertNoResult(done)
        first.end(signal=15)
        self.successResultOf(done)
        self.assertEqual(len(self.clock.processes), 2)
        self.assertEqual(self.restarts, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart_during_a_pause(self) -> None:
        """A restart does not wait for the end of the pause."""
        self.child.startService()
        self.process.end(status=1)
        self.successResultOf(self.child.restart())
        self.assertEqual(len(self.clock.processes), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_restart_of_a_stopped_service(self) -> None:
        """Nothing is started."""
        self.successResultOf(self.child.restart())
        self.assertEqual(self.clock.processes, [])

    def test_stop_during_a_restart(self) -> None:
        """Both answers come, and the daemon stays down."""
        self.child.startService()
        restarted, stopped = self.child.restart(), self.child.stopService()
        self.process.end(signal=15)
        self.successResultOf(restarted)
        self.successResultOf(stopped)
        self.assertEqual(len(self.clock.processes), 1)

    def test_signal(self) -> None:
        """A reload reaches the daemon while it runs."""
        self.assertFalse(self.child.signal("HUP"))
        self.child.startService()
        self.assertTrue(self.child.signal("HUP"))
        self.assertEqual(self.process.signals, ["HUP"])

    def test_pid_file(self) -> None:
        """The process is recorded while it runs."""
        self.child.startService()
        self.assertTrue(self.pid_file.read_text().startswith(f"{FIRST_PID} "))
        self.process.end(status=1)
        self.assertFalse(self.pid_file.exists())


def runs(pid: int) -> bool:
    """Tell whether a process is there and has not ended (proc(5): Z)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, or after
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


class FamilyTests(TestCase):
    timeout = patient(30)

    async def test_what_it_started(self) -> None:
        """After a stop the processes that the daemon has started are gone, and its pipes closed."""
        told: Deferred[str] = Deferred()
        child = ChildService(
            reactor, Launcher(),
            ChildSpec("family", ("sh", "-c", "sleep 60 & echo $!; exec sleep 60")),
            on_line=told.callback,
        )
        child.startService()
        started = int(await told)
        self.assertTrue(runs(started))
        await child.stopService()
        while runs(started):  # it was killed, and may still be ending
            await deferLater(reactor, 0.01)
        self.assertEqual(child.health.last_status, 128 + signal.SIGTERM)


class ParentTests(SynchronousTestCase):
    def test_parent(self) -> None:
        """A program runs below its server alone: one that died meanwhile leaves no orphan."""
        argv = with_parent(["echo", "runs", "-n $HOME"])
        below = subprocess.run(argv, capture_output=True, check=False)
        self.assertEqual((below.returncode, below.stdout), (0, b"runs -n $HOME\n"))
        orphan = subprocess.run(
            ["sh", "-c", '"$@"; exit $?', "sh", *argv], capture_output=True, check=False
        )
        self.assertEqual((orphan.returncode, orphan.stdout), (1, b""))


def ends_within(pid: int, seconds: float) -> bytes:
    """Return the command of a process after so many seconds, b"" as soon as it has ended."""
    limit = time.monotonic() + seconds
    while True:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            command = b""
        if not command or time.monotonic() > limit:
            return command
        time.sleep(0.02)


class LeftOverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pid_file = Path(self.mktemp()).absolute()

    def test_the_very_process(self) -> None:
        """Pid and start time must both be right."""
        me = os.getpid()
        self.pid_file.write_text(f"{me} {process_start(me)}\n")
        self.assertEqual(recorded_process(self.pid_file), me)
        self.pid_file.write_text(f"{me} {process_start(me) + 1}\n")
        self.assertIsNone(recorded_process(self.pid_file))

    def test_inner_half(self) -> None:
        """What a leader that is gone has left in its group ends, where it is ours."""
        place = self.pid_file.parent
        for words, ends in ((str(place), True), ("/elsewhere", False)):
            leader = subprocess.Popen(
                ["sh", "-c", '"$1" -c "import time; time.sleep(30)" "$2" & echo $!; wait', "sh",
                 sys.executable, words],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )
            assert leader.stdout is not None
            inner = int(leader.stdout.readline())
            self.pid_file.write_text(f"{leader.pid} {process_start(leader.pid)}\n")
            leader.kill()
            leader.wait()
            leader.stdout.close()
            self.assertIsNone(end_left_over(self.pid_file, signal.SIGKILL))
            # Its new parent takes its status in its own time; a dead one has no command.
            alive = bool(ends_within(inner, 5.0 if ends else 0.2))
            self.assertEqual(alive, not ends)
            if alive:
                os.kill(inner, signal.SIGKILL)

    def test_damaged_files(self) -> None:
        """A damaged or absent file names nobody, and is removed."""
        for text in ("", "x y", "1", "1 2 3", "-1 0", "999999999 1"):
            self.pid_file.write_text(text)
            self.assertIsNone(end_left_over(self.pid_file, signal.SIGKILL), text)
            self.assertFalse(self.pid_file.exists())
        self.assertIsNone(end_left_over(self.pid_file, signal.SIGKILL))
