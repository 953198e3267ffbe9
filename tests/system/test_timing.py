"""The clock of the server for nodes: the real ptpd with a real slave, and clients of NTP."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.hanging import SHORT, until
from tests.system.live import LivePlatform
from tests.system.live import why_not as why_not_platform
from tests.system.netns import Namespace, join, short_dir, why_not
from tests.system.test_announcing import processes, status
from walt.client.experiment.ptp import question, state_of
from walt.server.adapters.network.namespace import RUN_NETNS, inside
from walt.server.adapters.timing.clock import clock_state
from walt.server.adapters.timing.ntp import NtpService
from walt.server.adapters.timing.ptpd import STATUS, PtpdService
from walt.server.domain.network_services.timing import (
    NTP_PORT,
    ClockState,
    PtpConfig,
    is_ntp_answer,
    ntp_answer,
    ntp_question,
)
from walt.server.runtime.child import ChildService, ChildSpec

SERVER, NODE, STRANGER = "192.168.77.1", "192.168.77.20", "10.9.9.9"
WALT = IPv4Network("192.168.77.0/24")
# It is no master before it has listened for 16 s.
PATIENCE = SHORT._replace(settling=25.0)
# A node's, as its image would have it: it measures, and leaves the clock of this machine alone.
SLAVE = """\
ptpengine:interface=p1
ptpengine:preset=slaveonly
ptpengine:domain=42
ptpengine:ip_mode=hybrid
ptpengine:log_delayreq_interval=0
clock:no_adjust=Y
global:ignore_lock=Y
global:foreground=Y
global:use_syslog=N
global:log_statistics=Y
global:statistics_file={measured}
global:log_status=Y
global:status_file={status}
global:status_update_interval=1
"""
# The other client of PTP, as an image may have it.
PTP4L = """\
[global]
domainNumber 42
slaveOnly 1
hybrid_e2e 1
time_stamping software
free_running 1
uds_address {}
"""


def seconds() -> float:
    """Return the reactor's time."""
    return float(reactor.seconds())  # type: ignore[attr-defined]


class CableTests(TestCase):
    """The server and a node at the ends of a cable."""

    skip = why_not("ip", "nsenter", "ptpd", "bwrap", "ptp4l", "pmc")
    timeout = patient(200)

    def setUp(self) -> None:
        self.server, self.node = Namespace(self), Namespace(self)
        join(self.server, "eth1", self.node, "p1")
        self.server.run("ip", "address", "add", f"{SERVER}/24", "dev", "eth1")
        self.server.run("ip", "address", "add", "10.9.9.1/24", "dev", "eth1")
        for one in (f"{NODE}/24", f"{STRANGER}/24"):
            self.node.run("ip", "address", "add", one, "dev", "p1")


class PtpdTests(CableTests):
    def setUp(self) -> None:
        super().setUp()
        self.dir = short_dir(self)
        run = self.dir / "run"
        self.ptpd = PtpdService(
            reactor, self.server.launcher, directory=self.dir / "ptpd", runtime=run,
            patience=PATIENCE,
        )
        self.ptpd.startService()
        self.addCleanup(self.ptpd.stopService)
        self.ptpd.apply(PtpConfig("eth1", run / STATUS))

    async def test_a_node_follows(self) -> None:
        """A slave finds it and measures by how much its clock is off, by delay requests."""
        conf, told, status = (self.dir / name for name in ("slave.conf", "measured", "status"))
        conf.write_text(SLAVE.format(measured=told, status=status))
        slave = ChildService(
            reactor, self.node.launcher, ChildSpec("slave", ("ptpd", "-c", str(conf)), cwd="/")
        )
        slave.startService()
        self.addCleanup(slave.stopService)

        def rows() -> list[list[str]]:
            lines = told.read_text().splitlines() if told.exists() else []
            return [
                row for row in (line.split(", ") for line in lines)
                if len(row) > 6 and row[1] == "slv"
            ]

        await until(
            lambda: sum(row[8].strip() == "D" for row in rows()) > 3, "delays are measured",
            patient(120),
        )
        # Both ends read one clock: what is found is what the way adds.
        self.assertLess(abs(statistics.median(float(row[4]) for row in rows())), 0.05)
        self.assertTrue(await self.ptpd.watch.answered())
        # An experiment keeps what the client of its node says of itself.
        found = await self.asked(question("/nowhere", [], [str(conf)]))
        self.assertEqual((found["client"], found["state"]), ("ptpd", "slave"))
        self.assertLess(abs(float(found["offset"])), 0.05)
        self.assertGreater(float(found["delay"]), 0.0)
        self.assertRegex(str(found["master"]), "^[0-9a-f]{12,}$")

    async def asked(self, script: str) -> dict[str, str | float]:
        """Ask a node for the state of its client, as the shell of a run does."""
        answer = await deferToThread(self.node.run, "sh", "-c", script)
        return state_of(answer) or {}

    async def test_another_client(self) -> None:
        """Linuxptp follows it, too, and what it says is understood: it answers for its domain."""
        conf, place = self.dir / "ptp4l.conf", self.dir / "ptp4l"
        conf.write_text(PTP4L.format(place))
        client = ChildService(
            reactor, self.node.launcher,
            ChildSpec("ptp4l", ("ptp4l", "-i", "p1", "-f", str(conf), "-m"), cwd="/"),
        )
        client.startService()
        self.addCleanup(client.stopService)
        limit = seconds() + patient(120)
        while True:
            found = await self.asked(question(str(place)))
            if float(found.get("delay", 0.0)) > 0.0:
                break
            self.assertLess(seconds(), limit, found)
            await deferLater(reactor, 1.0, lambda: None)
        self.assertEqual(found["client"], "ptp4l")
        self.assertIn(found["state"], ("slave", "uncalibrated"))
        self.assertLess(abs(float(found["offset"])), 0.05)
        self.assertRegex(str(found["master"]), "^[0-9a-f]{6}[.]fffe[.][0-9a-f]{6}$")

    async def test_rights(self) -> None:
        """It may use its ports, and set no clock; it ends with its supervisor's call."""
        pid = self.ptpd.health.pid
        assert pid is not None
        found: list[int] = []

        def there() -> bool:
            found[:] = [one for one in processes(pid) if status(one)["Name"].startswith("ptpd")]
            return bool(found)

        await until(there, "it runs")
        told = status(found[0])
        self.assertEqual(int(told["CapEff"], 16), 1 << 10)  # CAP_NET_BIND_SERVICE
        self.assertEqual(told["NoNewPrivs"], "1")
        below = processes(pid)
        await self.ptpd.stopService()
        await until(
            lambda: not any(Path(f"/proc/{one}").exists() for one in below), "nothing is left"
        )

    async def test_hangs(self) -> None:
        """One that does nothing any more is noticed and replaced."""
        self.assertTrue(await self.ptpd.watch.answered())
        pid = self.ptpd.health.pid
        assert pid is not None
        os.kill(processes(pid)[-1], signal.SIGSTOP)
        await until(
            lambda: self.ptpd.health.pid not in (pid, None), "another one runs", patient(90)
        )
        self.assertEqual(self.ptpd.health.trouble, "it has stopped writing its state")


class NtpTests(CableTests):
    def service(self, clock: Callable[[], ClockState] = clock_state) -> NtpService:
        """Start ours."""
        one = NtpService(
            reactor, server=IPv4Address(SERVER), subnet=WALT, clock=clock,
            place=self.server.inside,
        )
        one.startService()
        self.addCleanup(one.stopService)
        return one

    def client(self, source: str) -> socket.socket:
        """Return a socket of the node."""
        with self.node.inside():
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(one.close)
        one.bind((source, 0))
        one.settimeout(0)
        return one

    async def answer(self, one: socket.socket, limit: float = patient(10)) -> bytes | None:
        """Return what comes back, None for nothing."""
        end = seconds() + limit
        while seconds() < end:
            try:
                return one.recv(1000)
            except BlockingIOError:
                await self.pause()
        return None

    def pause(self) -> Deferred[None]:
        """Let the reactor turn."""
        return deferLater(reactor, 0.02, lambda: None)  # type: ignore[arg-type]

    async def test_a_node_asks(self) -> None:
        """Right away; strangers, servers and fragments of questions get nothing."""
        service = self.service()
        await until(lambda: service.health.running, "it answers")
        one = self.client(NODE)
        before = time.time()
        one.sendto(ntp_question(77), (SERVER, NTP_PORT))
        answer = await self.answer(one)
        assert answer is not None
        self.assertTrue(is_ntp_answer(answer, 77))
        received, sent = (
            int.from_bytes(answer[at:at + 8], "big") / (1 << 32) - 2208988800 for at in (32, 40)
        )
        self.assertLessEqual(before - 0.001, received)
        self.assertLessEqual(received, sent)
        self.assertLessEqual(sent, time.time() + 0.001)
        for source, data in (
            (STRANGER, ntp_question(1)), (NODE, ntp_question(1)[:47]),
            (NODE, bytes([4 << 3 | 4]) + ntp_question(1)[1:]), (NODE, b""),
        ):
            other = self.client(source)
            self.node.run("ip", "route", "replace", f"{SERVER}/32", "dev", "p1", "src", source)
            other.sendto(data, (SERVER, NTP_PORT))
            self.assertIsNone(await self.answer(other, 0.5), source)

    async def test_a_daemon_of_the_machine(self) -> None:
        """Where somebody answers already, ours does not; it does when that one is gone."""
        with self.server.inside():
            theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        theirs.bind(("", NTP_PORT))
        theirs.settimeout(0)
        asked: list[Any] = []

        async def serve() -> None:
            while theirs.fileno() >= 0:
                try:
                    data, sender = theirs.recvfrom(100)
                except BlockingIOError:
                    await self.pause()
                    continue
                asked.append(sender)
                answer = ntp_answer(data, 1.0, 1.0, ClockState(0, 0.0))
                assert answer is not None
                theirs.sendto(answer, sender)

        serving = Deferred.fromCoroutine(serve())
        service = self.service()
        await until(lambda: service.health.running, "somebody answers")
        self.assertIsNone(service.health.pid)
        self.assertTrue(asked)
        theirs.close()
        await serving
        await until(lambda: service.health.pid is not None, "ours answers", patient(60))
        self.assertEqual(service.health.state, "running")

    async def test_stopped_while_it_asks(self) -> None:
        """Nothing of a question is left: trial looks for that."""
        with self.server.inside():
            silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(silent.close)
        silent.bind(("", NTP_PORT))
        service = self.service()
        await self.pause()
        self.assertFalse(service.health.running)

    async def test_a_port_that_is_taken(self) -> None:
        """Somebody who has the port and says nothing is told, and got over when it leaves."""
        with self.server.inside():
            silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("", NTP_PORT))
        service = self.service()
        await until(lambda: service.health.trouble is not None, "the trouble is told")
        self.assertEqual(service.health.state, "not answering")
        self.assertIn("Address already in use", service.health.trouble or "")
        silent.close()
        await until(lambda: service.health.running, "it answers", patient(60))


class PlatformTests(TestCase):
    skip = why_not_platform()
    timeout = patient(180)

    async def test_services(self) -> None:
        """Both are shown, answer, leave nothing; ptpd is not there when nobody wants it."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()

        async def run() -> bool:
            rows = await platform.services()
            return all(rows[name]["state"] == "running" for name in ("ntp", "ptpd"))

        await platform.until(run, "both run")
        with inside(RUN_NETNS / platform.namespace):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(one.close)
        one.settimeout(0)
        one.sendto(ntp_question(5), (f"{platform.net}.1", NTP_PORT))

        async def answered() -> bool:
            try:
                return is_ntp_answer(one.recv(100), 5)
            except BlockingIOError:
                return False

        await platform.until(answered, "an answer")
        await platform.stop(signal.SIGKILL)

        async def gone() -> bool:
            return not [one for one in platform.left_overs() if "ptpd" in one]

        await platform.until(gone, "ptpd ends with the server", 10)
        platform.config.write_text(platform.config.read_text().replace(
            "services:\n", "services:\n  ptp: {enabled: false}\n"
        ))
        await platform.start()
        self.assertEqual({"ntp", "ptpd"} & set(await platform.services()), {"ntp"})
