"""The database comes to the next PostgreSQL: both are real, that of Debian 12 and of Debian 13."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes.programs import Cut
from tests.other_postgres import installations, release
from tests.patience import patient
from tests.places import ON_DISK
from walt.common.errors import Unavailable
from walt.server.adapters.postgres.cluster import as_user, initdb
from walt.server.adapters.postgres.migrate import scripts
from walt.server.config.model import Paths
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.child import recorded_process
from walt.server.tools.setup import database, settling
from walt.server.tools.setup.database import ClusterStep, drop_former, former_clusters
from walt.server.tools.setup.downtime import Downtime, UnitServer
from walt.server.tools.setup.machine import Done, IPrograms, Machine, Programs

CONTENT = """
INSERT INTO devices (mac, ip, name, type) SELECT '52:54:00:00:' || lpad(to_hex(n / 256), 2, '0')
 || ':' || lpad(to_hex(n % 256), 2, '0'), '10.0.' || n / 256 || '.' || n % 256, 'n' || n, 'unknown'
 FROM generate_series(1, 500) n;
CREATE TABLE odd (id serial PRIMARY KEY, "Ünicode" text, raw bytea, at timestamptz);
INSERT INTO odd ("Ünicode", raw, at) SELECT repeat('é', n), decode(md5(n::text), 'hex'), now()
 FROM generate_series(1, 1000) n;
"""
DIGEST = "SELECT count(*), max(id), md5(string_agg(o::text, '' ORDER BY id)) FROM odd o"


@implementer(IPrograms)
class Watched:
    """Programs of this machine; `cut_at` is the number of the one before which all ends."""

    def __init__(self) -> None:
        self.programs = Programs()
        self.calls: list[str] = []
        self.cut_at: int | None = None
        self.answers: dict[str, str] = {}  # other ones than true, by the name of the program

    def call(self, argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
        """See IPrograms."""
        if self.cut_at is not None and len(self.calls) >= self.cut_at:
            raise Cut
        self.calls.append(" ".join(argv))
        done = self.programs.call(argv, more_env)
        said = [one for name, one in self.answers.items() if name in argv[0]]
        return Done(done.status, done.output + "".join(said))


class ClusterTests(SynchronousTestCase):
    timeout = patient(400)

    def setUp(self) -> None:
        """Make a cluster by the older one, with our tables, and what may be hard to copy."""
        base = Path(tempfile.mkdtemp(prefix="wpg-", dir=ON_DISK))
        base.chmod(0o755)
        self.addCleanup(shutil.rmtree, base, True)
        self.both, self.old, self.new = installations(base / "both")
        self.paths = Paths(base / "state", base / "run", base / "cache", base / "log")
        self.patch(database, "BACKUPS", base / "backups")
        self.patch(database, "VERSIONS", {release(): self.new})
        self.data = self.paths.state / "postgres"
        self.paths.state.mkdir()
        self.paths.runtime.mkdir()
        self.programs = Watched()
        self.machine = Machine(self.programs)
        self.step = self.step_on(self.machine)
        give_directory(self.data, "postgres")
        subprocess.run(
            ["setpriv", *as_user(), "--", *initdb(self.both / str(self.old) / "bin", self.data)],
            check=True, capture_output=True, cwd="/", stdin=subprocess.DEVNULL,
        )
        self.addCleanup(self.end)
        tables = "\n".join(sql for _, sql in scripts())
        self.ask(self.old, "CREATE DATABASE walt", "postgres")
        self.ask(self.old, tables + CONTENT)
        self.before = self.ask(self.old, DIGEST)

    def step_on(self, machine: Machine) -> ClusterStep:
        """Return the step on a machine."""
        return ClusterStep(machine, self.paths, Downtime(UnitServer(machine)), self.both)

    def end(self) -> None:
        """End servers that a cut has left."""
        for version in (self.old, self.new):
            for data in self.paths.state.rglob("postmaster.pid"):
                subprocess.run(
                    ["setpriv", *as_user(), "--", str(self.both / str(version) / "bin/pg_ctl"),
                     "-D", str(data.parent), "-m", "immediate", "stop"],
                    check=False, capture_output=True, cwd="/", stdin=subprocess.DEVNULL,
                )

    def ask(self, version: int, sql: str, name: str = "walt") -> str:
        """Start a server on the cluster, and ask it."""
        place = self.step_on(Machine(Programs()))
        place._work.mkdir(exist_ok=True)
        place._work.chmod(0o711)
        with place._serving(version, self.data):
            done = subprocess.run(
                [str(self.both / str(version) / "bin/psql"), "-X", "-q", "-A", "-t", "-d", name,
                 "-h", str(place._sockets), "-U", "root", "-v", "ON_ERROR_STOP=1", "-f", "-"],
                input=sql, capture_output=True, text=True, check=False,
            )
        shutil.rmtree(place._work)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def version(self) -> int:
        """Return the version that made the cluster."""
        return int((self.data / "PG_VERSION").read_text())

    def check_whole(self) -> None:
        """All is there, by the new one; the old one and the dump are kept; nothing is left."""
        self.assertEqual(self.version(), self.new)
        self.assertEqual(self.step.lacks(), [])
        self.assertEqual(self.ask(self.new, DIGEST), self.before)
        self.assertEqual(self.ask(self.new, "SELECT count(*) FROM devices"), "500\n")
        (former,) = former_clusters(self.machine, self.paths.state)
        self.assertEqual(former.name, f"postgres-{self.old}")
        self.assertEqual(int((former / "PG_VERSION").read_text()), self.old)
        self.assertEqual(
            [one.name for one in database.BACKUPS.iterdir()], [f"walt-postgresql-{self.old}.dump"]
        )
        self.assertEqual(
            sorted(one.name for one in self.paths.state.iterdir()),
            ["postgres", f"postgres-{self.old}"],
        )
        self.assertEqual([*self.paths.state.rglob("postmaster.pid")], [])

    def test_upgrade(self) -> None:
        """All comes with it; a second call does nothing; the old one goes when that is said."""
        self.assertEqual(
            self.step.lacks(),
            [f"the database was made by PostgreSQL {self.old}, and {self.new} is installed"],
        )
        self.step.apply()
        self.check_whole()
        done = len(self.programs.calls)
        self.step.apply()
        self.assertEqual(len(self.programs.calls), done)
        # Sequences go on where they were.
        self.assertEqual(self.ask(self.new, "INSERT INTO odd DEFAULT VALUES RETURNING id"),
                         "1001\n")
        self.assertEqual(
            drop_former(self.machine, self.paths.state),
            [self.paths.state / f"postgres-{self.old}"],
        )
        self.assertEqual(former_clusters(self.machine, self.paths.state), [])

    def test_backup(self) -> None:
        """Before an upgrade of Debian: a dump by the old one, which has all, and stays."""
        dump = database.BACKUPS / "before.dump"
        self.assertEqual(self.step.back_up(dump.name), dump)
        listed = subprocess.run(
            [str(self.both / str(self.old) / "bin/pg_restore"), "--list", str(dump)],
            check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        ).stdout
        self.assertIn("TABLE DATA public odd", listed)
        self.assertIn("TABLE DATA public devices", listed)
        self.assertEqual(self.ask(self.old, DIGEST), self.before)
        self.assertEqual([one.name for one in self.paths.state.iterdir()], ["postgres"])
        # Another one does not take its place.
        first = dump.read_bytes()
        self.assertEqual(self.step.back_up(dump.name), dump.with_name("before.2.dump"))
        self.assertEqual(dump.read_bytes(), first)

    def test_another_version(self) -> None:
        """A newer PostgreSQL that is not this Debian's is no reason to change anything."""
        self.patch(database, "VERSIONS", {release(): self.old})
        self.assertEqual(self.step.lacks(), [])
        self.step.apply()
        self.assertEqual(self.programs.calls, [])
        self.assertEqual(self.version(), self.old)

    def test_cut(self) -> None:
        """Killed before any of its programs, its servers at work: the old one is whole, and ours.

        The last call, after all of these cuts, goes to the end.
        """
        cuts = records = 0
        while True:
            self.programs.cut_at, self.programs.calls = cuts, []
            try:
                self.step.apply()
            except Cut:
                self.assertEqual(self.version(), self.old)
                self.assertEqual(former_clusters(self.machine, self.paths.state), [])
                self.assertNotEqual(self.step.lacks(), [])
                left = self.data / "postmaster.pid"
                if left.exists():  # the server ends it when it starts
                    self.assertEqual(
                        recorded_process(self.paths.service_runtime("postgres.pid")),
                        int(left.read_text().split()[0]),
                    )
                    records += 1
                cuts += 1
            else:
                break
        self.assertGreater(cuts, 10)
        self.assertGreater(records, 2)
        self.check_whole()

    def test_cut_between_names(self) -> None:
        """Killed when the new one has its name, and the old one has not: its name is given."""
        self.patch(ClusterStep, "_keep_former", _cut)
        self.assertRaises(Cut, self.step.apply)
        self.assertEqual(self.version(), self.new)
        self.assertEqual(self.step.lacks(), ["the former database has not its name yet"])
        self.patch(ClusterStep, "_keep_former", _KEEP_FORMER)
        self.step.apply()
        self.check_whole()

    def test_refusals(self) -> None:
        """A copy that differs, a full disk, an old one that is gone, a server that runs."""
        self.programs.answers = {"psql": "public.devices 7\n"}
        content = self.programs.call

        def differing(argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
            self.programs.answers = {"psql": f"public.x {len(self.programs.calls)}\n"}
            return content(argv, more_env)

        self.patch(self.programs, "call", differing)
        error = self.assertRaises(Unavailable, self.step.apply)
        self.assertIn("is not what it was made of, and is not used; rows: public.x", str(error))
        self.patch(self.programs, "call", content)
        self.programs.answers = {}
        self.assertEqual(self.version(), self.old)
        usage = shutil.disk_usage(self.data)
        with_room = settling.shutil.disk_usage
        self.patch(settling.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        error = self.assertRaises(Unavailable, self.step.apply)
        self.assertIn("has 1 MiB left", str(error))
        self.patch(settling.shutil, "disk_usage", with_room)
        record = self.paths.service_runtime("postgres.pid")
        process = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        record.write_text(f"{process.pid} {start}\n")
        error = self.assertRaises(Unavailable, self.step.apply)
        self.assertIn("the server runs", str(error))
        (self.both / str(self.old)).unlink()
        error = self.assertRaises(Unavailable, self.step.apply)
        self.assertIn(f"PostgreSQL {self.old}, which is not installed any more", str(error))
        self.assertEqual(self.version(), self.old)


_KEEP_FORMER = ClusterStep._keep_former


def _cut(step: ClusterStep) -> None:
    raise Cut
