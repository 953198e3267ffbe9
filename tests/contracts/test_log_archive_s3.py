"""The archive of logs in a store that speaks S3: moto, and a line to it that fails in many ways."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.contracts.test_log_archive import DAY, A, ArchiveCase, B
from tests.patience import patient
from walt.common.errors import LimitExceeded, Unavailable
from walt.server.adapters.archive.files import ArchiveFiles
from walt.server.adapters.postgres.logs import PostgresLogs
from walt.server.domain.logs.archive import ArchiveTarget
from walt.server.domain.logs.model import LogQuery

BUCKET, SECRET = "walt-logs", "never-in-a-log"


class Line:
    """A port that leads to a store. `fault` is what becomes of connections and answers.

    None; "cut": half of an answer, then the end; "stall": the beginning, then nothing;
    "refuse": 403 to all that is asked; "busy": 503.
    """

    def __init__(self, port: int) -> None:
        self.store, self.fault, self.after = port, None, 0
        self.open: list[_Near] = []
        self._listening: Any = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(lambda: _Near(self))
        )
        return int(self._listening.getHost().port)

    async def stop(self) -> None:
        """Close all."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.cut_all()

    def cut_all(self) -> None:
        """End all connections: later ones meet the fault."""
        for one in list(self.open):
            one.transport.abortConnection()


class _Far(Protocol):
    def __init__(self, near: _Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        self.near.joined(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.near.answer(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.near.transport.loseConnection()


class _Near(Protocol):
    def __init__(self, line: Line) -> None:
        self.line, self.waiting, self.far, self.size = line, b"", None, 0

    def connectionMade(self) -> None:
        self.line.open.append(self)
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.line.store)
        connecting = endpoint.connect(Factory.forProtocol(lambda: _Far(self)))
        connecting.addErrback(lambda failure: self.transport.abortConnection())

    def joined(self, far: Any) -> None:
        self.far = far
        far.write(self.waiting)

    def dataReceived(self, data: bytes) -> None:
        if self.line.fault in ("refuse", "busy"):
            status = "403 Forbidden" if self.line.fault == "refuse" else "503 Slow Down"
            self.transport.write(
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            self.transport.loseConnection()
        elif self.far is None:
            self.waiting += data
        else:
            self.far.write(data)

    def answer(self, data: bytes) -> None:
        if self.line.fault in ("cut", "stall"):
            rest = max(0, self.line.after - self.size)
            self.size += len(data)
            self.transport.write(data[:rest])
            if self.line.fault == "cut" and len(data) > rest:
                self.transport.loseConnection()
        else:
            self.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.line.open.remove(self)
        if self.far is not None:
            self.far.loseConnection()


class S3ArchiveTests(ArchiveCase):
    """In a bucket."""

    timeout = patient(240)

    async def setUp(self) -> None:
        """Start a store, a line to it, and make a bucket."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        store = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.addCleanup(deferToThread, store.wait)
        self.addCleanup(store.kill)
        self.store_url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(OSError):
                self.ask("PUT", BUCKET)
                break
            await deferLater(reactor, 0.1)
        self.line = Line(port)
        self.endpoint = f"http://127.0.0.1:{await self.line.start()}"
        self.addCleanup(self.line.stop)
        self.secrets = Path(self.mktemp())
        self.secrets.parent.mkdir(parents=True, exist_ok=True)
        self.secrets = self.secrets.resolve()
        self.secrets.write_text(
            f"[default]\naws_access_key_id = walt\naws_secret_access_key = {SECRET}\n"
        )
        self.secrets.chmod(0o600)
        await super().setUp()

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """Ask the store itself."""
        request = urllib.request.Request(f"{self.store_url}/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def target(self) -> ArchiveTarget:
        """Return the bucket."""
        return ArchiveTarget(
            bucket=BUCKET, prefix="lab/a/", endpoint=self.endpoint, credentials=str(self.secrets)
        )

    def objects(self) -> list[str]:
        """Return the keys of files in the bucket."""
        text = self.ask("GET", f"{BUCKET}?list-type=2").decode()
        keys = [one.split("</Key>")[0] for one in text.split("<Key>")[1:]]
        return sorted(one for one in keys if not one.endswith("/"))  # pyarrow keeps the prefix

    async def filled(self) -> None:
        """Store lines of two old weeks, and of now."""
        for weeks in (11, 10, 0):
            at = self.now - weeks * 7 * DAY - 60
            for mac, name in ((A, "exp"), (B, "console")):
                await self.add(mac, name, [at + n for n in range(10)], [
                    f"{name} {weeks} {n} é" for n in range(10)
                ])

    async def move_for_a_week(self, **options: Any) -> None:
        """Move what is due, until files that were given up then are removed."""
        await self.move(**options)
        await self.database.execute("UPDATE logarchives SET gone = gone - interval '8 days'")
        await self.move(**options)

    async def test_life(self) -> None:
        """Weeks are written, read, written again without a device, and removed."""
        await self.filled()
        queries = [
            LogQuery(), LogQuery(streams="exp", lines="[3-5] é"),
            LogQuery(end=self.now - 70 * DAY - 55.5),
        ]
        before = [await self.records_of(query) for query in queries]
        self.assertEqual((await self.move()).problem, None)
        self.assertEqual(await self.in_database(), 20)
        names = self.objects()
        self.assertEqual((len(names), names[-1]), (3, "lab/a/manifest.json"))
        for query, expected in zip(queries, before, strict=True):
            self.assertEqual(await self.records_of(query), expected, query)
        owner = await self.records.owner()
        self.assertEqual(await self.archive.problems(await self.records.files(), owner), [])
        await self.devices.forget([A], {})
        await self.move_for_a_week()
        self.assertEqual(len(self.objects()), 3)
        self.assertEqual(set(self.objects()) & set(names), {"lab/a/manifest.json"})
        self.assertEqual(len(await self.lines(LogQuery())), 30)
        await self.move_for_a_week(retention=40)
        self.assertEqual(self.objects(), ["lab/a/manifest.json"])

    async def test_large(self) -> None:
        """Uploads in several parts, files of a week one after the other."""
        at = self.now - 70 * DAY
        texts = [os.urandom(200).hex() for _ in range(100_000)]
        await self.add(A, "exp", [at + n / 1000 for n in range(100_000)], texts)
        await self.move(self.files(self.target(), file_size=12 << 20))
        self.assertEqual(len(self.objects()), 3)
        self.assertEqual(await self.lines(LogQuery()), texts)
        self.assertEqual(
            await self.lines(LogQuery(start=at + 70, end=at + 70.1)), texts[70_001:70_100]
        )

    async def test_other_faults(self) -> None:
        """No bucket, credentials that others can read or that say nothing: said, never told."""
        await self.filled()
        self.secrets.chmod(0o644)
        self.assertIn("can be read by others", (await self.move()).problem or "")
        self.secrets.chmod(0o600)
        self.secrets.write_text(f"[default]\naws_secret_access_key {SECRET}\n")
        told = (await self.move()).problem or ""
        self.assertIn("must have a section [default]", told)
        self.assertNotIn(SECRET, told)
        self.secrets.write_text(
            f"[default]\naws_access_key_id = walt\naws_secret_access_key = {SECRET}\n"
        )
        nowhere = ArchiveTarget(
            bucket="nowhere", endpoint=self.endpoint, credentials=str(self.secrets)
        )
        told = (await self.move(self.files(nowhere))).problem or ""
        self.assertIn("s3://nowhere cannot be used", told)
        self.assertNotIn(SECRET, told)
        self.assertEqual(await self.in_database(), 60)

    async def test_a_line_that_fails(self) -> None:
        """Unreachable, refused, busy, cut and silent stores lose nothing, and are told in time."""
        await self.filled()
        expected = await self.records_of(LogQuery())
        await self.move()
        await self.add(A, "exp", [self.now - 60 * DAY], ["another week"])
        hasty = self.files(self.target(), silence=8.0, answer=8.0)
        patientless = PostgresLogs(self.database, archive=hasty)
        for fault, after in (
            ("refuse", 0), ("busy", 0), ("cut", 0), ("cut", 100), ("cut", 2000), ("stall", 0),
            ("stall", 300), ("away", 0),
        ):
            if fault == "away":
                await self.line.stop()
            else:
                self.line.fault, self.line.after = fault, after
                self.line.cut_all()
            told = (await self.move(hasty)).problem
            self.assertTrue(told, fault)
            self.assertNotIn(SECRET, told or "")
            self.assertEqual(await self.in_database(), 21)

            async def read() -> None:
                cursor = await patientless.open(LogQuery())
                try:
                    while await cursor.next_block():
                        pass
                finally:
                    await cursor.close()

            failure = await self.assertFailure(
                Deferred.fromCoroutine(read()), Unavailable, LimitExceeded
            )
            self.assertIn("s3://walt-logs/lab/a", str(failure))
        self.flushLoggedErrors()
        target = ArchiveTarget(
            bucket=BUCKET, prefix="lab/a/", endpoint=self.store_url, credentials=str(self.secrets)
        )
        self.archive = ArchiveFiles(reactor, self.archive._launcher, self.workers, target, self.dsn)
        self.addCleanup(self.archive.stop)
        self.store = PostgresLogs(self.database, archive=self.archive)
        self.assertEqual(len(await self.lines(LogQuery())), 61)
        self.assertIsNone((await self.move()).problem)
        self.assertEqual(await self.in_database(), 20)
        found = await self.records_of(LogQuery())
        self.assertEqual([one for one in found if one[3] != "another week"], expected)
        self.assertEqual(len(self.objects()), 4)


