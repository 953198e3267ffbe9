"""Node scripts, without a node: syntax, places, and the tools that only need a server."""

from __future__ import annotations

import os
import shlex
import shutil
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
