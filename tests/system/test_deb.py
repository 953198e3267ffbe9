"""`make deb`: a Debian package with a virtual environment, whose programs work where it is put."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scripts import make_assets, make_deb
from tests.patience import patient
from tests.places import ON_DISK
from tests.system.overlaid import Overlaid

# What is in the package, at its place, in a view of the file system that ends with the shell.
INSIDE = """
set -e
mount -t tmpfs none /opt && mkdir /opt/walt && mount --bind "$1/opt/walt" /opt/walt
shift
exec "$@"
"""
# What set-up and the server make, each in a place that the package knows.
MADE = """
set -e
mkdir -p /etc/walt /etc/skel/.walt /var/lib/walt /var/log/walt /usr/local/share/zsh/site-functions
touch /etc/walt/server.conf /etc/skel/.walt/config
/opt/walt/bin/walt --version
"""

# An upgrade leaves a server alone that runs; the removal takes its sockets along, and what set-up
# made, though there is no configuration any more.
UPGRADED = """
mkdir /run/walt && touch /run/walt/rpc.sock
unit=/etc/systemd/system/walt-server.service conf=/etc/walt/server.conf
touch $unit && mv $conf $conf.kept
apt="apt-get -o Dpkg::Use-Pty=0 --yes"
$apt install --reinstall "$1"
test -e /run/walt/rpc.sock
$apt remove walt-server
test ! -e /run/walt -a ! -e $unit
mv $conf.kept $conf
"""


def why_not() -> str | None:
    """Return why no package can be made here, None if it can."""
    if os.geteuid() != 0:
        return "needs root, for mounts of its own"
    missing = [one for one in ("dpkg-deb", "unshare") if shutil.which(one) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def written() -> dict[str, float | None]:
    """Return when builds and the makers of assets last wrote into the tree, None for never."""
    places = [make_deb.ROOT / name for name in ("build", "walt.egg-info", "dist")]
    return {str(place): place.stat().st_mtime if place.exists() else None
            for place in (*places, make_assets.VENDOR, make_assets.CHECKS)}


class PackageTests(SynchronousTestCase):
    skip = why_not()
    timeout = patient(300)

    def setUp(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="wtdeb", dir=ON_DISK))
        self.addCleanup(shutil.rmtree, self.dir)

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the package."""
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh",
             str(self.dir / "tree"), *argv],
            capture_output=True, text=True, check=False, timeout=patient(60),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.dir)},
        )

    def test_package(self) -> None:
        """It has the programs, with nothing of the place where it was made, and what they need."""
        before = written()
        deb = make_deb.make(self.dir)
        self.assertEqual(written(), before)
        fields = subprocess.run(
            ["dpkg-deb", "--field", str(deb)], capture_output=True, text=True, check=True
        ).stdout
        self.assertIn(f"Version: {make_deb.version()}\n", fields)
        self.assertIn("Depends: python3 (>= 3.", fields)
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(self.dir / "tree")], check=True)
        for program in (self.dir / "tree/opt/walt/bin").glob("walt*"):
            first = program.read_text().splitlines()[0]
            self.assertEqual(first, "#!/opt/walt/bin/python3", program)
        done = self.inside("/opt/walt/bin/walt", "--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(make_deb.version(), done.stdout)
        (installed,) = (self.dir / "tree/opt/walt/lib").glob("python3*/site-packages/walt")
        vendor = installed / "server/http/assets/vendor"
        for name in ("pages.js", "terminal.js", "terminal.css", "LICENSES.txt"):
            self.assertTrue((vendor / name).is_file(), name)
        done = self.inside(
            "/opt/walt/bin/walt-server-setup", "--check", "--config", str(self.dir / "none.conf")
        )
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("commands: /usr/local/bin/walt does not lead to /opt/walt/bin/walt\n",
                      done.stdout)
        self.life(deb)

    def life(self, deb: Path) -> None:
        """Installed, removed with what programs wrote there, purged: settings go, data stay."""
        machine = Overlaid(self)
        apt = ("apt-get", "-o", "Dpkg::Use-Pty=0", "--yes")

        def told(*argv: str) -> str:
            done = machine.run(*argv)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return done.stdout

        self.assertIn("walt-server-setup --help", told(*apt, "install", str(deb)))
        told("sh", "-c", MADE)
        told("sh", "-ec", UPGRADED, "sh", str(deb))
        there = "for one in /opt /opt/walt /usr/local/share/zsh /etc/walt /var/lib/walt" \
            " /etc/skel/.walt; do [ ! -e $one ] || echo $one; done"
        self.assertEqual(told("sh", "-c", there).split(),
                         ["/opt", "/etc/walt", "/var/lib/walt", "/etc/skel/.walt"])
        self.assertIn("stay in /var/lib/walt", told(*apt, "purge", "walt-server"))
        self.assertEqual(told("sh", "-c", there).split(), ["/opt", "/var/lib/walt"])
