"""The service of nodes on port 12346, by busybox alone: it obeys the server, and nobody else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.patience import patient
from tests.system.netns import Namespace, join, short_dir, why_not

SCRIPTS = Path(str(resources.files("walt.node")))
APPLETS = (
    "sh", "cat", "sleep", "readlink", "nc", "mkfifo", "rm", "kill", "dmesg", "grep", "ls", "id",
)
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


def make_tree(tree: Path, server: str) -> Path:
    """Make the root directory of a node of the platform whose server has this address."""
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
    return tree


class NetServiceTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 and shutil.which("bwrap") else "needs root and bubblewrap"

    def ask(self, server: str, way: str) -> str:
        """Return what a node of the platform with this server answers to 127.0.0.1."""
        tree = make_tree(short_dir(self) / "tree", server)
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


class ShellTests(SynchronousTestCase):
    """SHELL, from another network namespace that has the server's address."""

    skip = why_not("bwrap", "ip")

    def start(
        self, *, way: str = "direct", wish: bool = True, vpn: str = "", port: int = 1000,
        room: bool = True,
    ) -> None:
        """Start a node, and ask from a port.

        `vpn`: it has a tunnel, and its way to the server is by that interface; `room`: there is
        some in /run.
        """
        self.node, self.server = Namespace(self), Namespace(self)
        for name, subnet in (("eth0", "10.9.1"), ("walt-vpn", "10.9.2")):
            join(self.node, name, self.server, f"to-{name}")
            self.node.run("ip", "address", "add", f"{subnet}.10/24", "dev", name)
            self.server.run("ip", "address", "add", f"{subnet}.1/24", "dev", f"to-{name}")
        base = short_dir(self)
        tree = make_tree(base / "tree", "10.9.2.1" if vpn == "walt-vpn" else "10.9.1.1")
        handler = tree / "bin/_walt_internal_/walt-net-service-handler"
        # As if time went faster.
        handler.write_text(handler.read_text().replace("idle_limit=15", "idle_limit=2"))
        for name in ("eth0", *(["walt-vpn"] if vpn else [])):
            (tree / "sys/class/net" / name).mkdir(parents=True)
        if room:
            (tree / "run").mkdir()
        else:
            (tree / "run").touch()
        if wish:
            (tree / "etc/walt").mkdir(parents=True)
            (tree / "etc/walt/net-shell").touch()
        listen = LISTEN.rpartition("(printf")[0] + "echo ready; wait"
        service = subprocess.Popen(
            self.node.command(
                "bwrap", "--unshare-pid", "--die-with-parent", "--bind", str(tree), "/",
                "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
                "--setenv", "PATH", "/bin", "--", "/bin/sh", "-c", listen, "sh", way,
            ),
            stdout=subprocess.PIPE,
        )
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)
        assert service.stdout is not None
        self.addCleanup(service.stdout.close)
        self.assertEqual(service.stdout.readline(), b"ready\n")
        self.tree = tree
        with self.server.inside():
            self.peer = socket.socket()
        self.addCleanup(self.peer.close)
        self.peer.settimeout(patient(20))
        self.peer.bind(("", port))
        self.peer.connect(("10.9.2.10" if vpn == "walt-vpn" else "10.9.1.10", 12346))
        self.received = b""

    def until(self, text: bytes) -> bytes:
        """Return what comes up to a text, and forget it."""
        while text not in self.received:
            more = self.peer.recv(4096)
            self.assertNotEqual(more, b"", self.received)
            self.received += more
        before, _, self.received = self.received.partition(text)
        return before

    def rest(self) -> bytes:
        """Return what comes until the node closes."""
        while more := self.peer.recv(4096):
            self.received += more
        return self.received

    def test_session(self) -> None:
        """Commands one by one; what follows the end of the shell is a request again."""
        for way in ("direct", "pipes"):
            self.start(way=way)
            self.peer.sendall(b"MODE multi\nPING\nSHELL\n")
            self.until(b"OK\nOK\n\n")
            self.peer.sendall(b"echo $((6 * 7))\n")
            self.until(b"42\n")
            self.peer.sendall(b"value=kept; ls /none\n")
            self.until(b"No such file")
            self.peer.sendall(b"echo is $value\n")
            self.until(b"is kept\n")
            self.peer.sendall(b"exit\n")
            self.until(b"END-OF-SHELL\n")
            self.peer.sendall(b"PING\nCLOSE\n")
            self.until(b"OK\nOK Closing on my side.\n")
            self.assertEqual(self.rest(), b"")
            self.assertEqual(list((self.tree / "run/walt").iterdir()), [])

    def test_silence(self) -> None:
        """Who types nothing any more is told; what goes on in the shell is ended."""
        for words in (b"", b"echo begun; sleep 1000\n"):
            self.start()
            self.peer.sendall(b"MODE single\nSHELL\n" + words)
            self.until(b"OK\n\n")
            self.until(b"SHELL-TIMEOUT\n")
            self.until(b"END-OF-SHELL\n")
            self.assertEqual(self.rest(), b"")

    def test_peer_that_leaves(self) -> None:
        """The last line counts without its end; nothing goes on for a peer that is gone."""
        self.start()
        self.peer.sendall(b"MODE single\nSHELL\necho here > /tmp/x; cat /tmp/x")
        self.peer.shutdown(socket.SHUT_WR)
        told = self.rest()
        self.assertIn(b"here\n", told)
        self.assertTrue(told.endswith(b"END-OF-SHELL\n"), told)
        self.assertNotIn(b"SHELL-TIMEOUT", told)

    def refused(self, reason: bytes, **how: Any) -> None:
        """Look at the answer of a node that gives no shell, and executes nothing."""
        self.start(**how)
        self.peer.sendall(b"MODE multi\nSHELL\necho $((6 * 7)) > /run/executed\nPING\nCLOSE\n")
        self.assertEqual(self.rest(), b"KO " + reason + b"\nOK\nOK Closing on my side.\n")
        self.assertFalse((self.tree / "run/executed").exists())

    def test_image_does_not_ask_for_it(self) -> None:
        """There is no shell but where the image has the file."""
        self.refused(b"/etc/walt/net-shell is not on image", wish=False)

    def test_other_accounts_of_the_server(self) -> None:
        """Its address is not enough: a port that root alone has tells that root asks."""
        for way in ("direct", "pipes"):
            self.refused(
                b"a shell is for root of the server, who asks from a port below 1024", way=way,
                port=1024,
            )

    def test_no_room(self) -> None:
        """Who asks is told."""
        self.start(room=False)
        self.peer.sendall(b"MODE single\nSHELL\n")
        self.until(b"KO there is no room in /run\n")

    def test_outside_the_tunnel(self) -> None:
        """A board with a tunnel has no shell for who has the server's address elsewhere."""
        self.refused(b"this node has no tunnel to the server", vpn="eth0")

    def test_through_the_tunnel(self) -> None:
        """It has one for the server at the other end."""
        self.start(vpn="walt-vpn")
        self.peer.sendall(b"MODE single\nSHELL\nid -u\nexit\n")
        self.until(b"0\n")
        self.until(b"END-OF-SHELL\n")
