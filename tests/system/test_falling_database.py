"""Log lines while processes of PostgreSQL are killed in every way: none lost, none doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system import cluster
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.devices import PostgresDevices
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.adapters.postgres.migrate import migrate
from walt.server.domain.devices.model import Device
from walt.server.domain.logs.lines import LogService

MACS = [f"02:00:00:00:00:{number:02x}" for number in range(5)]
SEED = 7  # of the moments of the falls
# The process that is ended, as its title tells, and how.
FALLS = (
    ("postmaster", signal.SIGKILL), ("backend", signal.SIGKILL), ("backend", signal.SIGTERM),
    ("writer", signal.SIGKILL), ("postmaster", signal.SIGINT), ("backend", signal.SIGABRT),
    ("all", signal.SIGKILL), ("postmaster", signal.SIGQUIT),
)


class FallingDatabaseTests(TestCase):
    skip = cluster.why_not()
    timeout = patient(120)

    async def test_all_falls(self) -> None:
        """Every way to fall, in the middle of batches."""
        from twisted.internet import reactor

        self.cluster = cluster.SharedCluster()
        self.addCleanup(self.cluster.end)
        database = Database(reactor, self.cluster.fresh())
        self.addCleanup(database.close)
        await migrate(database)
        await PostgresDevices(database).save(
            [Device(mac, f"node{number}", "unknown") for number, mac in enumerate(MACS)]
        )
        store = PostgresLogs(database)
        await store.prepare()
        await store.make_partitions()
        service = LogService(store, reactor, time.time)  # type: ignore[arg-type]
        sent = dict.fromkeys(MACS, 0)

        def send() -> None:
            for mac in MACS:
                if not service.must_wait(mac):
                    first, sent[mac] = sent[mac], sent[mac] + 50
                    service.write_lines(mac, "exp", "\n".join(map(str, range(first, first + 50))))

        chances = random.Random(SEED)
        sending = LoopingCall(send)
        fallen = 0
        sending.start(0.01).addErrback(lambda failure: failure.raiseException())
        try:
            for who, number in FALLS:
                more = sum(sent.values()) + chances.randrange(1_000, 10_000)
                while sum(sent.values()) < more or not self.fall(who, number):
                    await deferLater(reactor, 0.01, lambda: None)
                fallen += 1
                asked = time.monotonic()
                while who in ("postmaster", "all") and self.cluster.runs():
                    # PostgreSQL 15 may miss SIGINT while it recovers, and waits for ever then.
                    if number == signal.SIGINT and time.monotonic() > asked + patient(5):
                        self.fall(who, signal.SIGQUIT)
                    await deferLater(reactor, 0.02, lambda: None)
                while not self.cluster.runs():
                    # It refuses to start while a process of the old one is left.
                    self.cluster.spawn()
                    await deferLater(reactor, 0.3, lambda: None)
        finally:
            sending.stop()
        reactor.getReaders()  # type: ignore[attr-defined]  # its books are right: no KeyError
        self.assertEqual(fallen, len(FALLS))
        await service.flush()
        for mac in MACS:
            rows = await database.query(
                "SELECT line FROM logs JOIN logstreams s ON s.id = stream_id"
                " WHERE issuer_mac = %s ORDER BY place, arrival", (mac,),
            )
            self.assertEqual([int(line) for (line,) in rows], list(range(sent[mac])))

    def fall(self, who: str, number: int) -> bool:
        """Send a signal to the database, or to one of its processes; False if there is none yet."""
        master = self.cluster.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        titles = {}
        for child in children:
            with contextlib.suppress(FileNotFoundError):
                titles[int(child)] = Path(f"/proc/{child}/cmdline").read_text()
        chosen = {
            "postmaster": [master],
            "backend": [one for one, title in titles.items() if "root" in title][:1],
            "writer": [one for one, title in titles.items() if "checkpointer" in title],
            "all": [*titles, master],
        }[who]
        for one in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
        return bool(chosen)
