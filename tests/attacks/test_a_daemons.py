"""Daemons that nodes speak to: whoever takes one over by a fault in it has little."""

from __future__ import annotations

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
            return all(rows[name]["pid"] for name in ("dhcpd", "tftpd", "named", "nbdkit",
                                                      "ganesha")) and rows

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
