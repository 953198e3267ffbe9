"""What a program sees in narrow mounts: what it was given, and the system, read-only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.places import ON_DISK
from walt.server.adapters.podman import narrow

LOOK = r"""
set -u
see() { "$@" 2>/dev/null && echo "HAD $*"; }
see cat "$1/secret"
see cat /etc/shadow
see ls /root/.
see cat /proc/1/root"$1/secret"
see sh -c 'echo x > /proc/sys/kernel/domainname'
see sh -c 'echo h > /proc/sysrq-trigger'
see sh -c 'echo x > /sys/kernel/uevent_helper'
see sh -c 'echo x > /usr/made'
for one in /sys/fs/cgroup/*/release_agent; do
    echo /x > "$one"; [ "$(cat "$one" 2>/dev/null)" = /x ] && echo "HAD agent"
done
ls /dev | grep -E '^(sd|vd|nvme|loop|mem|kmsg)' && echo "HAD disks"
cat "$1/given/file"
echo more >> "$1/given/file" && echo written
grep -c nameserver /etc/resolv.conf
test -e /dev/null && test -d /dev/shm && echo devices
"""


class NarrowTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 else "needs root"

    def test_what_is_seen(self) -> None:
        """Neither secrets nor ways to change the machine; the directories given, to write."""
        base = Path(subprocess.run(
            ["mktemp", "-d", f"{ON_DISK}/narrow-XXXXXX"], capture_output=True, text=True, check=True
        ).stdout.strip())
        self.addCleanup(subprocess.run, ["rm", "-rf", str(base)], check=True)
        (base / "secret").write_text("of the server")
        (base / "given").mkdir()
        (base / "given/file").write_text("content\n")
        (base / "root").mkdir()
        what = {"read": [], "write": [str(base / "given")]}
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "--", sys.executable, "-I",
             narrow.__file__, json.dumps(what), str(base / "root"), "sh", "-c", LOOK, "sh",
             str(base)],
            capture_output=True, text=True, timeout=30, check=False,
        )
        told = done.stdout + done.stderr
        self.assertNotIn("HAD", told)
        self.assertIn("content\nwritten\n", told)
        self.assertTrue(told.endswith("devices\n"), told)
        servers = Path("/etc/resolv.conf").read_text().count("nameserver")
        self.assertIn(f"\n{servers}\n", told)
        self.assertEqual((base / "given/file").read_text(), "content\nmore\n")
        self.assertEqual(list((base / "root").iterdir()), [])
