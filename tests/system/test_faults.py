"""Daemons and databases that die under load: nothing that was promised is lost."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.load import Load, mac_of


class FaultTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def start(self) -> Load:
        """Return a live server with the small image."""
        from twisted.internet import reactor

        self.begun = time.time()
        platform = self.platform = LivePlatform(reactor, net="192.168.176", prefix=20)
        load = Load(platform)
        self.addCleanup(platform.close)
        self.addCleanup(load.database.close)
        await platform.import_image()
        await load.started()
        return load

    async def pid(self, name: str) -> int:
        """Return the process of a daemon, once it runs."""

        async def found() -> int:
            row = (await self.platform.services())[name]
            return int(row["pid"] or 0)

        return int(await self.platform.until(found, f"{name} runs", 30))

    async def test_database_killed_during_registrations(self) -> None:
        """Every registration is answered, late, and every device is recorded."""
        load = await self.start()
        victim = await self.pid("postgres")
        running = [Deferred.fromCoroutine(load.register(range(1, 101)))]
        os.kill(victim, signal.SIGKILL)
        running += [
            Deferred.fromCoroutine(load.register(range(first, first + 100)))
            for first in (101, 201)
        ]
        for one in running:
            await one
        load.database.close()
        self.assertEqual(await load.recorded(), 300)
        self.assertNotEqual(await self.pid("postgres"), victim)
        self.assertNotIn("Traceback", self.platform.log.read_text(errors="replace"))

    async def test_database_killed_again_and_again(self) -> None:
        """Lines that were accepted reach the database when it is back."""
        load = await self.start()
        written = []
        late = (
            f"walt-dhcp-event: cannot reach the WalT server at {self.platform.runtime}/rpc.sock"
            " (timed out): is it running?\n"
        ).encode()
        for turn in range(3):
            mac = mac_of(500 + turn)
            written.append(mac)
            killed = await self.pid("postgres")
            load.database.close()
            os.kill(killed, signal.SIGKILL)
            result = await self.platform.event(
                "commit", "", "", load.address_of(500 + turn), mac, "", "0", "unknown"
            )
            # walt-dhcp-event waits 5 s, the server for as long as it takes.
            self.assertEqual(result.status, 1 if result.stderr else 0, result.stderr)
            self.assertIn(result.stderr, (b"", late))

            async def recorded(wanted: int = turn + 1) -> bool:
                return await load.recorded("unknown") == wanted

            await self.platform.until(recorded, "the device is recorded")

        async def logged() -> bool:
            text = await self.platform.ok("log", "show", "--platform", "--history", "full")
            return all(f"type=unknown mac={mac}" in text for mac in written)

        await self.platform.until(logged, "the lines about all devices")

    async def test_daemons_killed(self) -> None:
        """Each daemon is back within seconds, with the present configuration."""
        load = await self.start()
        await load.register(range(1, 4))
        for name in ("dhcpd", "named", "tftpd", "nbdkit", "ganesha"):
            victim = await self.pid(name)
            os.kill(victim, signal.SIGKILL)

            async def back(name: str = name, victim: int = victim) -> bool:
                row = (await self.platform.services())[name]
                return bool(row["running"]) and row["pid"] != victim

            await self.platform.until(back, f"{name} is back", 30)
        log = self.platform.log.read_text(errors="replace")
        for name in ("dhcpd", "named", "tftpd", "nbdkit", "ganesha"):
            self.assertRegex(log, rf"{name} ended unexpectedly \(status 137\), restarting it in")
        self.assertEqual(load.hosts(), {mac_of(number) for number in (1, 2, 3)})

    async def test_daemons_that_hang(self) -> None:
        """Processes that live but do nothing: noticed, shown, replaced by ones that answer."""
        await self.start()
        names = {"dhcpd", "named", "tftpd", "nbdkit", "ganesha", "postgres"}

        async def all_run() -> bool:
            rows = await self.platform.services()
            return all(rows[name]["state"] == "running" for name in names)

        await self.platform.until(all_run, "all daemons run")
        stopped: dict[str, Any] = {}
        shown: dict[str, str] = {}

        async def noticed() -> bool:
            for name, row in (await self.platform.services()).items():
                if row["state"] == "not answering":
                    shown[name] = row["trouble"]
                elif name in names - set(shown) and row["pid"] != stopped.get(name, {}).get("pid"):
                    # dhcpd may be started again for the devices of the start.
                    self.assertIsNone(row["trouble"], row)
                    stopped[name] = row
                    os.kill(row["pid"], signal.SIGSTOP)
            return set(shown) >= names

        await self.platform.until(noticed, "all are shown", 150)
        self.assertEqual(shown, dict.fromkeys(names, "no answer within 10 s"))
        await self.platform.until(all_run, "all answer again")
        after = await self.platform.services()
        for name in names:
            self.assertNotEqual(after[name]["pid"], stopped[name]["pid"], name)
            self.assertEqual(after[name]["restarts"], stopped[name]["restarts"] + 1, name)
            self.assertEqual(after[name]["status"], 137, name)  # only KILL ends them
            self.assertGreater(after[name]["trouble_time"], self.begun, name)
        table = await self.platform.ok("advanced", "services")
        self.assertEqual(table.count("no answer within 10 s"), len(names), table)
        log = self.platform.log.read_text(errors="replace")
        for name in names:
            self.assertEqual(
                log.count(f"{name} runs but does not answer as it should: no answer"), 1, name
            )
            self.assertEqual(log.count(f"{name} answers again"), 1, name)
        self.assertNotIn("cannot ask", log)
        self.assertNotIn("Traceback", log)

    async def test_configuration_directory_lost(self) -> None:
        """A directory of generated files that vanished is made again at the next change."""
        load = await self.start()
        await load.register(range(1, 3))
        conf = self.platform.state / "services/dhcpd/dhcpd.conf"

        async def there(count: int) -> bool:
            return conf.exists() and len(load.hosts()) == count

        await self.platform.until(lambda: there(2), "both hosts")
        conf.unlink()
        await load.register(range(3, 4))
        await self.platform.until(lambda: there(3), "three hosts", 10)

    async def test_stopped_database(self) -> None:
        """While the database hangs, what needs no database is answered at once."""
        load = await self.start()
        await load.register(range(1, 4))
        victim = await self.pid("postgres")
        os.kill(victim, signal.SIGSTOP)
        try:
            shown = await self.platform.walt("node", "show", "--all", timeout=10)
            self.assertEqual(shown.status, 0)
            self.assertEqual(len(re.findall(r"192\.168\.\S+", shown.stdout.decode())), 3)
        finally:
            os.kill(victim, signal.SIGCONT)
        await load.register(range(4, 6))
        self.assertEqual(await load.recorded(), 5)

    async def test_clients_that_vanish(self) -> None:
        """Half a call, nothing, garbage: the server drops them and stays."""
        load = await self.start()
        from twisted.internet.endpoints import UNIXClientEndpoint
        from twisted.internet.protocol import Factory, Protocol

        path = f"{self.platform.runtime}/rpc.sock"
        for garbage in (b"", b"\0", b"\0\4_ask", b"\0\xff" * 50, b"GET / HTTP/1.0\r\n\r\n",
                        b"\x16\x03\x01" * 30, b"REQ_API_SESSION\nCSAPI\n", os.urandom(4096)):
            for abort in (True, False):
                peer = await UNIXClientEndpoint(load.reactor, path).connect(
                    Factory.forProtocol(Protocol)
                )
                peer.transport.write(garbage)
                await self.platform.sleep(0.05)
                (peer.transport.abortConnection if abort else peer.transport.loseConnection)()
        await load.register(range(1, 2))
        self.assertEqual(await load.recorded(), 1)
        self.assertNotIn("Traceback", self.platform.log.read_text(errors="replace"))
