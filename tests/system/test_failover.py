"""A server on a replicated PostgreSQL: the primary is lost, and its replica takes over."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP

import psycopg2
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load, Refused, add_senders, mac_of
from tests.system.netns import Namespace, join
from walt.server.adapters.postgres.cluster import as_user, binaries
from walt.server.adapters.postgres.connection import Database
from walt.server.domain.nodes.registration import MAX_UNKNOWN
from walt.server.runtime.process import ProcessRunner

SENDERS = 20
RATE, PERIOD = 2000, 12  # lines a second, seconds
REPLICA = "replica"  # the name by which a primary knows its standby
VANISH = 0  # in the place of a signal: packets get nowhere, and none tells so
BLACK_HOLE = """table inet hole {
    chain in { type filter hook input priority 0; policy drop; }
    chain out { type filter hook output priority 0; policy drop; }
}
"""


class Postgres:
    """One PostgreSQL of two: its directory is that of its socket, too.

    With `address` it listens there, for everybody; `runner` starts it where that is.
    """

    def __init__(self, runner: ProcessRunner, place: Path, address: str = "") -> None:
        self.place, self.data, self.address = place, place / "d", address
        self._runner = runner
        self._running: Deferred[object] | None = None
        place.mkdir(mode=0o700)
        shutil.chown(place, "postgres", "postgres")

    async def run(self, program: str, *words: str) -> None:
        """Run one of its programs to the end."""
        await self._runner.run(
            [str(binaries() / program), *words], credentials=as_user(), cwd="/", timeout=120,
        )

    async def make(self) -> None:
        """Make an empty cluster."""
        await self.run(
            "initdb", "-D", str(self.data), "-U", "root", "-E", "UTF8", "--locale=C.UTF-8",
            "--auth=trust", "--no-instructions",
        )
        if self.address:
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write("host all,replication root 0.0.0.0/0 trust\n")

    @property
    def host(self) -> str:
        """How others reach it."""
        return self.address or str(self.place)

    async def copy(self, primary: Postgres) -> None:
        """Become the standby of another one."""
        await self.run(
            "pg_basebackup", "-D", str(self.data), "-R", "-X", "stream", "-c", "fast",
            "-d", f"host={primary.host} user=root application_name={REPLICA}",
        )

    def start(self) -> None:
        """Start it."""
        self._running = Deferred.fromCoroutine(self._runner.run(
            [str(binaries() / "postgres"), "-D", str(self.data), "-k", str(self.place),
             "-c", f"listen_addresses={self.address}", "-c", "log_min_messages=panic",
             "-c", "wal_receiver_timeout=3s", "-c", "max_connections=80"],
            credentials=as_user(), cwd="/", timeout=600, check=False,
        ))

    def signal(self, number: int) -> None:
        """Send a signal to its main process, if it is there."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.data / "postmaster.pid").read_text().split("\n")[0]), number)

    async def end(self, number: int = SIGQUIT) -> None:
        """End it at once; a stopped one, too."""
        self.signal(number)
        self.signal(SIGCONT)
        if self._running is not None:
            await self._running
            self._running = None

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement on this very one."""
        with contextlib.closing(
            psycopg2.connect(f"host={self.place} dbname=postgres user=root")
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    async def answers(self, statement: str, wanted: object) -> bool:
        """Tell whether a statement has this answer now."""
        try:
            return self.ask(statement) == [(wanted,)]
        except psycopg2.OperationalError:
            return False


class FailoverCase(TestCase):
    """What both kinds of machines have."""

    skip = why_not()
    timeout = patient(240)

    def make_platform(self) -> tuple[Postgres, Postgres]:
        """Make a platform and two PostgreSQL."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        return (
            Postgres(platform.runner, platform.base / "e1"),
            Postgres(platform.runner, platform.base / "e2"),
        )

    async def start(self) -> None:
        """Start two PostgreSQL, of which one copies the other, and a server that knows both."""
        self.primary, self.replica = self.make_platform()
        platform = self.platform
        await self.primary.make()
        self.addCleanup(self.replica.end)
        self.addCleanup(self.primary.end)
        self.primary.start()
        await platform.until(lambda: self.primary.answers("SELECT 1", 1), "a primary")
        # What is committed is on both: this is what makes the loss of one harmless.
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{REPLICA}'")
        self.primary.ask("SELECT pg_reload_conf()")
        await self.replica.copy(self.primary)
        self.replica.start()
        await platform.until(
            lambda: self.primary.answers("SELECT sync_state FROM pg_stat_replication", "sync"),
            "a replica",
        )
        self.primary.ask("CREATE DATABASE walt")
        dsn = f"host={self.primary.host},{self.replica.host} dbname=walt user=root"
        platform.write_config(f"database:\n  mode: external\n  dsn: {dsn}\n")
        await platform.start()
        self.load = Load(platform)
        # By sockets, whatever network the server is in: it is asked when the replica took over.
        self.load.database = Database(
            platform.reactor, f"host={self.replica.place} dbname=walt user=root"
        )
        self.addCleanup(self.load.database.close)

    async def register_for(self, period: float) -> tuple[list[int], float]:
        """Register one node after the other; return who was acknowledged, and the longest gap."""
        acknowledged: list[int] = []
        longest, last = 0.0, time.monotonic()
        end, number = last + period, 0
        # More machines of an unknown type are not recorded (no image is there for them).
        pause = max(0.02, period / (MAX_UNKNOWN - 100))
        while time.monotonic() < end:
            number += 1
            try:
                await self.load.register(range(number, number + 1))
            except Refused:  # nobody was told that it is there
                await self.platform.sleep(0.1)
                continue
            acknowledged.append(number)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            await self.platform.sleep(pause)
        return acknowledged, max(longest, time.monotonic() - last)

    async def lose(self, number: int) -> None:
        """Lose the primary in the middle, and make the replica the primary a second later."""
        await self.platform.sleep(PERIOD / 3)
        if number == VANISH:
            self.vanish()
        elif number == SIGSTOP:  # a machine that hangs: nothing is refused, nothing answers
            self.primary.signal(number)
            self.end_connections()
        else:
            await self.primary.end(number)
        await self.platform.sleep(1)
        # The new primary has no replica yet: it must not wait for one.
        self.replica.ask("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.replica.ask("SELECT pg_reload_conf()")
        self.replica.ask("SELECT pg_promote()")

    def vanish(self) -> None:
        """Have the machine of the primary lose its network."""
        raise AssertionError("each kind of fail-over says how")

    def end_connections(self) -> None:
        """End the processes of the primary that serve its connections, as a network does."""
        main = int((self.primary.data / "postmaster.pid").read_text().split("\n")[0])
        for child in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), SIGKILL)

    async def check(self, number: int, period: int = PERIOD) -> None:
        """Lose the primary while senders log and nodes register; nothing acknowledged is lost."""
        await self.start()
        platform = self.platform
        addresses = [f"{platform.net}.{200 + one}" for one in range(SENDERS)]
        inside = await add_senders(platform, addresses, "02:00:00:00:f1")
        sending = Deferred.fromCoroutine(platform.runner.run(
            [*inside, sys.executable, "-m", "bench.logs.paced", f"{platform.net}.1", str(RATE),
             str(PERIOD), *addresses],
            env={"PYTHONPATH": str(ROOT)}, timeout=patient(120),
        ))
        registering = Deferred.fromCoroutine(self.register_for(period))
        await self.lose(number)
        acknowledged, longest = await registering
        await sending
        print(f" longest time without a registration: {longest:.1f} s ...", end="", flush=True)
        self.assertGreater(len(acknowledged), 20)
        expected = RATE // 100 // SENDERS * SENDERS * PERIOD * 100

        async def all_lines() -> bool:
            rows = await self.load.database.query(
                "SELECT count(*) FROM logs l JOIN logstreams s ON s.id = l.stream_id"
                " WHERE s.name = 'bench'"
            )
            return rows == [(expected,)]

        await platform.until(all_lines, f"{expected} lines, each once")
        rows = await self.load.database.query("SELECT mac FROM devices")
        self.assertEqual({mac_of(one) for one in acknowledged} - {mac for mac, in rows}, set())
        self.assertFalse(self.replica.ask("SELECT pg_is_in_recovery()")[0][0])
        self.assertIn(mac_of(acknowledged[-1]), await platform.ok("device", "show"))
        self.assertEqual(await platform.stop(), 0)


class FailoverTests(FailoverCase):
    """Two clusters on the machine of the server."""

    async def test_killed(self) -> None:
        """The primary dies."""
        await self.check(SIGKILL)

    async def test_hangs(self) -> None:
        """The primary takes connections and answers none; those that were open are lost."""
        await self.check(SIGSTOP)


class NetworkFailoverTests(FailoverCase):
    """Three machines on cables: the server, the primary, its replica."""

    def make_platform(self) -> tuple[Postgres, Postgres]:
        """Make the machines, and the cables between each two."""
        from twisted.internet import reactor

        server, self.first, second = (Namespace(self) for _ in range(3))
        self.platform = platform = LivePlatform(reactor, own_namespace=False)
        self.addCleanup(platform.close)
        platform.namespace = server.name
        for number, (here, there, names) in enumerate((
            (server, self.first, ("db1", "lan")), (server, second, ("db2", "lan")),
            (self.first, second, ("side", "side")),
        ), 1):
            join(here, names[0], there, names[1])
            for end, name, last in ((here, names[0], 1), (there, names[1], 2)):
                end.run("ip", "address", "add", f"10.9.{number}.{last}/24", "dev", name)
        # Each is reached at one address, from wherever.
        for one, address in ((self.first, "10.9.9.1"), (second, "10.9.9.2")):
            one.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        server.run("ip", "route", "add", "10.9.9.1", "via", "10.9.1.2")
        server.run("ip", "route", "add", "10.9.9.2", "via", "10.9.2.2")
        second.run("ip", "route", "add", "10.9.9.1", "via", "10.9.3.1")
        self.first.run("ip", "route", "add", "10.9.9.2", "via", "10.9.3.2")
        return (
            Postgres(ProcessRunner(reactor, self.first.launcher), platform.base / "e1", "10.9.9.1"),
            Postgres(ProcessRunner(reactor, second.launcher), platform.base / "e2", "10.9.9.2"),
        )

    def vanish(self) -> None:
        """Drop all that comes to the primary, and all that leaves it."""
        self.first.run("nft", "-f", "-", stdin=BLACK_HOLE)

    async def test_vanishes(self) -> None:
        """Its machine is gone from the network, and nobody says so."""
        await self.check(VANISH, 4 * PERIOD)
