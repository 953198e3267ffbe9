"""Daemons as units of a real systemd: its orders by D-Bus, its journal, its reboots."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from tests.lab.box import SERVER
from tests.lab.installed import SETUP, installed, why_not
from tests.lab.test_install import LEFT, unknown_devices
from tests.lab.test_networks import BESIDE, DENIED
from tests.patience import patient

DAEMONS = ("dhcpd", "named", "tftpd", "snmpd", "lldpd", "ptpd")
ASK = "ip netns exec beside busybox udhcpc -n -q -t 4 -T 3 -s /bin/true -i eth2"


class RunnerTests(TestCase):
    skip = why_not()
    timeout = patient(1200)

    async def setUp(self) -> None:
        """Start a server."""
        from twisted.internet import reactor

        self.box = await installed(reactor)
        self.addCleanup(self.box.close)
        await self.box.start()
        await self.box.until_active()

    async def test_units(self) -> None:
        """Set-up, reboot, a registration, a killed daemon, a stop; and back to children."""
        box = self.box
        await self.set_up("systemd")
        await box.power_off()
        await box.start()
        await box.until_active()
        before = {name: await self.shown(name) for name in DAEMONS}
        for name, unit in before.items():
            self.assertEqual((unit["ActiveState"], unit["SubState"]), ("active", "running"), name)
        rows = await self.running()
        for name in DAEMONS:
            self.assertEqual(
                (rows[name]["pid"], rows[name]["restarts"]), (int(before[name]["MainPID"]), 0),
                f"{rows[name]}\n{await self.told(name)}",
            )
        await self.registration({name: unit["MainPID"] for name, unit in before.items()})
        await self.killed("dhcpd")
        await self.killed("tftpd")
        self.assertEqual(await box.run(DENIED), "")
        await self.back()
        await self.set_up("systemd")
        await box.run("systemctl kill --signal=KILL walt-server", timeout=patient(60))
        await box.run("systemctl stop walt-server", timeout=patient(150))
        for name in DAEMONS:
            self.assertNotEqual((await self.shown(name))["ActiveState"], "active", name)
        await box.run("systemctl start walt-server", timeout=patient(150))
        await box.run("systemctl stop walt-server", timeout=patient(150))
        for name in DAEMONS:
            self.assertNotEqual((await self.shown(name))["ActiveState"], "active", name)
        for what in ("interfaces", "processes"):

            async def gone(command: str = LEFT[what]) -> bool:
                return not (await box.try_to(command)).stdout

            await box.until(gone, f"no {what} is left", patient(60))
        await box.run(f"{SETUP} --remove", timeout=patient(200))
        self.assertEqual(await box.run("ls /etc/systemd/system | grep walt || true"), "")

    async def registration(self, pids: dict[str, str]) -> None:
        """A machine that asks for an address is recorded, by what dhcpd writes, and restarts it."""
        box = self.box
        await box.run(BESIDE)
        await box.run(ASK, timeout=patient(60))
        mac = json.loads(await box.run("ip -n beside -json link show dev eth2"))[0]["address"]

        (row,) = await box.until(
            lambda: unknown_devices(box, mac), f"{mac} is recorded", patient(60)
        )

        async def restarted() -> bool:
            unit = await self.shown("dhcpd")
            return unit["ActiveState"] == "active" and unit["MainPID"] not in ("0", pids["dhcpd"])

        await box.until(restarted, "dhcpd has its new configuration", patient(60))

        # And named has read its zones again, without a new process.
        async def named() -> bool:
            told = await box.try_to(f"busybox nslookup {row['name']}.walt {SERVER}")
            return row["ip"] in told.stdout.decode()

        await box.until(named, f"named knows {row['name']}", patient(60))
        self.assertEqual((await self.shown("named"))["MainPID"], pids["named"])

    async def killed(self, name: str) -> None:
        """A daemon that is killed comes back, and how it ended is told."""
        pid = (await self.shown(name))["MainPID"]
        await self.box.run(f"kill -9 {pid}")

        async def back() -> bool:
            row = (await self.rows())[name]
            return row["state"] == "running" and row["pid"] not in (None, int(pid)) \
                and row["trouble"] is not None

        await self.box.until(back, f"{name} is back", patient(60))
        self.assertIn("status 9", (await self.rows())[name]["trouble"])

    async def back(self) -> None:
        """Without the runner the daemons are children again, and no unit is left."""
        await self.set_up("children")
        self.assertEqual(
            await self.box.run("ls /etc/systemd/system | grep walt-server-d || true"), ""
        )
        for name in DAEMONS:
            self.assertNotEqual((await self.shown(name))["ActiveState"], "active", name)
        await self.running()

    async def set_up(self, runner: str) -> None:
        """Choose who runs the daemons, as an administrator does."""
        await self.box.run(f"{SETUP} --set services.runner={runner}", timeout=patient(300))
        await self.box.until_active()
        await self.box.run(f"{SETUP} --check", timeout=patient(120))

    async def rows(self) -> dict[str, dict[str, Any]]:
        """Return what the server says of its daemons, by their names."""
        found = json.loads(await self.box.ok("advanced", "services", "--json"))
        return {row["name"]: row for row in found}

    async def running(self) -> dict[str, dict[str, Any]]:
        """Wait until all daemons run; return what the server says of them."""

        async def found() -> dict[str, dict[str, Any]] | None:
            rows = await self.rows()
            return rows if all(row["state"] == "running" for row in rows.values()) else None

        try:
            return await self.box.until(found, "all daemons run", patient(60))
        except AssertionError as error:
            wrong = [row for row in (await self.rows()).values() if row["state"] != "running"]
            told = [await self.told(row["name"]) for row in wrong]
            raise AssertionError(f"{wrong}\n{told}\n{error}") from None

    async def told(self, name: str) -> str:
        """Return the last lines of a daemon, and what systemd did with it, for messages."""
        unit = f"walt-server-{name}.service"
        return await self.box.run(
            f"journalctl --namespace=walt -b --no-pager -o short-precise -u {unit} | tail -n 30;"
            f" journalctl -b --no-pager -o short-precise _PID=1 | grep {unit} | tail -n 20"
        )

    async def shown(self, name: str) -> dict[str, str]:
        """Return what systemd says of the unit of a daemon."""
        told = await self.box.run(
            "systemctl show --property=ActiveState,SubState,MainPID"
            f" walt-server-{name}.service"
        )
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
