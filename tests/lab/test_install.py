"""Installed from the wheel on a Debian with systemd, AppArmor and the kernel's NFS server."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from tests.lab.box import Box
from tests.lab.installed import installed, why_not
from tests.patience import patient

STATE = "/var/lib/walt"
# What a stopped server must not leave, each a command that says nothing then.
LEFT = {
    "mounts": "grep /var/lib/walt /proc/self/mounts",
    "exports": "exportfs -s",
    "interfaces": "ip -o link show | grep -E 'walt|wt[0-9]|dummy'",
    "port of a bridge": "ip -o link show dev eth1 | grep master",
    "filter": "nft list tables | grep walt",
    "processes": "pgrep -a -f '/run/walt|/var/lib/walt' | grep -v pgrep",
    "loop devices": "losetup --noheadings --list",
}


class InstallTests(TestCase):
    skip = why_not()
    timeout = patient(900)

    async def test_boot(self) -> None:
        """After the reboot the server is there; a board boots from the kernel's NFS; stop."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        rows = {row["name"]: row for row in json.loads(
            await box.ok("advanced", "services", "--json")
        )}
        self.assertNotIn("ganesha", rows)
        for row in rows.values():
            self.assertEqual((row["state"], row["restarts"]), ("running", 0), row)
        board = box.board()
        board.boot()
        node = await booted(box, board.mac)
        mounted = await box.ok("node", "run", node, "--", "cat", "/proc/mounts")
        nfs = [line for line in mounted.splitlines() if " nfs4 " in line]
        self.assertTrue(any(f"{STATE}/images/" in line and " ro," in line for line in nfs), mounted)
        self.assertTrue(any(" /persist " in line and " rw," in line for line in nfs), mounted)
        for line in nfs:
            self.assertIn("vers=4.1", line)
        await box.ok("node", "run", node, "--", "echo kept > /persist/kept")
        # What set-up made has survived a start, and nodes boot: all else would be told here.
        await box.run("/opt/walt/bin/walt-server-setup --check", timeout=patient(120))
        told = await box.run("/usr/local/bin/walt doctor", timeout=patient(200))
        self.assertIn("ok      AppArmor", told)
        self.assertIn("ok      NFS: the NFS server answers nodes", told)
        exports = await box.run("exportfs -s")
        self.assertEqual(exports.count("/images/"), 1, exports)
        enforced = await box.run("aa-status --profiled && aa-status | grep -E 'dhcpd|named'")
        for daemon in ("dhcpd", "named"):
            self.assertIn(daemon, enforced)
        denied = "journalctl -b --no-pager -o cat | grep 'apparmor=\"DENIED\"' || true"
        self.assertEqual(await box.run(denied), "")
        await board.cut()
        await box.run("systemctl stop walt-server", timeout=patient(150))
        for what, command in LEFT.items():

            async def gone(command: str = command) -> bool:
                return not (await box.try_to(command)).stdout

            # The kernel's NFS server lets go of what it has open in its own time.
            await box.until(gone, f"no {what} is left", patient(60))


async def booted(box: Box, mac: str) -> str:
    """Wait until a board is a booted node; return its name."""

    async def found() -> str | None:
        tables = json.loads(await box.ok("node", "show", "--all", "--json"))
        rows = [row for table in tables.values() for row in table] \
            if isinstance(tables, dict) else tables
        for row in rows:
            if row["mac"] == mac and row["booted"]:
                return str(row["name"])
        return None

    return str(await box.until(found, f"{mac} is booted", patient(180), every=2.0))


async def unknown_devices(box: Box, mac: str) -> list[dict[str, Any]]:
    """Return the rows of a device whose type nobody knows."""
    tables = json.loads(await box.ok("device", "show", "--json"))
    return [row for row in tables["unknown"] if row["mac"] == mac]
