"""Node scripts, without a node: syntax, places, and the tools that only need a server."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from importlib import resources
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.podman.prepare import INTERNAL_SCRIPTS, PUBLIC_SCRIPTS

SCRIPTS = Path(str(resources.files("walt.node")))


class SyntaxTests(SynchronousTestCase):
    skip = None if shutil.which("dash") and shutil.which("busybox") else "needs dash and busybox"

    def test_every_script_is_put_somewhere(self) -> None:
        """The files of the package are exactly what is written into images."""
        files = {path.name for path in SCRIPTS.iterdir() if path.name.startswith("walt-")}
        self.assertEqual(files, set(PUBLIC_SCRIPTS) | set(INTERNAL_SCRIPTS))

    def test_both_shells_accept_them(self) -> None:
        """dash and busybox ash parse every script."""
        for name in (*PUBLIC_SCRIPTS, *INTERNAL_SCRIPTS):
            for shell in (["dash"], ["busybox", "sh"]):
                done = subprocess.run(
                    [*shell, "-n", str(SCRIPTS / name)], capture_output=True, check=False
                )
                self.assertEqual((name, done.stderr), (name, b""))

    def test_init_refuses_to_run_by_hand(self) -> None:
        """walt-init is for the first process alone."""
        done = subprocess.run(["sh", str(SCRIPTS / "walt-init")], capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"first process", done.stderr)


class UserKeysTests(SynchronousTestCase):
    """walt-user-keys, in both shells, with a server whose answers are put in its way."""

    skip = SyntaxTests.skip
    KEYS = "ssh-ed25519 AAAAC3+/=,sk-ssh-ed25519@openssh.com BBBB"

    def ask(self, shell: list[str], answer: str, status: int = 0) -> int:
        """Run the script with this answer of walt-rpc; return its status."""
        text = (SCRIPTS / "walt-user-keys").read_text().replace(
            "walt-timeout 10 walt-rpc user_keys",
            f"cat {shlex.quote(str(self.answer))}; exit {status}",
        ).replace(". /bin/_walt_internal_/walt-script-common", "")
        self.answer.write_text(answer + "\n")
        done = subprocess.run(
            [*shell, "-c", text], check=False, capture_output=True,
            env={**os.environ, "WALT_AUTHORIZED_KEYS": str(self.file)},
        )
        return done.returncode

    def test_lines(self) -> None:
        """Keys come, change and go; what others wrote stays, and so does an unchanged file."""
        for number, shell in enumerate((["dash"], ["busybox", "sh"])):
            base = Path(self.mktemp()) / str(number)
            self.file, self.answer = base / ".ssh/authorized_keys", base / "answer"
            base.mkdir(parents=True)
            self.assertEqual(self.ask(shell, "''"), 0)
            self.assertFalse(self.file.exists())
            self.assertEqual(self.ask(shell, f"'{self.KEYS}'"), 0)
            ours = [f"{one} walt-user-key" for one in self.KEYS.split(",")]
            self.assertEqual(self.file.read_text().splitlines(), ours)
            self.assertEqual(oct(self.file.stat().st_mode)[-3:], "600")
            own = ['command="a\\\\b" ssh-rsa X', "", "# mine"]
            self.file.write_text("\n".join([*own, *ours]) + "\n")
            before = self.file.stat().st_ino
            self.assertEqual(self.ask(shell, f"'{self.KEYS}'"), 0)
            self.assertEqual(self.file.stat().st_ino, before)
            self.assertEqual(self.ask(shell, "'ssh-rsa CCCC'"), 0)
            self.assertEqual(
                self.file.read_text().splitlines(), [*own, "ssh-rsa CCCC walt-user-key"]
            )
            for wrong, status in (
                ('"it\'s"', 0), ("'a\\nssh-rsa X'", 0), ("'a$(reboot)'", 0), ("''", 1),
            ):
                self.assertEqual(self.ask(shell, wrong, status), 1)
            self.assertEqual(self.ask(shell, "''"), 0)
            self.assertEqual(self.file.read_text().splitlines(), own)


class LogEchoTests(SynchronousTestCase):
    def test_long_lines(self) -> None:
        """A line that a pipe does not take at once has a connection of its own."""
        directory = Path(self.mktemp())
        directory.mkdir()
        fifo, env = directory / "logs.fifo", directory / "walt-env"
        os.mkfifo(fifo)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        server.settimeout(10)
        env.write_text(
            f"walt_server_ip=127.0.0.1\nwalt_server_logs_port={server.getsockname()[1]}\n"
        )
        script = (SCRIPTS / "walt-log-echo").read_text()
        script = script.replace("/var/lib/walt/logs.fifo", str(fifo))
        script = script.replace("/bin/walt-env", str(env.resolve()))
        reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        subprocess.run(["sh", "-c", script, "sh", "s", "short"], check=True)
        self.assertEqual(os.read(reader, 100), b"LOG s short\n")
        sender = subprocess.Popen(["sh", "-c", script, "sh", "s", "x" * 5000])
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as received:
            lines = [received.readline() for _ in range(5)]
        self.assertEqual(lines[3:], [b"x" * 5000 + b"\n", b"CLOSE\n"])
        self.assertEqual(sender.wait(10), 0)
        self.assertRaises(BlockingIOError, os.read, reader, 1)
