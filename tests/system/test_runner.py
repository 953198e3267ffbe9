"""Daemons as units of a systemd that runs: its orders by D-Bus, its journal, its starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.patience import patient
from tests.system.booted import Booted
from tests.system.netns import why_not

SETUP = str(Path(sys.prefix) / "bin/walt-server-setup")
WALT = str(Path(sys.prefix) / "bin/walt")
WORDS = ("--set", "services.nfs=ganesha", "--set", "network.walt-net.ip=10.77.0.1/24")
DAEMONS = ("dhcpd", "named", "tftpd", "snmpd", "lldpd", "ptpd")
MACS = ("52:54:00:12:34:56", "52:54:00:12:34:57")
# A machine in walt-net.
BESIDE = """
ip netns add beside && ip link add far type veth peer name near
ip link set far netns beside address {mac} && ip -n beside link set far up
ip link set near master walt-net up
"""


class RunnerTests(SynchronousTestCase):
    skip = why_not("unshare", "systemctl", "dbus-daemon", "busybox")
    timeout = patient(600)

    def setUp(self) -> None:
        """Set up a server whose daemons are units."""
        self.machine = Booted(self, wants="walt-server.service")
        self.machine.start()
        # A platform of this machine is not its own.
        self.machine.ok("rm", "-rf", "/etc/walt", "/var/lib/walt", timeout=200)
        self.set_up("systemd", *WORDS)

    def set_up(self, runner: str, *words: str) -> None:
        """Choose who runs the daemons, as an administrator does."""
        self.machine.ok(SETUP, "--set", f"services.runner={runner}", *words, timeout=300)
        self.assertEqual(self.machine.ok(SETUP, "--check"), "Nothing lacks.\n")

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what the server says of its daemons, by their names."""
        found = json.loads(self.machine.ok(WALT, "advanced", "services", "--json"))
        return {row["name"]: row for row in found}

    def shown(self, name: str) -> dict[str, str]:
        """Return what systemd says of the unit of a daemon."""
        told = self.machine.ok(
            "systemctl", "show", "--property=ActiveState,SubState,MainPID,NRestarts",
            f"walt-server-{name}.service",
        )
        return dict(line.split("=", 1) for line in told.splitlines())

    def check_units(self) -> None:
        """Each daemon is the main process of its unit, and answers."""
        self.machine.until(
            lambda: all(one["state"] == "running" for one in self.rows().values()), "all run"
        )
        rows = self.rows()
        for name in DAEMONS:
            unit = self.shown(name)
            self.assertEqual((unit["ActiveState"], unit["SubState"]), ("active", "running"), name)
            self.assertEqual(rows[name]["pid"], int(unit["MainPID"]), name)

    def check_ended(self) -> None:
        """No daemon runs."""
        for name in DAEMONS:
            self.assertEqual(self.shown(name)["MainPID"], "0", name)
        for program in ("dhcpd", "named", "in.tftpd", "snmpd", "lldpd", "ptpd"):
            self.assertEqual(self.machine.run("pgrep", "-x", program).stdout, "", program)

    def test_life(self) -> None:
        """A reboot, a registration, daemons that are killed, a stop."""
        machine = self.machine
        self.check_units()
        # Its journal is as new as the server: journalctl has to find it all the same.
        self.registration(MACS[0])
        machine.power_off()
        machine.start()
        machine.until(
            lambda: machine.run("systemctl", "is-active", "walt-server").stdout == "active\n",
            "the server is active", 120,
        )
        self.check_units()
        self.registration(MACS[1])
        for name in ("dhcpd", "tftpd"):
            self.killed(name)
        self.silent("dhcpd")
        self.check_sandbox()
        machine.ok("systemctl", "stop", "walt-server")
        self.check_ended()
        machine.ok("systemctl", "start", "walt-server")
        self.check_units()

    def check_sandbox(self) -> None:
        """Nothing that they need is refused."""
        units = [f"--unit=walt-server-{name}" for name in DAEMONS]
        told = self.machine.ok(
            "journalctl", "--namespace=walt", "--no-pager", "-o", "cat", *units
        )
        self.assertIn("DHCPACK", told)
        self.assertNotIn("DHCPACK", self.machine.ok("journalctl", "--no-pager", "-o", "cat"))
        wrong = [line for line in told.splitlines() if "not permitted" in line.lower()]
        self.assertEqual(wrong[:5], [])

    def registration(self, mac: str) -> None:
        """A machine that asks for an address is recorded, from the journal; dhcpd is restarted."""
        machine, before = self.machine, {one: self.shown(one) for one in ("dhcpd", "named")}
        machine.ok("sh", "-ec", BESIDE.format(mac=mac))
        machine.until(
            lambda: machine.run(
                "ip", "netns", "exec", "beside", "busybox", "udhcpc", "-n", "-q", "-t", "5",
                "-T", "2", "-s", "/bin/true", "-i", "far",
            ).returncode == 0, "an address is given",
        )
        machine.until(
            lambda: mac in machine.ok(WALT, "device", "show"), f"{mac} is recorded"
        )
        machine.until(
            lambda: mac in machine.ok("cat", "/var/lib/walt/services/dhcpd/dhcpd.conf")
            and self.shown("dhcpd")["MainPID"] not in ("0", before["dhcpd"]["MainPID"]),
            "dhcpd has been restarted",
        )
        machine.until(
            lambda: "Reloaded walt-server-named.service" in machine.ok(
                "journalctl", "--no-pager", "-o", "cat", "_PID=1"
            ), "named reads its zones again",
        )
        self.assertEqual(self.shown("named")["MainPID"], before["named"]["MainPID"])
        self.check_units()

    def killed(self, name: str) -> None:
        """It comes back, by an order of the server, and how it ended is told."""
        pid = self.shown(name)["MainPID"]
        self.machine.ok("kill", "-9", pid)
        self.machine.until(
            lambda: self.rows()[name]["pid"] not in (None, int(pid))
            and self.rows()[name]["trouble"] is not None, f"{name} is back",
        )
        self.assertIn("ended with status 9 (signal)", self.rows()[name]["trouble"])
        self.assertEqual(self.shown(name)["NRestarts"], "0")
        self.check_units()

    def silent(self, name: str) -> None:
        """One that lives and does not answer is started anew."""
        pid = self.shown(name)["MainPID"]
        self.machine.ok("kill", "-STOP", pid)
        self.machine.until(
            lambda: self.shown(name)["MainPID"] not in ("0", pid), f"{name} answers", 200
        )
        self.check_units()

    def test_without_server(self) -> None:
        """A server that is killed takes them with it; children again; all of it removed."""
        machine = self.machine
        pids = {name: self.shown(name)["MainPID"] for name in DAEMONS}
        machine.ok("systemctl", "kill", "--kill-who=main", "--signal=KILL", "walt-server")
        machine.until(
            lambda: machine.run("systemctl", "is-active", "walt-server").stdout == "active\n"
            and all(self.shown(name)["MainPID"] not in ("0", pids[name]) for name in DAEMONS),
            "another server runs", 120,
        )
        self.check_units()
        self.set_up("children")
        for name in DAEMONS:
            self.assertEqual(self.shown(name)["MainPID"], "0", name)
        rows = self.rows()
        self.assertTrue(all(rows[name]["pid"] for name in DAEMONS), rows)
        units = "/etc/systemd/system"
        self.assertEqual(
            [*machine.at(units).glob("walt-server-*")], []
        )
        self.set_up("systemd")
        self.check_units()
        machine.ok(SETUP, "--remove")
        self.check_ended()
        self.assertEqual([*machine.at(units).glob("walt-server*")], [])
