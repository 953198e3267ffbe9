"""walt-server-setup with Debian's own programs, on the files of this machine below a layer."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.other_postgres import installations
from tests.patience import patient
from tests.system.netns import short_dir, why_not
from tests.system.overlaid import Overlaid
from walt.server.tools.setup.debian import CLASHING

SETUP = str(Path(sys.prefix) / "bin/walt-server-setup")
# This kernel may have no NFS server, or one whose package is not here.
WORDS = ("--set", "services.nfs=ganesha", "--set", "network.walt-net.ip=10.77.0.1/24")


def reason() -> str | None:
    """Return why this cannot be tried here, None if it can."""
    missing = why_not("unshare", "chroot", "systemctl", "dpkg-query")
    if missing is None and sys.prefix == sys.base_prefix:
        return "not installed: a virtual environment"
    return missing


class SetupTests(TestCase):
    skip = reason()
    timeout = patient(300)

    def test_from_cut_to_cut(self) -> None:
        """Killed in each step, it is taken up; then nothing lacks, and nothing starts twice."""
        machine, cut = Overlaid(self), []
        while True:
            process = machine.start(SETUP, *WORDS)
            assert process.stdout is not None
            with process.stdout as output:
                for line in output:
                    title = line.rstrip().removesuffix("...")
                    if line.endswith("...\n") and title not in cut:
                        cut.append(title)
                        process.kill()
                        break
                else:
                    break
            process.wait(timeout=patient(30))
        self.assertEqual(process.wait(timeout=patient(60)), 0, line)
        for title in ("AppArmor", "settings", "commands", "unit"):
            if title != "AppArmor" or Path("/etc/apparmor.d/usr.sbin.named").exists():
                self.assertIn(title, cut)
        done = machine.run(SETUP, "--check")
        self.assertEqual((done.returncode, done.stdout), (0, "Nothing lacks.\n"), done.stderr)
        for unit in CLASHING:
            state = machine.run("systemctl", "is-enabled", unit).stdout.strip()
            self.assertNotEqual(state, "enabled", unit)
        state = machine.run("systemctl", "is-enabled", "walt-server.service").stdout.strip()
        self.assertEqual(state, "enabled")
        self.assertIn("ip: 10.77.0.1/24", machine.at("/etc/walt/server.conf").read_text())
        for shell, file in (
            ("bash", "/etc/bash_completion.d/walt"),
            ("zsh", "/usr/local/share/zsh/site-functions/_walt"),
        ):
            done = machine.run(shell, "-n", file)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        done = machine.run("/usr/local/bin/walt", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_database(self) -> None:
        """A database of the older PostgreSQL comes to the newer one; it is kept until told."""
        machine = Overlaid(self)
        both, old, new = installations(short_dir(self) / "both")
        as_user = "setpriv --reuid postgres --regid postgres --clear-groups"
        there = f"/usr/lib/postgresql/{old}/bin"
        data = "/var/lib/walt/postgres"
        make = "\n".join([
            # Of the newer Debian, too.
            "sed -i s/^VERSION_CODENAME=.*/VERSION_CODENAME=trixie/ /etc/os-release",
            # That of the other Debian, as if it had been installed.
            *(f"test -e /usr/lib/postgresql/{one} ||"
              f" ln -s {(both / str(one)).resolve()} /usr/lib/postgresql/{one}"
              for one in (old, new)),
            f"install -d -m 755 /var/lib/walt && install -d -m 700 -o postgres {data}",
            f"{as_user} {there}/initdb -D {data} -U root -E UTF8 --locale=C.UTF-8 --auth=peer",
            f"echo 'CREATE DATABASE walt' | {as_user} {there}/postgres --single -D {data} postgres",
            "echo 'CREATE TABLE t AS SELECT generate_series(1, 77) AS n' |"
            f" {as_user} {there}/postgres --single -D {data} walt",
        ])
        for words in (
            ("sh", "-ec", make),
            (SETUP, *WORDS),
        ):
            done = machine.run(*words)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("PostgreSQL...\n", done.stdout)
        self.assertIn(f"/var/lib/walt/postgres-{old} is the database as an older", done.stdout)
        self.assertEqual(machine.at("/var/lib/walt/postgres/PG_VERSION").read_text(), f"{new}\n")
        dump = f"/var/backups/walt/walt-postgresql-{old}.dump"
        listed = machine.run(f"/usr/lib/postgresql/{new}/bin/pg_restore", "--list", dump).stdout
        self.assertIn("TABLE DATA public t", listed)
        done = machine.run(SETUP, "--drop-former-database")
        self.assertIn(f"/var/lib/walt/postgres-{old} is removed", done.stdout)
        self.assertFalse(machine.at(f"/var/lib/walt/postgres-{old}").exists())

    def test_the_unit(self) -> None:
        """systemd finds nothing wrong with it, and where it is from."""
        machine = Overlaid(self)
        done = machine.run(SETUP, *WORDS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        if shutil.which("systemd-analyze") is None:
            self.fail("systemd-analyze belongs to systemd")
        done = machine.run(
            "systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
            "/etc/systemd/system/walt-server.service",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("walt-server.service:", done.stderr)

    def test_removed(self) -> None:
        """--remove leaves settings alone, and no program of ours in the way."""
        machine = Overlaid(self)
        self.assertEqual(machine.run(SETUP, *WORDS).returncode, 0)
        done = machine.run(SETUP, "--remove")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = machine.run(
            "ls", "/usr/local/bin/walt", "/etc/systemd/system/walt-server.service",
            "/etc/walt/server.conf",
        )
        self.assertEqual(done.stdout, "/etc/walt/server.conf\n")

    def test_refused(self) -> None:
        """A wrong value is told, with status 1; the file is not written."""
        machine = Overlaid(self)
        done = machine.run(SETUP, "--set", "network.walt-net.ip=10.77.0.0/24")
        self.assertEqual(done.returncode, 1)
        self.assertIn("10.77.0.0 is not a host address", done.stderr)
        self.assertFalse(machine.at("/etc/walt/server.conf").exists())


class InitTests(TestCase):
    """Init of busybox, the real one, as the first process of this machine's files."""

    skip = reason() or why_not("nsenter", "busybox")
    timeout = patient(300)

    def setUp(self) -> None:
        """Start it, where there is no table of what it does."""
        self.machine, programs = Overlaid(self), Path(SETUP).parent
        server = (
            "#!/bin/sh\necho start \"$@\" \"$http_proxy\" $(ulimit -n) >> /said\n"
            "trap 'echo TERM >> /said; exit' TERM\ntrap 'echo USR2 >> /said; exit' USR2\n"
            "while :; do sleep 0.1; done\n"
        )
        done = self.machine.run("sh", "-ec", "\n".join((
            "rm -f /etc/inittab; mkdir /first; ln -s $(command -v busybox) /first/init",
            f"cd {programs}; rm walt-server-daemon walt-server-apparmor",
            f"echo {shlex.quote(server)} > walt-server-daemon",
            "echo '#!/bin/sh' > walt-server-apparmor; chmod 755 walt-server-*",
            "printf '#!/bin/sh\\necho started > /began\\n' > /etc/init.d/rcS",
            "chmod 755 /etc/init.d/rcS",
        )))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.process = self.machine.start("/first/init")
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        assert self.process.stdout is not None
        self.addCleanup(self.process.stdout.close)
        self.until(lambda: self.machine.at("/began").exists())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        limit = time.monotonic() + patient(60)
        while not condition():
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.1)

    def inside(self, *argv: str) -> str:
        """Run a program beside it, which must succeed; return what it prints."""
        pid = self.process.pid
        (first,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        done = subprocess.run(
            ["nsenter", f"--target={first}", "--mount", "--pid", "--root", "--wd=/", *argv],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            timeout=patient(120),
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def said(self) -> list[str]:
        """Return what the server said until now."""
        place = self.machine.at("/said")
        return place.read_text().splitlines() if place.exists() else []

    def test_server(self) -> None:
        """It starts with set-up, again when it ends, anew with what is new, and goes with it."""
        self.assertIn("The server runs", self.inside(SETUP, "--init-system", "busybox", *WORDS))
        start = "start --config /etc/walt/server.conf"
        self.until(lambda: self.said() == [f"{start}  16384"])
        self.assertEqual(self.inside(SETUP, "--check"), "Nothing lacks.\n")
        self.inside(SETUP)
        self.assertEqual(len(self.said()), 1)
        self.inside("sh", "-c", "kill -9 $(cut -d' ' -f1 /run/walt-server-run.pid)")
        self.until(lambda: len(self.said()) == 2)
        # As systemd reads it: no shell.
        env = "DAEMON_ARGS=--one --two\nhttp_proxy=http://u:p&w@h\nX=$(touch /bad)\n"
        write = f"printf %s {shlex.quote(env)} > /etc/walt/server.env; {SETUP} --check ||:"
        self.until(lambda: "since before /etc/walt/server.env" in self.inside("sh", "-c", write))
        self.inside(SETUP)
        self.assertEqual(self.said()[2:], ["USR2", f"{start} --one --two http://u:p&w@h 16384"])
        self.assertFalse(self.machine.at("/bad").exists())
        self.assertIn("::sysinit:/etc/init.d/rcS\n", self.machine.at("/etc/inittab").read_text())
        self.failing_step()
        before = len(self.said())
        self.inside(SETUP, "--remove")
        self.assertEqual(self.said()[before:], ["TERM"])
        for path in ("/etc/inittab", "/usr/local/sbin/walt-server-run"):
            self.inside("sh", "-c", f"! test -e {path}")
        self.inside("kill", "-HUP", "1")
        self.assertEqual(self.said()[before:], ["TERM"])

    def failing_step(self) -> None:
        """A step that has it stopped, and fails: it ends, stays so meanwhile, and runs again."""
        state = "/var/lib/walt"
        before = len(self.said())
        told = self.inside("sh", "-c", "\n".join((
            "sed -i s/^VERSION_CODENAME=.*/VERSION_CODENAME=trixie/ /etc/os-release",
            "for one in 15 17; do mkdir -p /usr/lib/postgresql/$one/bin;"
            " printf '#!/bin/sh\\nexit 1\\n' > /usr/lib/postgresql/$one/bin/pg_ctl;"
            " chmod 755 /usr/lib/postgresql/$one/bin/pg_ctl;"
            " touch /usr/lib/postgresql/$one/bin/postgres; done",
            f"mkdir -p {state}/postgres; echo 15 > {state}/postgres/PG_VERSION",
            f"{SETUP} 2>&1 && exit 1; {SETUP} --keep-postgresql",
        )))
        self.assertIn("The server was stopped for this; it runs again.", told)
        self.assertEqual([one.split()[0] for one in self.said()[before:]], ["TERM", "start"])
        self.assertIn("::respawn:", self.machine.at("/etc/inittab").read_text())
