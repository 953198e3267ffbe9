"""Daemons that nodes speak to: whoever takes one over by a fault in it has little."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

# chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid, mknod, setfcap
FILES = (0, 1, 2, 3, 4, 6, 7, 27, 31)


class DaemonTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_rights(self) -> None:
        """None is root but ganesha, which has what files want; none gets new rights."""
        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()

        async def all_run() -> Any:
            rows = await platform.services()
            names = ("dhcpd", "tftpd", "named", "nbdkit", "ganesha")
            # Its launcher becomes ganesha when all is prepared.
            return all(rows[name]["pid"] for name in names) and "ganesha" in Path(
                f"/proc/{rows['ganesha']['pid']}/comm"
            ).read_text() and rows

        rows = await platform.until(all_run, "the daemons run", 60)
        for name in ("dhcpd", "tftpd", "named", "nbdkit"):
            pid = rows[name]["pid"]
            for process in (pid, *self.children(pid)):
                numbers = self.status(process)["Uid"].split()
                self.assertNotIn("0", numbers, (name, process))
        ganesha = self.status(rows["ganesha"]["pid"])
        allowed = sum(1 << number for number in FILES)
        for kind in ("CapBnd", "CapPrm", "CapEff", "CapInh"):
            self.assertEqual(int(ganesha[kind], 16) & ~allowed, 0, kind)
        for name in ("tftpd", "nbdkit", "ganesha"):
            self.assertEqual(self.status(rows[name]["pid"])["NoNewPrivs"], "1", name)

        self.view(platform, rows["ganesha"]["pid"])

    def view(self, platform: LivePlatform, pid: int) -> None:
        """Ganesha sees what it exports and what it needs to run, whatever it asks for."""
        root = Path(f"/proc/{pid}/root")
        self.assertLessEqual(
            set(os.listdir(root)) - {"sys", "tmp"},
            {"bin", "dev", "etc", "lib", "lib64", "proc", "usr", platform.base.parts[1]},
        )
        state = f"{root}{platform.state}"
        self.assertEqual(set(os.listdir(state)), {"images", "nodes", "services", "volumes"})
        self.assertEqual(os.listdir(f"{state}/volumes/images"), ["links"])
        self.assertEqual(os.listdir(f"{state}/services"), ["ganesha"])
        self.assertEqual(os.listdir(f"{root}{platform.base}/r"), ["ganesha"])
        for hidden in ("/etc/shadow", "/root", "/home", "/var/lib", "/etc/ssh", "/dev/vda",
                       "/dev/mem", "/proc/1", "/run"):
            self.assertFalse(os.path.lexists(f"{root}{hidden}"), hidden)
        block = [one for one in Path(f"{root}/dev").iterdir() if one.is_block_device()]
        self.assertEqual({os.major(one.stat().st_rdev) for one in block}, {7})
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        for line in mounts:
            # Where it could make a device, none can be used; what others write too is elsewhere.
            point, flags = line.split()[4:6]
            if not point.startswith(("/dev/", "/proc/")):
                self.assertTrue({"nodev", "ro"} & set(flags.split(",")), line)
        self.assertNotIn("shared:", "".join(mounts))

    def status(self, pid: int) -> dict[str, str]:
        """Return what the kernel tells of a process."""
        text = Path(f"/proc/{pid}/status").read_text()
        return dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE))

    def children(self, pid: int) -> list[int]:
        """Return the processes that a process has started."""
        return [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir()
            for one in (task / "children").read_text().split()
        ]
