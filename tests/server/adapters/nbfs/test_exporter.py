"""nbfsd is told what to export: the file, the request, and peers that have a bad day."""

from __future__ import annotations

import shutil
import socket
import tempfile
from ipaddress import IPv4Network
from pathlib import Path

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.fakes.images import FakeExporter
from tests.patience import patient
from walt.server.adapters.nbfs.exporter import EVERY, LIMIT, NbfsExporter, header
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.runtime.reactors import the_reactor

NET = IPv4Network("192.168.1.0/24")
READ = ImageExport("a" * 64, Path("/var/lib/walt/images/a/fs"), ("192.168.1.10",))
UNREAD = ImageExport("b" * 64, Path("/var/lib/walt/images/b/fs"))
NODE = NodeExport("52:54:00:00:00:0a", "192.168.1.10", "n10", "a" * 64, Path("/p/joe"))
PLAN = ExportPlan(NET, (READ, UNREAD), (NODE,))
LINE = f"/var/lib/walt/images/a/fs 192.168.1.0/24(fsid={'a' * 32})\n"


class NbfsExporterTests(TestCase):
    def setUp(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="nb"))
        self.addCleanup(shutil.rmtree, self.base)
        self.exports, self.control = self.base / "exports.d", self.base / "ctl.sock"
        self.exports.mkdir()
        self.file = self.exports / "walt.exports"
        self.nfs = FakeExporter()
        self.requests: list[bytes] = []

    def make(
        self, *, enabled: bool = True, limit: float = LIMIT, every: float = EVERY
    ) -> NbfsExporter:
        """Return an exporter of a server whose state is at `base`."""
        return NbfsExporter(
            the_reactor(), self.nfs, enabled=enabled, directory=self.exports,
            control=self.control, own=self.base / "own", owner=self.base, limit=limit,
            every=every,
        )

    def peer(self, *answers: bytes | None) -> None:
        """Answer requests at the socket of nbfsd in turn, then `OK`; None: not at all."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(one.close)
        one.bind(str(self.control))
        one.settimeout(patient(20))
        waiting = [*answers]

        def serve() -> None:
            while True:
                try:
                    request, sender = one.recvfrom(100)
                except OSError:
                    return
                if request == b"end":
                    return
                self.requests.append(request)
                answer = waiting.pop(0) if waiting else b"OK"
                if answer is not None:
                    one.sendto(answer, sender)

        serving = deferToThread(serve)

        def end() -> object:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.sendto(b"end", str(self.control))
            return serving

        self.addCleanup(end)

    async def test_file_and_request(self) -> None:
        """Images that somebody reads are there, once; nothing is asked when nothing changes."""
        self.peer()
        exporter = self.make()
        self.assertEqual(await exporter.apply(PLAN), {})
        self.assertEqual(self.file.read_text(), header(self.base) + LINE)
        await exporter.apply(PLAN)
        self.assertEqual(self.requests, [b"RELOAD_CONF"])
        self.assertTrue(exporter.health.running)
        self.assertEqual(list((self.base / "own").iterdir()), [])
        await exporter.withdraw()
        self.assertEqual(self.file.read_text(), header(self.base))
        self.assertEqual((self.requests, self.nfs.plans), ([b"RELOAD_CONF"] * 2, []))

    async def test_no_daemon(self) -> None:
        """Without the directory nothing is written; without the socket nobody is asked."""
        exporter = self.make()
        await exporter.apply(PLAN)
        self.assertEqual(self.file.read_text(), header(self.base) + LINE)
        self.assertEqual(exporter.health.state, "stopped")
        self.assertIsNone(exporter.health.trouble)
        self.file.unlink()
        self.exports.rmdir()
        await self.make().apply(PLAN)
        self.assertFalse(self.exports.exists())
        self.assertEqual(self.nfs.plans, [PLAN])

    async def test_switched_off(self) -> None:
        """What this server has left is taken back; what is another one's stays."""
        await self.make().apply(PLAN)
        self.peer()
        await self.make(enabled=False).apply(PLAN)
        self.assertEqual((self.file.read_text(), self.requests), (
            header(self.base), [b"RELOAD_CONF"]
        ))
        self.file.write_text("/srv 10.0.0.0/8(fsid=1)\n")
        exporter = self.make(enabled=False)
        await exporter.apply(PLAN)
        await exporter.withdraw()
        self.assertEqual(self.file.read_text(), "/srv 10.0.0.0/8(fsid=1)\n")

    async def bad(self, reason: str) -> None:
        """Have a first request not agreed to: nodes boot all the same, and another one follows."""
        exporter = self.make(limit=0.2, every=0.05)
        self.assertEqual(await exporter.apply(PLAN), {})
        self.assertEqual(self.nfs.plans, [PLAN])
        self.assertFalse(exporter.health.running)
        self.assertIn(reason, exporter.health.trouble or "")
        exporter.startService()
        limit = the_reactor().seconds() + patient(20)
        while not exporter.health.running:
            self.assertLess(the_reactor().seconds(), limit)
            await deferLater(the_reactor(), 0.02)
        exporter.stopService()

    async def test_refuses(self) -> None:
        """What is not OK is told, and asked again."""
        self.peer(b"\x1b[2JKO " + b"x" * 60000)
        await self.bad(r"it answers b'\x1b[2JKO xxx")

    async def test_silent(self) -> None:
        """Nobody waits longer than the limit for one that says nothing."""
        self.peer(None)
        await self.bad("no answer to RELOAD_CONF within 0.2 s")

    async def test_left_socket(self) -> None:
        """A socket at which nobody listens any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.bind(str(self.control))
        exporter = self.make()
        self.assertEqual(await exporter.apply(PLAN), {})
        self.assertEqual(exporter.health.trouble, "nothing listens at its socket")

    async def test_full_socket(self) -> None:
        """One that takes no requests any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            one.bind(str(self.control))
            other.setblocking(False)
            with self.assertRaises(BlockingIOError):
                while True:
                    other.sendto(b"x", str(self.control))
            exporter = self.make(limit=0.4)
            self.assertEqual(await exporter.apply(PLAN), {})
            self.assertIn("no answer", exporter.health.trouble or "")

    async def test_unwritable(self) -> None:
        """A file that cannot be written is told; NFS goes on."""
        self.file.mkdir()
        exporter = self.make()
        self.assertEqual(await exporter.apply(PLAN), {})
        self.assertIn("Is a directory", exporter.health.trouble or "")

    async def running(self, exporter: NbfsExporter) -> None:
        """Wait until all is well."""
        limit = the_reactor().seconds() + patient(20)
        while exporter.health.state != "running":
            self.assertLess(the_reactor().seconds(), limit)
            await deferLater(the_reactor(), 0.02)

    async def test_written_later(self) -> None:
        """What could not be written is, once it can be; nbfsd is told then."""
        self.peer()
        exporter = self.make(every=0.05)
        await exporter.apply(PLAN)
        self.file.unlink()
        self.file.mkdir()
        await exporter.apply(ExportPlan(NET, (), ()))
        self.assertEqual(exporter.health.state, "not answering")
        self.file.rmdir()
        self.file.write_text(header(self.base) + LINE)
        exporter.startService()
        self.addCleanup(exporter.stopService)
        await self.running(exporter)
        self.assertEqual(self.file.read_text(), header(self.base))
        self.assertEqual(self.requests, [b"RELOAD_CONF"] * 2)

    async def test_right_by_chance(self) -> None:
        """Where the file says what it must all the same, nothing is wrong any more."""
        self.peer()
        exporter = self.make(every=0.05)
        await exporter.apply(PLAN)
        self.file.unlink()
        self.file.mkdir()
        await exporter.apply(ExportPlan(NET, (), ()))
        self.file.rmdir()
        self.file.write_text(header(self.base) + LINE)
        await exporter.apply(PLAN)
        exporter.startService()
        self.addCleanup(exporter.stopService)
        await self.running(exporter)
        self.assertEqual(self.requests, [b"RELOAD_CONF"])
