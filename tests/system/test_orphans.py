"""A server that is killed leaves no daemon behind (design §8, No orphans)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import Namespace, short_dir, why_not


def alive(pid: str) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class OrphansTests(SynchronousTestCase):
    skip = why_not("dhcpd", "named", "in.tftpd", "ip", "nsenter", "setpriv")

    def test_killed_server(self) -> None:
        """dhcpd, named and in.tftpd end with the server that started them."""
        namespace = Namespace(self)
        namespace.run("ip", "link", "add", "walt-net", "type", "bridge")
        namespace.run("ip", "link", "set", "walt-net", "up")
        namespace.run("ip", "address", "add", "192.168.77.1/24", "dev", "walt-net")
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.system.services_child", namespace.name,
             str(short_dir(self))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert server.stdout is not None
        pids = server.stdout.readline().split()
        self.assertTrue(pids and all(alive(pid) for pid in pids), pids)
        server.kill()
        server.communicate(timeout=10)
        end = time.monotonic() + 10
        while any(alive(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual([pid for pid in pids if alive(pid)], [])
