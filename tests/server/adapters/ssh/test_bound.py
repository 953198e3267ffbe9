"""Commands that end with their connection, in real shells."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from tests.patience import patient
from tests.server.runtime.test_child import runs
from walt.server.adapters.ssh.bound import bound, on_terminal

SHELLS = (["dash"], ["bash"], ["busybox", "sh"])
# Stands for sshd, or for dropbear (`same`: the command is in its session): starts a login
# shell, waits, passes its status on.
DAEMON = """
import subprocess, sys
done = subprocess.run(sys.argv[2:], start_new_session=sys.argv[1] != "same")
sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
"""


class BoundTests(SynchronousTestCase):
    def start(
        self, shell: list[str], command: str, session: str = "own"
    ) -> subprocess.Popen[bytes]:
        """Run a command as sshd does, or dropbear (`same`)."""
        return subprocess.Popen(
            [sys.executable, "-c", DAEMON, session, *shell, "-c", bound(command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def test_as_without(self) -> None:
        """Input, output, errors, quotes and statuses are those of the command."""
        for shell in SHELLS:
            for command, data, expected in (
                ("cat; echo error >&2; exit 3", b"in\n", (3, b"in\n", b"error\n")),
                ("echo \"it's\" '$HOME' $((1 + 1))", b"", (0, b"it's $HOME 2\n", b"")),
                ("kill -9 $$", b"", (137, b"", None)), ("", b"", (0, b"", b"")),
            ):
                done = self.start(shell, command)
                out, err = done.communicate(data, patient(10))
                self.assertEqual((done.returncode, out), expected[:2], (shell, command))
                if expected[2] is not None:
                    self.assertEqual(err, expected[2])

    def test_connection_lost(self) -> None:
        """The whole group ends, one that ignores TERM, too."""
        for shell, session in product(SHELLS, ("own", "same")):
            command = "trap '' TERM; sleep 60 & echo $$ $!; wait; sleep 60"
            daemon = self.start(shell, command, session)
            assert daemon.stdout is not None
            pids = [int(word) for word in daemon.stdout.readline().split()]
            self.assertTrue(all(map(runs, pids)))
            daemon.kill()
            daemon.wait(patient(10))
            self.until_gone(pids)
            daemon.communicate()

    def until_gone(self, pids: list[int]) -> None:
        """Wait for the end of processes."""
        limit = time.monotonic() + patient(10)
        while any(map(runs, pids)):
            self.assertLess(time.monotonic(), limit, pids)
            time.sleep(0.05)

    def test_background(self) -> None:
        """What a command has put into the background and left stays when it ends."""
        for shell in SHELLS:
            daemon = self.start(shell, "sleep 60 > /dev/null 2>&1 & echo $!")
            out, _ = daemon.communicate(b"", patient(10))
            pid = int(out)
            time.sleep(1.5)  # a look of who watches
            self.assertTrue(runs(pid), shell)
            os.kill(pid, signal.SIGKILL)


KEYS = {signal.SIGINT: b"\x03", signal.SIGQUIT: b"\x1c"}


class OnTerminalTests(SynchronousTestCase):
    def ended(self, pid: int, terminal: int, key: bytes | None) -> int:
        """Press a key until a program ends: it may not have begun; return how it ended."""
        while True:
            if key is not None:
                os.write(terminal, key)
            for _ in range(20):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    return status
                time.sleep(0.02)

    def test_statuses(self) -> None:
        """Those of the command, of the signal that ends it, and of programs that handle one."""
        for shell in SHELLS:
            for command, number, status in (
                ("echo \"it's\" '$HOME'; echo there; exec sleep 60", signal.SIGINT, 130),
                ("echo; echo there; sleep 60", signal.SIGINT, 130),
                ("echo; echo there; sleep 60", signal.SIGQUIT, 131),
                ("trap 'exit 5' INT; echo; echo there; sleep 60", signal.SIGINT, 5),
                ("echo; echo there; exit 7", None, 7),
            ):
                if number == signal.SIGQUIT and "busybox" in shell:
                    continue  # it ignores that key, and what is ignored stays so
                pid, terminal = pty.fork()
                if pid == 0:
                    for key in KEYS:  # tests in the background of a shell ignore them
                        signal.signal(key, signal.SIG_DFL)
                    os.execvp(shell[0], [*shell, "-c", on_terminal(command)])
                told = b""
                while b"there" not in told:
                    told += os.read(terminal, 1000)
                ended = self.ended(pid, terminal, KEYS.get(number))
                os.close(terminal)
                self.assertEqual(os.waitstatus_to_exitcode(ended), status, (shell, command))
                if "it's" in command:
                    self.assertIn(b"it's $HOME", told)
