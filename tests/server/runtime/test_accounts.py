"""What lies in a directory of an account is not trusted to be what it was."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.server.runtime.accounts import give_directory, give_file, read_file
from walt.server.runtime.child import process_start, recorded_process

NOBODY = pwd.getpwnam("nobody")


class AccountsTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 else "needs root"

    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.place = self.base / "theirs"
        give_directory(self.place, "nobody", mode=0o750)
        self.secret = self.base / "secret"
        self.secret.write_text("of root")
        self.secret.chmod(0o600)

    def test_given(self) -> None:
        """Owner, group and mode, again and again; what is in a file stays."""
        file = self.place / "file"
        for _ in range(2):
            give_directory(self.place, "nobody", mode=0o750)
            give_file(file, "nobody", 0o640)
            for path, mode in ((self.place, 0o750), (file, 0o640)):
                found = path.stat()
                self.assertEqual(
                    (found.st_uid, found.st_gid, found.st_mode & 0o777),
                    (NOBODY.pw_uid, NOBODY.pw_gid, mode),
                )
            file.write_text("kept")
        self.assertEqual(read_file(file, 100), b"kept")
        self.assertRaises(OSError, read_file, file, 3)

    def test_replaced(self) -> None:
        """Links, pipes, devices and second names are neither given, nor read, nor waited for."""
        file = self.place / "file"
        for make in (
            lambda: file.symlink_to(self.secret.resolve()), lambda: os.link(self.secret, file),
            lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), file.mkdir,
        ):
            make()
            self.assertRaises(OSError, give_file, file, "nobody")
            self.assertRaises(OSError, read_file, file, 100)
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        found = self.secret.stat()
        self.assertEqual((found.st_uid, found.st_mode & 0o777), (0, 0o600))
        self.place.rmdir()
        self.place.symlink_to(self.base.resolve())
        self.assertRaises(OSError, give_directory, self.place, "nobody")
        self.assertEqual(self.base.stat().st_uid, 0)

    def test_pid_files(self) -> None:
        """The process that a file of another account names is left alone."""
        file = self.place / "child.pid"
        file.write_text(f"{os.getpid()} {process_start(os.getpid())}\n")
        self.assertEqual(recorded_process(file), os.getpid())
        os.chown(file, NOBODY.pw_uid, NOBODY.pw_gid)
        self.assertIsNone(recorded_process(file))
        file.unlink()
        file.symlink_to(self.secret.resolve())
        self.assertIsNone(recorded_process(file))
