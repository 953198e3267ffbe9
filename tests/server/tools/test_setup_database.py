"""The database in set-up: refused before the server stops, which runs again; told truly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.server.tools.test_setup import Site
from walt.server.tools.setup import database, settling
from walt.server.tools.setup.machine import Done
from walt.server.tools.setup.systemd import UNIT

STOP = ("systemctl", "stop", UNIT)


class DowntimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a server that runs, whose database is of an older PostgreSQL."""
        self.patch(os, "geteuid", lambda: 0)
        self.site = Site(Path(self.mktemp()).absolute(), "trixie")
        self.assertEqual(self.site.call()[0], 0)
        for version in ("15", "17"):
            self.site.write(f"usr/lib/postgresql/{version}/bin/postgres", "")
        self.site.write("var/lib/walt/postgres/PG_VERSION", "15\n")
        self.site.write("var/lib/walt/postgres/base", "x" * (1 << 20))
        self.site.programs.calls.clear()

    def refused(self, *words: str) -> str:
        """Call set-up, which fails; return what it says on standard error."""
        status, _, err = self.site.call(*words)
        self.assertEqual(status, 1)
        return err

    def test_refused_before(self) -> None:
        """A full disk, a mount, a file system without exchange: the server does not stop."""
        usage = shutil.disk_usage(self.site.root)
        def cannot(one: Path, other: Path) -> None:
            raise OSError(22, "Invalid argument")

        for module, name, spoilt, told in (
            (settling.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20), "1 MiB left"),
            (database, "is_mounted", lambda _: True, "a file system of its own"),
            (database, "_exchange", cannot, "cannot exchange two directories (Invalid argument)"),
        ):
            patched = self.patch(module, name, spoilt)
            err = self.refused()
            self.assertIn(told, err)
            self.assertIn("to go on with PostgreSQL 15: walt-server-setup --keep-postgresql", err)
            self.assertNotIn(STOP, self.site.programs.calls)
            patched.restore()
        (self.site.root / "usr/lib/postgresql/15/bin/postgres").unlink()
        self.assertIn("which is not installed any more", self.refused())
        self.assertNotIn(STOP, self.site.programs.calls)

    def test_kept(self) -> None:
        """--keep-postgresql goes on without; --check knows it, too."""
        usage = shutil.disk_usage(self.site.root)
        self.patch(settling.shutil, "disk_usage", lambda _: usage._replace(free=0))
        self.assertIn("made by PostgreSQL 15, and 17", self.site.call("--check")[1])
        self.assertEqual(self.site.call("--check", "--keep-postgresql")[0], 0)
        self.assertEqual(self.site.call("--keep-postgresql")[0], 0)
        self.assertNotIn(STOP, self.site.programs.calls)

    def test_started_again(self) -> None:
        """A program that fails while the server is stopped: it runs again, and that is told."""
        programs = self.site.programs
        programs.broken = {"env --chdir=/": "no such luck"}
        err = self.refused()
        self.assertIn("no such luck", err)
        self.assertIn("The server was stopped for this; it runs again.", err)
        self.assertIn(STOP, programs.calls)
        self.assertIn(UNIT, programs.active)
        programs.broken[f"systemctl start {UNIT}"] = "broken, too"
        err = self.refused()
        self.assertIn("no such luck", err)
        self.assertIn("was stopped for this, and does not start again", err)
        self.assertIn("broken, too", err)

    def test_interrupted(self) -> None:
        """A person who interrupts, or a terminal that goes, leaves no server stopped."""
        call = self.site.programs.call

        def interrupted(argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
            if argv[0] == "env":
                raise KeyboardInterrupt
            return call(argv, more_env)

        self.patch(self.site.programs, "call", interrupted)
        self.assertEqual(self.site.call()[0], 130)
        self.assertIn(STOP, self.site.programs.calls)
        self.assertIn(UNIT, self.site.programs.active)

    def test_a_later_step(self) -> None:
        """What fails after the step that stopped the server has it run again, too."""
        site = self.site
        shutil.rmtree(site.root / "var/lib/walt/postgres")
        site.write("run/postgresql/.s.PGSQL.5432", "")
        site.programs.former = True
        (site.root / "usr/local/bin/walt").unlink()
        site.write("usr/local/bin/walt", "theirs")
        err = self.refused()
        self.assertIn("is a file of somebody else", err)
        self.assertIn("it runs again", err)
        self.assertIn(UNIT, site.programs.active)

    def test_an_older_walt(self) -> None:
        """No room for the copy: nothing of it stops; a failed one: it runs, with its units."""
        site = self.site
        shutil.rmtree(site.root / "var/lib/walt/postgres")
        site.write("run/postgresql/.s.PGSQL.5432", "")
        unit = "etc/systemd/system/walt-server-dhcpd.service"
        site.write(unit, "[Unit]\n")
        site.programs.former = True
        site.programs.broken = {"pg_dump": "disk full"}
        self.assertIn("it runs again", self.refused())
        self.assertIn(unit, site.files())
        site.programs.calls.clear()
        usage = shutil.disk_usage(site.root)
        self.patch(settling.shutil, "disk_usage", lambda _: usage._replace(free=0))
        site.programs.former_size = 1 << 30
        self.assertIn("2049 MiB", self.refused())
        self.assertNotIn(STOP, site.programs.calls)
        self.assertIn(unit, site.files())

    def test_before_debian_upgrade(self) -> None:
        """What it says is what was done, for each kind of database; a failure undoes it."""
        site, programs = self.site, self.site.programs
        site.write("etc/os-release", "VERSION_CODENAME=bookworm\n")
        programs.broken = {"env --chdir=/": "no such luck"}
        self.assertIn("it runs again", self.refused("--before-debian-upgrade"))
        self.assertIn(UNIT, programs.active & programs.enabled)
        self.assertNotIn("var/lib/walt/.upgrade", site.files())
        usage = shutil.disk_usage(site.root)
        programs.calls.clear()
        room = self.patch(settling.shutil, "disk_usage", lambda _: usage._replace(free=0))
        self.refused("--before-debian-upgrade")
        self.assertNotIn(STOP, programs.calls)
        room.restore()
        programs.broken = {}
        shutil.rmtree(site.root / "var/lib/walt/postgres")
        status, out, err = site.call("--before-debian-upgrade")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("It has no database yet: nothing was copied.", out)
        self.assertIn("The server is stopped, and does not start with the machine.", out)
        self.assertNotIn(UNIT, programs.active | programs.enabled)
        self.assertEqual(site.call()[0], 0)
        external = ("--set", "database={mode: external, dsn: host=db dbname=walt}")
        self.assertEqual(site.call(*external)[0], 0)
        self.assertIn(UNIT, programs.active)
        out = site.call("--before-debian-upgrade")[1]
        self.assertIn("(database.mode: external), and was not copied", out)
        self.assertNotIn("copied to", out)
        self.assertIn("The server is stopped", out)
        self.assertNotIn(UNIT, programs.active | programs.enabled)
        self.assertIn("No server ran", site.call("--before-debian-upgrade")[1])
