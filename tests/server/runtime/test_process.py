from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.processes import ProcessClock
from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.process import Launcher, ProcessRunner


class LauncherTests(SynchronousTestCase):
    def test_no_orphan(self) -> None:
        """Every program ends with the server, in a session of its own."""
        self.assertEqual(
            Launcher().command(["dhcpd"], death_signal="TERM", credentials=("--reuid", "bind")),
            ["setsid", "--", "setpriv", "--pdeathsig", "TERM", "--reuid", "bind", "--", "dhcpd"],
        )

    def test_host_network(self) -> None:
        """Programs that need the host's network leave the namespace of the server."""
        launcher = Launcher("/proc/9/fd/5")
        self.assertIn("--net=/proc/9/fd/5", launcher.command(["podman"], network="host"))
        self.assertNotIn("nsenter", launcher.command(["podman"]))


class FakeRunTests(SynchronousTestCase):
    def test_time_out(self) -> None:
        """A program that does not end in time is killed, and that is what the error says."""
        clock = ProcessClock()
        running = Deferred.fromCoroutine(ProcessRunner(clock).run(["podman"], timeout=3))
        clock.advance(3)
        (process,) = clock.processes
        self.assertEqual(process.signals, ["KILL"])
        process.end(signal=9)
        error = self.failureResultOf(running, Unavailable)
        self.assertEqual(str(error.value), "podman did not end within 3 s")

    def test_cancelled(self) -> None:
        """Cancelling kills the program, and leaves no timer."""
        clock = ProcessClock()
        running = Deferred.fromCoroutine(ProcessRunner(clock).run(["podman"]))
        running.cancel()
        self.assertEqual(clock.processes[0].signals, ["KILL"])
        self.failureResultOf(running, CancelledError)
        clock.processes[0].end(signal=9)
        self.assertEqual(clock.getDelayedCalls(), [])


class RunTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.runner = ProcessRunner(reactor)

    async def test_result(self) -> None:
        """Input, both outputs, status, directory, environment and lines."""
        lines: list[str] = []
        place = str(Path(self.mktemp()).parent.absolute())
        result = await self.runner.run(
            ["sh", "-c", 'cat; pwd; echo "$ONE" >&2; printf last; exit 3'], stdin=b"in\n",
            check=False, env={"ONE": "1"}, cwd=place, on_line=lines.append,
        )
        self.assertEqual(result.status, 3)
        self.assertEqual(result.stdout.decode(), f"in\n{place}\nlast")
        self.assertEqual(result.stderr, b"1\n")
        self.assertEqual(sorted(lines), sorted(["in", place, "1", "last"]))

    async def test_failure(self) -> None:
        """The error holds the program, its status and its last words."""
        error = await self.assertFailure(Deferred.fromCoroutine(
            self.runner.run(["sh", "-c", "echo out; echo went wrong >&2; exit 4"])
        ), CommandFailed)
        self.assertEqual(str(error), "sh failed (status 4): went wrong")

    async def test_missing_program(self) -> None:
        """A program that is not there is said to be not installed."""
        error = await self.assertFailure(Deferred.fromCoroutine(
            self.runner.run(["no-such-program-at-all"])
        ), Unavailable)
        self.assertEqual(str(error), "no-such-program-at-all is not installed on the server")

    async def test_killed(self) -> None:
        """A signal counts as 128 + its number, as in a shell."""
        result = await self.runner.run(["sh", "-c", "kill -9 $$"], check=False)
        self.assertEqual(result.status, 137)
