"""The service of nodes on port 12346, by busybox alone: it obeys the server, and nobody else."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir

SCRIPTS = Path(str(resources.files("walt.node")))
APPLETS = ("sh", "cat", "sleep", "readlink", "nc", "mkfifo", "rm", "kill", "dmesg", "grep")
# Listens as walt-net-service does, with nc -e or through pipes, and asks once.
LISTEN = """
if [ "$1" = direct ]; then
    nc -ll -p 12346 -e /bin/_walt_internal_/walt-net-service-handler &
else
    mkfifo /tmp/in /tmp/out
    nc -l -p 12346 > /tmp/in < /tmp/out &
    sh -c '/bin/_walt_internal_/walt-net-service-handler '$!' < /tmp/in > /tmp/out' &
fi
until grep -q ":303A 0*:0000 0A" /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
(printf 'MODE multi\\nPING\\nCLOSE\\n'; sleep 2) | nc 127.0.0.1 12346
"""


class NetServiceTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 and shutil.which("bwrap") else "needs root and bubblewrap"

    def ask(self, server: str, way: str) -> str:
        """Return what a node of the platform with this server answers to 127.0.0.1."""
        tree = short_dir(self) / "tree"
        inside = tree / "bin/_walt_internal_"
        inside.mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        for name in APPLETS:
            (tree / "bin" / name).symlink_to("busybox")
        for name in ("walt-script-common", "walt-net-service-handler"):
            shutil.copy(SCRIPTS / name, inside / name)
            (inside / name).chmod(0o755)
        (tree / "bin/walt-env").write_text(
            f"walt_server_ip={server}\nwalt_node_net_service_port=12346\n"
        )
        done = subprocess.run(
            [
                "bwrap", "--unshare-all", "--die-with-parent", "--bind", str(tree), "/",
                "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
                "--setenv", "PATH", "/bin", "--", "/bin/sh", "-c", LISTEN, "sh", way,
            ],
            capture_output=True, check=False, timeout=20,
        )
        return done.stdout.decode() + done.stderr.decode()

    def test_peers(self) -> None:
        """By both ways to listen."""
        for way in ("direct", "pipes"):
            self.assertEqual(
                self.ask("127.0.0.1", way), "OK\nOK Closing on my side.\n", way
            )
            self.assertEqual(
                self.ask("192.168.1.1", way),
                "KO Only the server of the platform may ask. Closing on my side.\n", way,
            )
