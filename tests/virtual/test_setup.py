"""walt-virtual-setup-node, and its service run by two shells in a root of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir, why_not
from walt.common.errors import Invalid, Unavailable
from walt.virtual.setup import DEFAULTS, SERVICE, install

ROOT = Path(__file__).resolve().parents[2]

# What stands for programs of the machine. The node writes what it was called with.
STUBS = {
    "screen": """#!/bin/sh
echo "screen $1 $2" >> /calls
shift 2
rm -f /var/run/walt-virtual-node.pid
"$@" &
until [ -s /var/run/walt-virtual-node.pid ]; do sleep 0.1; done
""",
    "walt-virtual-node": """#!/bin/sh
echo "node $*" >> /calls
while [ "$1" != --pid-path ]; do shift; done
echo $$ > "$2"
trap 'kill $!; exit' TERM
sleep 1000 &
wait
""",
    "writefs": '#!/bin/sh\necho writefs >> /calls\n"$@"\n',
}
SCENARIO = """
mount -t proc proc /proc
service=/etc/init.d/S52waltvirtualnode
run() { echo "== $*"; sh $service "$@" 2>&1; echo "status $?"; }
run
run start
echo WALT_VPN_ENTRYPOINT=none >> /etc/default/walt-vpn-node
run stop
run start
run start
run restart
run stop
echo 1 > /var/run/walt-virtual-node.pid  # left by a crash: it is another program's by now
run stop
echo WALT_VIRTUAL_NODE_MODEL=pc-x86-64 >> /etc/default/walt-vpn-node
echo "WALT_VIRTUAL_ON_VM_REBOOT='sh -c true'" >> /etc/default/walt-vpn-node
rm /bin/writefs
sed -i /_MAC=/d /etc/default/walt-vpn-node
run start
"""
OUTPUT = """== 
status 1
== start
walt-virtual-node: set WALT_VPN_ENTRYPOINT in /etc/default/walt-vpn-node (none: this machine is \
in walt-net itself)
status 1
== stop
walt-virtual-node does not run.
status 0
== start
walt-virtual-node started (screen session walt.virtual.node).
status 0
== start
walt-virtual-node runs already.
status 0
== restart
walt-virtual-node stopped.
walt-virtual-node started (screen session walt.virtual.node).
status 0
== stop
walt-virtual-node stopped.
status 0
== stop
walt-virtual-node does not run.
status 0
== start
walt-virtual-node started (screen session walt.virtual.node).
status 0
"""  # noqa: W291
COMMON = (
    "--log-file /dev/tty1 --pid-path /var/run/walt-virtual-node.pid"
    " --screen-session-path /var/run/walt-virtual-node.screen --log-prefix walt-virtual-node"
)


class InstallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = short_dir(self)
        (self.root / "etc/init.d").mkdir(parents=True)

    def test_installed_once(self) -> None:
        """What is there is kept; a changed service is replaced; it is executable."""
        first = install(self.root)
        self.assertEqual(first[:2], [f"/{SERVICE}: installed", f"/{DEFAULTS}: written"])
        self.assertIn("Now set WALT_VPN_ENTRYPOINT", first[2])
        (self.root / SERVICE).chmod(0o600)
        settings = (self.root / DEFAULTS).read_text()
        self.assertEqual(
            install(self.root, "none")[:2],
            [f"/{SERVICE}: up to date", f"/{DEFAULTS}: kept as it is"],
        )
        self.assertEqual((self.root / DEFAULTS).read_text(), settings)
        self.assertTrue(os.access(self.root / SERVICE, os.X_OK))

    def test_entrypoint(self) -> None:
        """It is written into a file that a shell reads: host names and addresses only."""
        install(self.root, "walt.example.org")
        self.assertIn(
            "\nWALT_VPN_ENTRYPOINT=walt.example.org\n", (self.root / DEFAULTS).read_text()
        )
        for wrong in ("a b", "$(reboot)", "-x", "a\nb", "x" * 300):
            self.assertRaises(Invalid, install, self.root, wrong)

    def test_no_init_scripts(self) -> None:
        """A system without /etc/init.d is told."""
        self.assertRaises(Unavailable, install, self.root / "etc")

    def test_the_command(self) -> None:
        """Only root may run it, and it takes one word."""
        program = "import os, sys; from walt.virtual.setup import main; main()"

        def run(code: str, *words: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, "-c", code, *words], capture_output=True, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
            )
            return done.returncode, done.stderr

        self.assertEqual(run(program, "a", "b")[0], 2)
        self.assertEqual(run(program, "--wrong")[0], 2)
        self.assertEqual(run(program, "--help")[0], 0)
        status, text = run(program.replace("main()", "os.geteuid = lambda: 1; main()"))
        self.assertEqual((status, text), (
            1, "walt-virtual-setup-node: it installs a service: run it as root\n",
        ))


class ServiceTests(SynchronousTestCase):
    skip = why_not("busybox", "dash", "unshare")

    def machine(self) -> Path:
        """Make a root file system with busybox and the programs that the service needs."""
        root = short_dir(self)
        for name in ("bin", "etc/init.d", "dev", "proc", "tmp", "var/run"):
            (root / name).mkdir(parents=True)
        (root / "dev/null").touch()
        (root / "dev/urandom").write_bytes(bytes.fromhex("abcdef0123"))
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for name in ("sh", "cat", "echo", "grep", "kill", "mount", "od", "rm", "sed", "sleep"):
            (root / "bin" / name).symlink_to("busybox")
        for name, text in STUBS.items():
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        (root / "scenario").write_text(SCENARIO)
        install(root)
        return root

    def check(self, root: Path) -> None:
        """Run the scenario; the node and all that it started end with it."""
        done = subprocess.run(
            ["unshare", "--pid", "--mount", "--fork", "--kill-child",
             shutil.which("chroot") or "chroot", str(root), "/bin/sh", "/scenario"],
            capture_output=True, text=True, timeout=60, env={"PATH": "/bin"}, check=False,
        )
        self.assertEqual(re.sub(r"Usage: .*\n", "", done.stdout + done.stderr), OUTPUT)
        mac = "52:54:00:ab:cd:ef"
        node = f"node --net-conf-udhcpc --mac {mac} --model {{}} --on-vm-reboot {{}} {COMMON}"
        arm = node.format("qemu-arm-64", "reboot").replace("node ", "node --attach-usb ", 1)
        screen = "screen -dmS walt.virtual.node"
        self.assertEqual((root / "calls").read_text().splitlines(), [
            "writefs", screen, arm, screen, arm, screen, node.format("pc-x86-64", "sh -c true"),
        ])
        settings = (root / DEFAULTS).read_text().splitlines()
        self.assertEqual(settings.count(f"WALT_VIRTUAL_NODE_MAC={mac}"), 1)

    def test_busybox(self) -> None:
        """As the init of the machine runs it."""
        self.check(self.machine())

    def test_dash(self) -> None:
        """Under another POSIX shell."""
        root = self.machine()
        (root / "bin/sh").unlink()
        shutil.copy(shutil.which("dash") or "", root / "bin/sh")
        listed = subprocess.run(
            ["ldd", root / "bin/sh"], capture_output=True, text=True, check=True
        ).stdout
        for library in re.findall(r"/\S+", listed.replace(str(root), "")):
            if Path(library).is_file():
                (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, root / library[1:])
        self.check(root)
