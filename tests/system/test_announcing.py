"""The real lldpd and snmpd: what a switch hears of the server, and what walt-net may read."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.hanging import SHORT, stop_and_come_back, until
from tests.system.live import LivePlatform
from tests.system.live import why_not as why_not_platform
from tests.system.netns import Namespace, join, short_dir, why_not
from walt.server.adapters.lldp import probe
from walt.server.adapters.lldp.lldpd import CONFIGURATION, SOCKET, LldpdService, lldpd_spec
from walt.server.adapters.lldp.snmpd import SnmpdService
from walt.server.adapters.network.namespace import inside
from walt.server.domain.network_services.announcing import LldpdConfig, SnmpdConfig
from walt.server.runtime.asking import ask_datagram
from walt.server.runtime.child import ChildService
from walt.server.runtime.daemon import Daemon
from walt.server.runtime.watching import NoAnswer

SERVER = "192.168.77.1"
COMMUNITY = "lab-7"
# hrSystemUptime, of HOST-RESOURCES-MIB, which tells of programs and disks; sysContact.
HOST, CONTACT = bytes.fromhex("06092b0601020119010100"), bytes.fromhex("06082b06010201010400")


def processes(parent: int) -> list[int]:
    """Return a process and those below it, one after the other."""
    found = [parent]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        found += [int(child) for child in children]
    return found


def status(pid: int) -> dict[str, str]:
    """Return what the kernel tells of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class AnnouncingTests(TestCase):
    skip = why_not("lldpd", "snmpd", "bwrap", "ip", "nsenter", "setpriv")
    timeout = patient(120)

    async def setUp(self) -> None:
        self.server, self.switch = Namespace(self), Namespace(self)
        join(self.server, "eth1", self.switch, "p1")
        self.server.run("ip", "address", "add", f"{SERVER}/24", "dev", "eth1")
        self.server.run("ip", "address", "add", "10.9.9.1/24", "dev", "eth1")
        for one in ("192.168.77.20/24", "10.9.9.9/24"):
            self.switch.run("ip", "address", "add", one, "dev", "p1")
        self.dir = short_dir(self)
        run = self.dir / "run"
        self.shown = SnmpdConfig(
            IPv4Address(SERVER), IPv4Network("192.168.77.0/24"), COMMUNITY,
            run / "snmpd" / "agentx" / "socket",
        )
        common: dict[str, Any] = {"place": self.server.inside, "patience": SHORT}
        self.snmpd = SnmpdService(
            reactor, self.server.launcher, directory=self.dir / "snmpd", runtime=run / "snmpd",
            **common,
        )
        self.lldpd = LldpdService(
            reactor, self.server.launcher, directory=self.dir / "lldpd", runtime=run / "lldpd",
            snmpd=self.shown, **common,
        )
        for one in (self.snmpd, self.lldpd):
            one.startService()
            self.addCleanup(one.stopService)
        self.snmpd.apply(self.shown)
        self.lldpd.apply(LldpdConfig(IPv4Address(SERVER), "eth1", self.shown.agentx))

    async def answers(
        self, community: str = COMMUNITY, name: bytes = probe.SYS_OBJECT_ID,
        source: str = "192.168.77.20", server: str = SERVER,
    ) -> bool | None:
        """Ask from the switch; None when nothing comes back."""
        self.switch.run("ip", "route", "replace", f"{SERVER}/32", "dev", "p1", "src", source)
        asking = Deferred.fromCoroutine(probe.ask(
            reactor, server, 161, community, name, place=self.switch.inside
        ))
        found = None
        with contextlib.suppress(NoAnswer, TimeoutError, OSError):
            found = await asking.addTimeout(2, reactor)  # type: ignore[arg-type]
        # What follows runs programs: not in a turn of the server's code.
        await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]
        return found

    async def replaced(self, service: Daemon[Any], pid: int) -> None:
        """Wait until another process runs."""
        await until(
            lambda: service.health.pid not in (None, pid), "another one runs", patient(90)
        )

    async def gone(self, pids: list[int]) -> None:
        """Wait until processes are no more."""
        await until(
            lambda: not any(Path(f"/proc/{one}").exists() for one in pids), "nothing is left"
        )

    async def joined(self) -> None:
        """Wait until snmpd shows what lldpd serves."""
        end = reactor.seconds() + patient(60)  # type: ignore[attr-defined]
        while not await self.answers(name=probe.LOC_CHASSIS):
            self.assertLess(reactor.seconds(), end)  # type: ignore[attr-defined]
            await deferLater(reactor, 0.1, lambda: None)  # type: ignore[arg-type]

    async def neighbours(self, where: Namespace, socket: Path) -> list[dict[str, Any]]:
        """Return the neighbours that an lldpd hears."""
        text = where.run(
            "lldpcli", "-f", "json0", "-u", str(socket), "show", "neighbors", check=False
        )
        try:
            interfaces = json.loads(text)["lldp"][0].get("interface", [])
        except ValueError:
            return []
        return [one for one in interfaces if "chassis" in one]

    async def test_both_hear_each_other(self) -> None:
        """The switch hears the server and its address; what the server hears, snmpd shows."""
        other, run, nobody = (self.dir / name for name in ("other", "other-run", "nobody"))
        for path in (other, run, nobody):
            path.mkdir()
        (other / CONFIGURATION).touch()
        switch = ChildService(reactor, self.switch.launcher, lldpd_spec(
            LldpdConfig(IPv4Address("192.168.77.20"), "p1", nobody / "socket"), other, run
        ))
        switch.startService()
        self.addCleanup(switch.stopService)
        socket = run / SOCKET
        heard: list[dict[str, Any]] = []
        end = reactor.seconds() + patient(60)  # type: ignore[attr-defined]
        while not heard and reactor.seconds() < end:  # type: ignore[attr-defined]
            await deferLater(reactor, 0.5, lambda: None)  # type: ignore[arg-type]
            heard = await self.neighbours(self.switch, socket)
        (chassis,) = heard[0]["chassis"]
        (link,) = json.loads(self.server.run("ip", "-json", "link", "show", "eth1"))
        self.assertEqual(chassis["id"][0]["value"], link["address"])
        self.assertIn(SERVER, [one["value"] for one in chassis["mgmt-ip"]])
        await self.joined()

    async def test_who_may_read(self) -> None:
        """The community from walt-net reads what it needs, and nothing more; others nothing."""
        assert await self.snmpd.watch.answered()
        self.assertIs(await self.answers(), True)
        self.assertIs(await self.answers(name=HOST), False)
        self.assertIsNone(await self.answers(community="private"))
        self.assertIsNone(await self.answers(source="10.9.9.9"))
        self.assertIsNone(await self.answers(server="10.9.9.1"))

    async def test_nothing_is_written(self) -> None:
        """No object takes a value, and the configuration is for snmpd alone."""
        assert await self.snmpd.watch.answered()
        packet = bytearray(probe.question(COMMUNITY, 1 << 30, CONTACT))
        packet[packet.index(0xA0)] = 0xA3  # SetRequest
        got = await self._send(bytes(packet))
        self.assertIs(probe.read_answer(got, 1 << 30), False)
        file = self.dir / "snmpd" / "snmpd.conf"
        self.assertEqual(file.stat().st_mode & 0o777, 0o640)

    async def _send(self, packet: bytes) -> bytes:
        return await ask_datagram(
            reactor, lambda one: one.send(packet), lambda raw, sender: raw, peer=(SERVER, 161),
            place=self.switch.inside,
        )

    async def test_rights(self) -> None:
        """snmpd is never root; of lldpd the process that reads what is heard has no right."""
        assert await self.snmpd.watch.answered()
        await self.joined()
        assert self.snmpd.health.pid
        assert self.lldpd.health.pid
        told = status(self.snmpd.health.pid)
        number = str(pwd.getpwnam("Debian-snmp").pw_uid)
        self.assertEqual(set(told["Uid"].split()), {number})
        self.assertEqual(told["CapBnd"], f"{1 << 10:016x}")
        found = [
            status(one) for one in processes(self.lldpd.health.pid)
            if status(one)["Name"] == "lldpd"
        ]
        number = str(pwd.getpwnam("_lldpd").pw_uid)
        self.assertEqual([set(one["Uid"].split()) for one in found], [{number}] * 2)
        self.assertEqual(
            [int(one["CapEff"], 16) for one in found], [1 << 1 | 1 << 12 | 1 << 13, 0]
        )

    async def test_killed(self) -> None:
        """With its supervisor lldpd ends; another one joins snmpd again, whatever was killed."""
        for service in (self.lldpd, self.snmpd):
            await self.joined()
            pid = service.health.pid
            assert pid is not None
            below = processes(pid)
            os.kill(pid, signal.SIGKILL)
            await self.replaced(service, pid)
            await self.gone(below)
            await self.joined()

    async def test_hangs(self) -> None:
        """Either one that hangs is noticed and replaced; the other one stays."""
        assert await self.snmpd.watch.answered()
        await stop_and_come_back(self.snmpd)
        await self.joined()
        assert self.lldpd.health.pid is not None
        before, other = self.lldpd.health.pid, self.snmpd.health.pid
        reader = processes(before)[-1]
        os.kill(reader, signal.SIGSTOP)
        await self.replaced(self.lldpd, before)
        self.assertEqual(self.snmpd.health.pid, other)

    async def test_stop(self) -> None:
        """After stopService nothing of both is there."""
        await self.joined()
        assert self.lldpd.health.pid
        assert self.snmpd.health.pid
        pids = [*processes(self.lldpd.health.pid), self.snmpd.health.pid]
        await self.lldpd.stopService()
        await self.snmpd.stopService()
        await self.gone(pids)


class PlatformTests(TestCase):
    """Both daemons beside a whole server."""

    skip = why_not_platform()
    timeout = patient(180)

    async def test_services(self) -> None:
        """They are shown, answer, leave nothing, and are not there when nobody wants them."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()

        async def run() -> bool:
            rows = await platform.services()
            return all(rows[name]["state"] == "running" for name in ("lldpd", "snmpd"))

        await platform.until(run, "both run")
        with inside(Path("/run/netns") / platform.namespace):
            asking = Deferred.fromCoroutine(probe.ask(
                reactor, "192.168.181.1", 161, "private", probe.SYS_OBJECT_ID
            ))
        self.assertTrue(await asking.addTimeout(patient(20), reactor))  # type: ignore[arg-type]
        await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]
        await platform.stop(signal.SIGKILL)

        async def are_gone() -> bool:
            return not [one for one in platform.left_overs() if "lldpd" in one or "snmpd" in one]

        await platform.until(are_gone, "both end with the server")
        platform.config.write_text(platform.config.read_text().replace(
            "services:\n", "services:\n  lldp: {enabled: false}\n"
        ))
        await platform.start()
        self.assertEqual({"lldpd", "snmpd"} & set(await platform.services()), set())
