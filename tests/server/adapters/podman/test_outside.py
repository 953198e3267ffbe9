"""The network of builds: its filter, and what it is made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import Namespace, why_not
from walt.server.adapters.podman import outside
from walt.server.adapters.podman.builder import control_groups, registries_only
from walt.server.adapters.podman.surroundings import CHROOT_WARNING, OUTSIDE, Surroundings


class PartsTests(SynchronousTestCase):
    def test_local_networks(self) -> None:
        """Addresses of the machine; neither what it reaches nor a transparent proxy's route."""
        routes = [
            {"dst": "default", "gateway": "10.0.0.1"}, {"dst": "10.0.0.0/24", "dev": "eth0"},
            {"type": "local", "dst": "10.0.0.2"}, {"type": "broadcast", "dst": "10.0.0.255"},
            {"type": "local", "dst": "127.0.0.0/8"}, {"type": "local", "dst": "default"},
        ]
        self.assertEqual(
            [str(one) for one in outside.local_networks(json.dumps(routes))],
            ["10.0.0.2/32", "10.0.0.255/32", "127.0.0.0/8"],
        )
        self.assertEqual(outside.local_networks(""), [])

    def test_resolv_conf(self) -> None:
        """The search list stays, the resolvers of the machine do not."""
        self.assertEqual(
            outside.resolv_conf("# x\nnameserver 127.0.0.53\nsearch a.example\noptions edns0\n\n"),
            f"nameserver {outside.RESOLVER}\nsearch a.example\noptions edns0\n",
        )

    def test_policy(self) -> None:
        """What the site says stays; files and daemons are refused, whatever it says."""
        site = {
            "default": [{"type": "reject"}],
            "transports": {"docker": {"a.example": [{"type": "x"}]}, "dir": {"": [{"type": "x"}]}},
        }
        made = registries_only(site)
        self.assertEqual(made["default"], site["default"])
        self.assertEqual(made["transports"]["docker"], {"a.example": [{"type": "x"}]})
        for name in ("dir", "oci-archive", "docker-daemon"):
            self.assertEqual(made["transports"][name], {"": [{"type": "reject"}]})
        for odd in (None, [], {"transports": []}):
            self.assertEqual(registries_only(odd)["default"], [{"type": "insecureAcceptAnything"}])

    def test_control_groups(self) -> None:
        """Those that containers of a killed build leave, by hierarchy."""
        place = Path(self.mktemp())
        (place / "tmp" / "buildah12").mkdir(parents=True)
        own = place / "cgroup"
        own.write_text("4:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/x\n")
        root = Path("/groups")
        self.assertEqual(control_groups(place, own, root), [
            root / one / "buildah-buildah12" for one in (
                "cpu,cpuacct/a/b", "cpu,cpuacct", "systemd", "unified/x", "unified", "x", "",
            )
        ])
        self.assertEqual(control_groups(place / "none", own, root), [])

    def test_capabilities(self) -> None:
        """Runtimes attach filters of devices with cgroup 2: they keep the right to do that."""
        controllers = Path(self.mktemp())
        self.assertEqual(outside.dropped(controllers), (12, 13))
        controllers.write_text("cpu memory\n")
        self.assertEqual(outside.dropped(controllers), (13,))

    def test_surroundings(self) -> None:
        """A chroot is warned of; networks are words of the program, IPv4 alone."""
        self.assertIsNone(Surroundings().warning)
        self.assertEqual(Surroundings("chroot").warning, CHROOT_WARNING)
        self.assertIn("CAP_SYS_CHROOT", Surroundings("chroot").options())
        around = Surroundings(closed=(IPv4Network("192.168.7.0/24"),)).around(["true"])
        self.assertEqual(around[-4:], ["--closed", "192.168.7.0/24", "--", "true"])


class NetworkTests(SynchronousTestCase):
    skip = why_not("nft", "ip", "slirp4netns", "unshare")

    def run_inside(self, namespace: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a network that was made in a namespace."""
        return subprocess.run(
            namespace.command(
                "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--",
                sys.executable, "-I", str(OUTSIDE), *words,
            ),
            capture_output=True, text=True, timeout=60, check=False,
        )

    def test_status_and_end(self) -> None:
        """The status is the program's; what it could change the network with is missing."""
        namespace = Namespace(self)
        done = self.run_inside(namespace, "--", "sh", "-c", "ip link show tap0 && exit 3")
        self.assertEqual((done.returncode, done.stderr), (3, ""))
        self.assertIn("tap0", done.stdout)
        self.assertEqual(self.run_inside(namespace, "--", "sh", "-c", "kill -9 $$").returncode, 137)
        for attack in ("nft flush ruleset", "ip route del default", "ping -c 1 127.0.0.1",
                       "nsenter --net=/proc/1/ns/net true && ip link set tap0 down"):
            self.assertNotEqual(self.run_inside(namespace, "--", "sh", "-c", attack).returncode, 0)

    def test_troubles(self) -> None:
        """They are told, and the program does not run."""
        namespace = Namespace(self)
        done = self.run_inside(namespace, "--", "no-such-program")
        self.assertEqual((done.returncode, done.stderr),
                         (127, "no-such-program is missing on the server\n"))
        hidden = shutil.which("slirp4netns")
        assert hidden is not None
        done = subprocess.run(
            namespace.command(
                "unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c",
                'mount --bind /dev/null "$0" && exec "$@"', hidden,
                sys.executable, "-I", str(OUTSIDE), "--", "echo", "ran",
            ),
            capture_output=True, text=True, timeout=60, check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (outside.FAILED, ""))
        self.assertIn("The network of builds cannot be made: ", done.stderr)
