"""What AppArmor is told of the server's directories."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed, Invalid
from walt.server.adapters.volumes import loop
from walt.server.assembly import confinement
from walt.server.config.model import Paths

NAMES = ("usr.sbin.dhcpd", "usr.sbin.named", "sbin.dhclient")


class ConfinementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.profiles = Path(self.mktemp())
        self.profiles.mkdir()
        for name in NAMES:
            (self.profiles / name).write_text("profile")
        self.dhcpd = self.profiles / "local/usr.sbin.dhcpd"

    def allow(self, paths: Paths, *, enforced: bool = False) -> set[str]:
        """Allow it; return the names of what was written."""
        return {
            one.name for one in confinement.allow(paths, self.profiles, enforced=enforced)
        }

    def test_once(self) -> None:
        """Each profile gets the daemon's directories, once; what the site wrote stays."""
        self.dhcpd.parent.mkdir()
        self.dhcpd.write_text("/srv/site r,")
        self.assertEqual(self.allow(Paths()), {*NAMES})
        self.assertEqual(
            (self.profiles / "local/sbin.dhclient").read_text().splitlines()[1],
            "/var/lib/walt/.*.dhclient.* lrw,",
        )
        self.assertEqual(self.dhcpd.read_text().splitlines(), [
            "/srv/site r,",
            "# WalT server of /var/lib/walt: its configuration and state",
            "/var/lib/walt/services/dhcpd/ r,", "/var/lib/walt/services/dhcpd/** rwlk,",
            "/run/walt/dhcpd/** rwlk,", "# end of /var/lib/walt",
        ])
        self.assertEqual(self.allow(Paths()), set())

    def test_other_directories(self) -> None:
        """Another server has a block of its own; a directory that changed takes its place."""
        self.allow(Paths())
        other = Paths(Path("/srv/walt"), Path("/run/other"))
        self.allow(other)
        self.allow(Paths(other.state, Path("/run/changed")))
        text = self.dhcpd.read_text()
        self.assertEqual(text.count("# end of"), 2)
        self.assertIn("/var/lib/walt/services/dhcpd/** rwlk,\n/run/walt/dhcpd/** rwlk,\n", text)
        self.assertIn("/run/changed/dhcpd/** rwlk,", text)
        self.assertNotIn("/run/other", text)

    def test_no_profile(self) -> None:
        """Nothing is written for a daemon that has no profile."""
        (self.profiles / "usr.sbin.dhcpd").unlink()
        self.assertEqual(self.allow(Paths()), {*NAMES} - {"usr.sbin.dhcpd"})

    def test_the_kernel_reads_it(self) -> None:
        """The profiles are read again; what could not be is tried by the next call."""
        called: list[list[str]] = []
        self.patch(confinement, "run", lambda argv: called.append(argv))
        self.allow(Paths(), enforced=True)
        self.assertEqual(called, [
            ["apparmor_parser", "--replace", str(self.profiles / name)] for name in NAMES
        ])

        def fails(argv: list[str]) -> str:
            raise CommandFailed("apparmor_parser failed")

        self.patch(confinement, "run", fails)
        other = Paths(Path("/srv/walt"))
        self.assertRaises(CommandFailed, self.allow, other, enforced=True)
        self.patch(confinement, "run", loop.run)
        self.assertEqual(self.allow(other), {*NAMES})

    def test_patterns(self) -> None:
        """A directory whose name would be a pattern, or a rule, is refused."""
        for name in ("/srv/*", "/srv/a b", '/srv/"', "/srv/a,\n/** rwx", "/srv/{a,b}"):
            self.assertRaises(Invalid, self.allow, Paths(Path(name)))
