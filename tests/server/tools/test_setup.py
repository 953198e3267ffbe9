"""walt-server-setup, on a machine in memory: what it does, again, after a cut, and back."""

from __future__ import annotations

import io
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scripts.programs import parse_variable
from tests.fakes.programs import Cut, FakePrograms
from tests.patience import patient
from walt.server.tools.setup.debian import GANESHA, PACKAGES, POLICY, SOURCES
from walt.server.tools.setup.machine import Machine
from walt.server.tools.setup.main import main
from walt.server.tools.setup.systemd import UNIT

REPOSITORY = Path(__file__).resolve().parents[3]
CONF = "etc/walt/server.conf"
UNITS = "etc/systemd/system"


class Site:
    """A Debian with systemd and the kernel's NFS server, in a directory."""

    def __init__(self, root: Path, release: str = "bookworm") -> None:
        self.root = root
        self.programs = FakePrograms(root)
        for path, text in (
            ("etc/os-release", f'ID=debian\nVERSION_CODENAME="{release}"\n'),
            ("run/systemd/system/.here", ""), ("proc/filesystems", "nodev\tnfsd\n"),
            ("etc/apparmor.d/usr.sbin.dhcpd", "profile"),
            ("etc/apparmor.d/usr.sbin.named", "profile"),
        ):
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def text(self, path: str) -> str:
        """Return the text of a file there."""
        return (self.root / path).read_text()

    def call(self, *words: str) -> tuple[int, str, str]:
        """Run the command; return its status and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(words, Machine(self.programs, self.root))
        return status, out.getvalue(), err.getvalue()

    def files(self) -> dict[str, str]:
        """Return all files but logs and the lock, with what they hold or lead to."""
        return {
            str(one.relative_to(self.root)):
                str(one.readlink()) if one.is_symlink() else one.read_text()
            for one in self.root.rglob("*")
            if (one.is_symlink() or one.is_file())
            and not str(one.relative_to(self.root)).startswith(("var/log/", "run/"))
        }


class SetupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "geteuid", lambda: 0)

    def site(self, release: str = "bookworm") -> Site:
        """Return a new machine."""
        return Site(Path(self.mktemp()).absolute(), release)

    def done(self, site: Site, *words: str) -> str:
        """Run the command, which must succeed; return what it printed."""
        status, out, err = site.call(*words)
        self.assertEqual((status, err), (0, ""), out)
        return out

    def test_install(self) -> None:
        """Both releases: everything is there, in an order that works, and the server runs."""
        for release in ("bookworm", "trixie"):
            site = self.site(release)
            self.done(site)
            programs = site.programs
            self.assertTrue({*PACKAGES, "nfs-kernel-server"} <= programs.packages)
            self.assertFalse(set(GANESHA) & programs.packages)
            self.assertEqual(programs.enabled, {UNIT, "nfs-kernel-server.service"})
            self.assertEqual(programs.active, {UNIT, "nfs-kernel-server.service"})
            self.assertIn("walt-dhcp", programs.known["passwd"])
            self.assertIn("walt", programs.known["group"])
            self.assertIn("ip: 192.168.183.1/24", site.text(CONF))
            self.assertIn(
                "/var/lib/walt/services/dhcpd/** rwlk",
                site.text("etc/apparmor.d/local/usr.sbin.dhcpd"),
            )
            self.assertTrue((site.root / "usr/local/bin/walt").is_symlink())
            self.assertIn("_walt_table", site.text("etc/bash_completion.d/walt"))
            self.assertTrue(site.text("usr/local/share/zsh/site-functions/_walt")
                            .startswith("#compdef walt"))
            start = programs.calls.index(("systemctl", "start", UNIT))
            self.assertLess(
                programs.calls.index(("systemctl", "start", "nfs-kernel-server.service")), start
            )
            self.assertLess(programs.calls.index(("systemctl", "daemon-reload")), start)
            self.assertEqual(programs.policies, [False, True])  # update, install
            self.assertFalse((site.root / POLICY.lstrip("/")).exists())

    def test_vpn(self) -> None:
        """Where server.conf asks for it: sshd, its account and home; an older authority moves."""
        site = self.site()
        site.write("var/lib/walt/vpn/vpn-ca-key", "secret")
        site.write("var/lib/walt/vpn/vpn-ca-key.pub", "public")
        self.done(
            site, "--set", "vpn={ssh-entrypoint: a.org, http-entrypoint: a.org,"
            " boot-mode: permissive}",
        )
        self.assertIn("openssh-server", site.programs.packages)
        (made,) = [one for one in site.programs.calls
                   if one[0] == "useradd" and one[-1] == "walt-vpn"]
        self.assertIn("/bin/sh", made)
        self.assertTrue((site.root / "var/lib/walt/vpn-endpoint").is_dir())
        self.assertEqual(site.text("var/lib/walt/vpn-server/vpn-ca-key"), "secret")
        self.assertEqual(site.text("var/lib/walt/vpn-server/vpn-ca-key.pub"), "public")
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))
        self.done(site)
        without = self.site()
        self.done(without)
        self.assertNotIn("openssh-server", without.programs.packages)
        self.assertNotIn("walt-vpn", without.programs.known["passwd"])

    def test_the_unit(self) -> None:
        """It starts this installation, with the environment of the site."""
        site = self.site()
        self.done(site)
        unit = site.text(f"{UNITS}/{UNIT}")
        daemon = (site.root / "usr/local/bin/walt-server-daemon").readlink()
        self.assertIn(
            f"ExecStart={daemon} --config /etc/walt/server.conf $DAEMON_ARGS\n", unit
        )
        self.assertIn("EnvironmentFile=-/etc/walt/server.env\n", unit)
        self.assertNotIn("/opt/walt/bin", unit)
        self.assertIn("Type=notify\n", unit)

    def test_runner(self) -> None:
        """Units of daemons come with `services.runner: systemd`, and go without."""
        site = self.site()
        self.done(site, "--set", "services.runner=systemd", "--set", "services.ptp.enabled=false")
        names = ("dhcpd", "named", "tftpd", "snmpd", "lldpd")
        there = {f"{UNITS}/walt-server-{name}.service" for name in names}
        self.assertEqual({one for one in site.files() if "/walt-server-" in one
                          and one.startswith(UNITS)}, there)
        drop_in, journal = f"{UNITS}/{UNIT}.d/daemons.conf", "etc/systemd/journald@walt.conf"
        self.assertIn("SystemMaxUse=", site.text(journal))
        self.assertIn("\nWants=systemd-journald@walt.service\n", site.text(drop_in))
        self.assertIn("stop walt-server-dhcpd.service walt-server-named", site.text(drop_in))
        programs = site.programs
        reload = len(programs.calls) - programs.calls[::-1].index(("systemctl", "daemon-reload"))
        self.assertLess(reload, programs.calls.index(("systemctl", "start", UNIT)))
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))
        site.write(f"{UNITS}/walt-server-dhcpd.service", site.text(
            f"{UNITS}/walt-server-dhcpd.service"
        ).replace("strict", "no"))
        self.assertIn("walt-server-dhcpd.service is not current", site.call("--check")[1])
        self.done(site)
        # Back: the server lets go of them before they end.
        programs.active |= {Path(one).name for one in there}
        site.programs.started = 1
        programs.calls.clear()
        self.done(site, "--set", "services.runner=children")
        calls = programs.calls
        self.assertLess(
            calls.index(("systemctl", "restart", UNIT)),
            next(number for number, one in enumerate(calls) if one[:2] == ("systemctl", "stop")),
        )
        self.assertFalse([one for one in site.files() if one in {*there, drop_in, journal}])
        others = {"dbus.socket", "nfs-kernel-server.service"}
        self.assertEqual(programs.active, {UNIT, *others})
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))
        # And with everything else.
        self.done(site, "--set", "services.runner=systemd")
        programs.active |= {Path(one).name for one in there}
        self.done(site, "--remove")
        self.assertFalse([one for one in site.files() if one in {*there, drop_in, journal}])
        self.assertEqual(programs.active, others)

    def test_units_of_daemons(self) -> None:
        """Ours is what they run; the order, the conditions, and what systemd says of them."""
        site = self.site()
        self.done(site, "--set", "services.runner=systemd", "--set", "state-dir=/srv/walt")
        programs = (site.root / "usr/local/bin/walt-server-dhcpd").readlink().parent
        for name in ("dhcpd", "named", "tftpd", "snmpd", "lldpd", "ptpd"):
            text = site.text(f"{UNITS}/walt-server-{name}.service")
            self.assertIn(f"ExecStart={programs}/walt-server-{name}\n", text)
            self.assertIn("Environment=WALT_SERVER_CONF=/etc/walt/server.conf\n", text)
            self.assertIn("ReadWritePaths=-/srv/walt/services -/run/walt\n", text)
            self.assertNotIn("/etc/dhcp", text)
            # What nodes make it write stays out of the machine's journal.
            self.assertIn("LogNamespace=walt\n", text)
            self.assertEqual("/sys/class/net/walt-net" in text, name in ("dhcpd", "named", "ptpd"))
            done = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                 str(site.root / f"{UNITS}/walt-server-{name}.service")],
                capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=patient(60),
                check=False,
            )
            wrong = [line for line in done.stderr.splitlines() if f"walt-server-{name}" in line]
            self.assertEqual(wrong, [])
        self.assertIn(
            "ConditionPathExists=/srv/walt/services/dhcpd/dhcpd.conf\n",
            site.text(f"{UNITS}/walt-server-dhcpd.service"),
        )
        self.assertIn("After=sysinit.target network.target walt-server-snmpd.service\n",
                      site.text(f"{UNITS}/walt-server-lldpd.service"))
        self.assertIn("ExecReload=", site.text(f"{UNITS}/walt-server-named.service"))

    def test_paths_that_units_misread(self) -> None:
        """A place with characters that mean something to systemd is refused in words."""
        for config in ("/etc/walt/a b.conf", "/etc/walt/%h.conf", "/etc/walt/$a.conf"):
            status, _, err = self.site().call("--config", config)
            self.assertEqual(status, 1)
            self.assertIn(f"{config} cannot be named plainly in units", err)

    def test_again(self) -> None:
        """A second call changes nothing, and --check says that nothing lacks."""
        site = self.site()
        self.assertEqual(site.call("--check")[0], 1)
        self.assertNotIn(CONF, site.files())
        self.done(site)
        before, states = site.files(), (set(site.programs.enabled), set(site.programs.active))
        site.programs.calls.clear()
        self.done(site)
        self.assertEqual(site.files(), before)
        self.assertEqual((site.programs.enabled, site.programs.active), states)
        changing = {"apt-get", "useradd", "groupadd"}
        self.assertFalse([one for one in site.programs.calls if one[0] in changing])
        self.assertFalse([one for one in site.programs.calls if "restart" in one])
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))

    def test_cut(self) -> None:
        """Killed before any of its programs, the next call goes on to the same end."""
        whole = self.site()
        self.done(whole)
        expected = {
            path: text.replace(str(whole.root), "") for path, text in whole.files().items()
        }
        self.assertGreater(len(whole.programs.calls), 40)
        for at in range(len(whole.programs.calls)):
            site = self.site()
            site.programs.cut_at = at
            with self.assertRaises(Cut):
                site.call()
            site.programs.cut_at = None
            self.done(site)
            self.assertEqual(site.files(), expected, at)
            self.assertEqual(site.programs.enabled, whole.programs.enabled, at)
            self.assertEqual(site.programs.active, whole.programs.active, at)

    def test_check_tells_each_thing(self) -> None:
        """What went wrong later is told by name, nothing is changed, and a call mends it."""
        site = self.site()
        self.done(site)
        programs = site.programs

        def old_unit() -> None:
            site.write(f"{UNITS}/walt-server-dhcpd.service", "[Unit]\n")

        for spoil, told in (
            (lambda: programs.packages.discard("bind9"), "package bind9 is not installed"),
            (lambda: programs.known["group"].discard("walt"), "group walt is missing"),
            (lambda: programs.enabled.add("named.service"), "named.service starts at boot"),
            (lambda: programs.active.add("tftpd-hpa.service"), "tftpd-hpa.service runs"),
            (lambda: programs.enabled.discard(UNIT), f"{UNIT} does not start at boot"),
            (lambda: programs.active.discard(UNIT), f"{UNIT} does not run"),
            (lambda: programs.active.discard("nfs-kernel-server.service"),
             "nfs-kernel-server.service does not run"),
            (lambda: site.write("etc/apparmor.d/local/usr.sbin.named", ""), "usr.sbin.named lacks"),
            (lambda: site.write(f"{UNITS}/{UNIT}", "[Unit]\n"), f"{UNIT} is not current"),
            (old_unit, "walt-server-dhcpd.service belongs to an older version"),
            (lambda: (site.root / "usr/local/bin/walt").unlink(), "bin/walt does not lead to"),
            (lambda: site.write("etc/bash_completion.d/walt", ""), "completion.d/walt is not"),
            (lambda: site.write("etc/containers/registries.conf.d/walt.conf", ""), "walt.conf is"),
            (lambda: (site.root / "etc/walt/server.env").unlink(), "server.env is missing"),
        ):
            spoil()
            before = site.files()
            status, out, _ = site.call("--check")
            self.assertEqual(status, 1)
            self.assertIn(told, out)
            self.assertEqual(site.files(), before)
            self.done(site)
            self.assertEqual(site.call("--check")[0], 0, told)

    def test_a_changed_configuration(self) -> None:
        """A server that runs since before it changed is restarted, once."""
        site = self.site()
        self.done(site)
        site.programs.started = 1
        status, out, _ = site.call("--check")
        self.assertEqual(status, 1)
        self.assertIn("runs since before /etc/walt/server.conf was changed", out)
        site.programs.calls.clear()
        self.done(site)
        restarts = [one for one in site.programs.calls if one[1] == "restart"]
        self.assertEqual(restarts, [("systemctl", "restart", UNIT)])

    def test_comments_survive(self) -> None:
        """--set changes one value; comments, order and quotes of the file stay."""
        site = self.site()
        site.write(CONF, """\
# our lab
network:
  walt-net:   # the boards
    ip: "10.9.0.1/16"
    raw-device: eth1  # left socket

boot:
    reconnect-grace: 60
""")
        self.done(
            site, "--set", "network.walt-net.vlan=12", "--set", "boot.reconnect-grace=",
            "--set", "security.names=[lab.example]",
        )
        text = site.text(CONF)
        for line in ("# our lab\n", "walt-net:   # the boards", 'ip: "10.9.0.1/16"',
                     "raw-device: eth1  # left socket", "vlan: 12\n"):
            self.assertIn(line, text)
        self.assertNotIn("reconnect-grace", text)
        self.done(site)
        self.assertEqual(site.text(CONF), text)

    def test_refusals(self) -> None:
        """Nothing is changed; the status is 1, and the reason is told."""
        for words, told in (
            (("--set", "network.walt-net.ip=nonsense"), "expected an address with its prefix"),
            (("--set", "network"), "is no change of server.conf"),
            (("--set", "a.b=[1"), "not a value"),
            (("--set", "network.walt-net.ip.more=1"), "expected an address with its prefix"),
            (("--set", "colour=blue"), "colour: unknown key"),
            (("--mode", "UPGRADE"), "no server to upgrade"),
            (("--config", "/etc/my walt/server.conf"), "choose a path of letters, digits"),
            (("--prefix", "/opt/100%"), "choose a path of letters, digits"),
            (("--check", "--set", "boot.reconnect-grace=1"), "--check changes nothing"),
            (("--debian-mirror", "http://a.example/x\nTrusted: yes"), "no address of a mirror"),
            (("--debian-mirror=-o",), "no address of a mirror"),
            (("--debian-mirror", "http:/a.example/debian"), "no address of a mirror"),
            (("--debian-mirror", "http:///debian"), "no address of a mirror"),
            (("--debian-mirror", "file:debian"), "no address of a mirror"),
            (("--debian-mirror", "https://ann:secret@a.example/debian"), "/etc/apt/auth.conf.d"),
        ):
            site = self.site()
            before = site.files()
            status, _, err = site.call(*words)
            self.assertEqual(status, 1, words)
            self.assertIn(told, err)
            self.assertNotIn("secret", err)
            self.assertEqual(site.files(), before, words)
            self.assertFalse([one for one in site.programs.calls if one[0] == "apt-get"])

    def test_a_file_that_is_wrong(self) -> None:
        """A server.conf with errors is told with all of them, and stays."""
        site = self.site()
        for text, told in (
            ("network: {}\nboot: {reconnect-grace: soon}\n", "reconnect-grace: expected"),
            ("network: [\n", "not valid YAML"), ("- 1\n", "expected a mapping"),
        ):
            site.write(CONF, text)
            for words in ((), ("--check",), ("--set", "boot.reconnect-grace=1")):
                status, _, err = site.call(*words)
                self.assertEqual(status, 1, text)
                if not words:
                    self.assertIn(told, err)
                self.assertEqual(site.text(CONF), text)

    def test_other_systems(self) -> None:
        """Other releases, and people who are not root, are told."""
        for name, words in (
            ("bullseye", "this is Debian 11 (bullseye); WalT servers run on Debian bookworm or"
             " trixie. Stop the server, copy its database (pg_dump) elsewhere, upgrade to Debian 12"
             " (bookworm), by the release notes of Debian"),
            ("buster", "upgrade to Debian 11 (bullseye), then Debian 12 (bookworm), by"),
            ("forky", "this is forky; WalT servers run on Debian bookworm or trixie"),
        ):
            site = self.site(name)
            for options in ((), ("--mode", "UPGRADE"), ("--check",), ("--before-debian-upgrade",)):
                status, _, err = site.call(*options)
                self.assertEqual(status, 1)
                self.assertIn(words, err)
            self.assertNotIn(CONF, site.files())
        site = self.site("bullseye")
        self.patch(os, "geteuid", lambda: 1000)
        self.assertIn("must be run by root", site.call()[2])

    def test_busybox(self) -> None:
        """Without systemd init starts the server; other lines of its table stay; all of it goes."""
        words = ("--init-system", "BUSYBOX", "--mode", "IMAGE-INSTALL")
        nfs = ("--set", "services.nfs=ganesha")
        site = self.site()
        self.assertIn("systemd runs this machine", site.call(*words, *nfs)[2])
        (site.root / "run/systemd/system/.here").unlink()
        (site.root / "run/systemd/system").rmdir()
        self.assertIn("--set services.nfs=ganesha", site.call(*words)[2])
        self.assertIn("services.runner: systemd needs systemd",
                      site.call(*words, *nfs, "--set", "services.runner=systemd")[2])
        site.write(CONF, "network: {walt-net: {ip: 10.0.0.1/24}}\n")
        site.write("etc/inittab", "::sysinit:/etc/init.d/rcS\n")
        self.assertIn("there is no server to upgrade", site.call("--mode", "upgrade")[2])
        self.assertIn("init starts the server when the machine starts",
                      self.done(site, *words, *nfs))
        self.assertEqual(
            site.text("etc/inittab"),
            "::sysinit:/etc/init.d/rcS\n# walt-server-setup: begin\n"
            "::respawn:/usr/local/sbin/walt-server-run\n# walt-server-setup: end\n",
        )
        self.assertFalse([one for one in site.programs.calls if one[0] == "systemctl"])
        self.assertNotIn(f"{UNITS}/{UNIT}", site.files())
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))
        before = site.files()
        self.done(site, "--mode", "upgrade")
        self.assertEqual(site.files(), before)
        self.done(site, "--remove")
        self.assertEqual(site.text("etc/inittab"), "::sysinit:/etc/init.d/rcS\n")
        self.assertNotIn("usr/local/sbin/walt-server-run", site.files())

    def test_inittab(self) -> None:
        """Where there is no table init goes on with what it does without; no line is lost."""
        words = ("--init-system", "busybox", "--set", "services.nfs=ganesha")
        ours = ("# walt-server-setup: begin\n::respawn:/usr/local/sbin/walt-server-run\n"
                "# walt-server-setup: end\n")
        site = self.site()
        (site.root / "run/systemd/system/.here").unlink()
        (site.root / "run/systemd/system").rmdir()
        self.done(site, *words)
        made = site.text("etc/inittab")
        for line in ("::sysinit:/etc/init.d/rcS", "::askfirst:-/bin/sh", "::shutdown:umount -a -r",
                     "::shutdown:swapoff -a", "::ctrlaltdel:reboot", "::restart:init"):
            self.assertIn(f"{line}\n", made)
        self.assertTrue(made.endswith(ours))
        self.done(site, "--remove")
        self.assertNotIn("etc/inittab", site.files())
        # One of a set-up that did not know that, or of a person who had no other lines.
        site.write("etc/inittab", ours)
        self.done(site, *words)
        self.assertEqual(site.text("etc/inittab"), made)
        theirs = "::sysinit:/etc/init.d/rcS\nttyS0::respawn:/sbin/getty\n::shutdown:umount -a -r\n"
        for spoilt in (
            theirs.replace("ttyS0", ours.replace("# walt-server-setup: end\n", "") + "ttyS0"),
            theirs.replace("ttyS0", ours.replace("# walt-server-setup: begin\n", "") + "ttyS0"),
            theirs.replace("ttyS0", ours.replace("/usr/local", "/opt/walt") + "ttyS0"),
            ours + theirs,
        ):
            site.write("etc/inittab", spoilt)
            self.done(site, *words)
            self.assertEqual(site.text("etc/inittab"), theirs + ours)
        self.done(site, "--remove")
        self.assertEqual(site.text("etc/inittab"), theirs)

    def test_upgrade_of_debian(self) -> None:
        """Looked at before, remembered, gone on with on the new one, and closed; or given up."""
        site = self.site()
        self.done(site)
        marker, programs = "var/lib/walt/.upgrade", site.programs
        site.write("etc/apt/sources.list", "deb http://m.example/debian bookworm main\n")
        programs.held, programs.unfinished = ["podman"], "half installed\n"
        status, _, err = site.call("--before-debian-upgrade")
        self.assertEqual(status, 1)
        self.assertIn("packages are kept back (podman)", err)
        self.assertIn("packages are not wholly installed", err)
        self.assertNotIn(marker, site.files())
        programs.held, programs.unfinished = [], ""
        told = self.done(site, "--before-debian-upgrade")
        self.assertIn("  sed -i 's/bookworm/trixie/g' /etc/apt/sources.list\n", told)
        self.assertIn("apt full-upgrade", told)
        self.assertNotIn(UNIT, programs.enabled)
        self.assertEqual(site.text(marker), "bookworm trixie\n")
        # A source with another name; and what is told is a command.
        site.write("etc/apt/sources.list.d/of the site.list", "deb http://o.example bookworm x\n")
        told = self.done(site, "--before-debian-upgrade")
        (command,) = [one for one in told.splitlines() if one.startswith("  sed")]
        subprocess.run(
            ["sh", "-ec", command.replace("/etc/apt", f"{site.root}/etc/apt")], check=True,
            stdin=subprocess.DEVNULL,
        )
        for name in ("sources.list", "sources.list.d/of the site.list"):
            self.assertIn(" trixie ", site.text(f"etc/apt/{name}"))
        told = self.done(site, "--before-debian-upgrade")
        self.assertIn("No source of apt names bookworm", told)
        self.assertNotIn("sed -i", told)
        # Given up.
        self.assertIn("its upgrade is given up", self.done(site))
        self.assertNotIn(marker, site.files())
        self.assertIn(UNIT, programs.enabled)
        # Begun, half done, done.
        self.done(site, "--before-debian-upgrade")
        site.write("etc/os-release", "VERSION_CODENAME=trixie\n")
        programs.unfinished = "half installed\n"
        status, _, err = site.call()
        self.assertEqual(status, 1)
        self.assertIn("the upgrade of Debian from bookworm to trixie is not finished", err)
        programs.unfinished = ""
        programs.broken = {"systemctl --quiet enable": "no"}
        self.assertEqual(site.call()[0], 1)
        self.assertIn(marker, site.files())
        programs.broken = {}
        self.assertIn("upgraded from bookworm to trixie: going on", self.done(site))
        self.assertNotIn(marker, site.files())
        self.assertEqual(site.call("--check"), (0, "Nothing lacks.\n", ""))
        self.assertIn("no newer Debian", site.call("--before-debian-upgrade")[2])

    def test_failures(self) -> None:
        """What a program said is told; the next call goes on."""
        site = self.site()
        for what, told in (
            ("apt-get update", "no network here"), (f"systemctl start {UNIT}", "it broke"),
        ):
            site.programs.broken = {what: f"…\n{told}\n"}
            status, _, err = site.call()
            self.assertEqual(status, 1)
            self.assertIn(told, err)
            self.assertFalse((site.root / POLICY.lstrip("/")).exists())
        self.assertIn("the reason", err)
        site.programs.broken = {}
        self.done(site)

    def test_what_others_have(self) -> None:
        """Own files of the site stay: its policy of services, settings, programs, PostgreSQL."""
        site = self.site()
        site.programs.packages.add("postgresql")
        site.programs.enabled.add("postgresql.service")
        site.write("usr/sbin/policy-rc.d", "theirs")
        site.write("etc/walt/server.env", "http_proxy=http://p:1\n")
        site.write("root/.walt/config", "mine")
        self.done(site)
        self.assertEqual(site.text("usr/sbin/policy-rc.d"), "theirs")
        self.assertEqual(site.text("etc/walt/server.env"), "http_proxy=http://p:1\n")
        self.assertEqual(site.text("root/.walt/config"), "mine")
        self.assertIn("postgresql.service", site.programs.enabled)
        (site.root / "usr/local/bin/walt").unlink()
        site.write("usr/local/bin/walt", "theirs")
        status, _, err = site.call()
        self.assertEqual(status, 1)
        self.assertIn("/usr/local/bin/walt is a file of somebody else", err)
        self.assertEqual(site.text("usr/local/bin/walt"), "theirs")

    def test_an_older_walt(self) -> None:
        """Units of WalT 10 stop, and go, before ours starts; links lead to the new version."""
        site = self.site()
        for name in ("walt-server-dhcpd.service", "walt-server-nbd.socket"):
            site.write(f"{UNITS}/{name}", "[Unit]\n")
            site.programs.enabled.add(name)
            site.programs.active.add(name)
        link = site.root / "usr/local/bin/walt"
        link.parent.mkdir(parents=True)
        link.symlink_to("/opt/walt-10.0/bin/walt")
        self.done(site)
        self.assertNotIn("walt-server-dhcpd.service", site.programs.active | site.programs.enabled)
        self.assertNotIn(f"{UNITS}/walt-server-nbd.socket", site.files())
        self.assertNotIn("walt-10.0", str(link.readlink()))

    def test_an_image(self) -> None:
        """image-install starts nothing, on a machine without systemd neither does install."""
        site = self.site()
        self.done(site, "--mode", "IMAGE-INSTALL")
        self.assertNotIn(UNIT, site.programs.active | site.programs.enabled)
        site = self.site()
        (site.root / "run/systemd/system/.here").unlink()
        (site.root / "run/systemd/system").rmdir()
        self.assertIn("when systemd does", self.done(site))
        self.assertIn(UNIT, site.programs.enabled)
        self.assertFalse(site.programs.active)
        self.assertEqual(site.call("--check")[0], 0)

    def test_an_address_by_dhcp(self) -> None:
        """Its client is installed where a network asks for it, only there."""
        site = self.site()
        self.done(site)
        self.assertNotIn("isc-dhcp-client", site.programs.packages)
        self.done(site, "--set", "network.walt-adm.raw-device=eth2",
                  "--set", "network.walt-adm.ip=dhcp")
        self.assertIn("isc-dhcp-client", site.programs.packages)

    def test_former_database(self) -> None:
        """The database of an older WalT is copied once, when its server has ended."""
        site = self.site()
        site.write("run/postgresql/.s.PGSQL.5432", "")
        site.programs.former = True
        site.programs.active.add("walt-server.service")
        out = site.call("--check")[1]
        self.assertIn("database of an older WalT: devices, images and logs", out)
        self.done(site)
        calls = [" ".join(one) for one in site.programs.calls]
        (dump,) = [number for number, one in enumerate(calls) if one.startswith("pg_dump")]
        self.assertLess(calls.index("systemctl stop walt-server.service"), dump)
        for place in ("var/backups/walt/walt-former.dump", "var/lib/walt/restore/walt.dump"):
            self.assertEqual(site.text(place), "the former database")
        (site.root / "var/lib/walt/restore/walt.dump").unlink()  # the server has loaded it
        (site.root / "var/lib/walt/postgres").mkdir()
        self.done(site)
        self.assertEqual(
            sum(one[0] == "pg_dump" for one in site.programs.calls), 1, "copied again"
        )

    def test_another_name(self) -> None:
        """A unit that is known under another name is enabled under its own one."""
        site = self.site()
        place = site.root / "lib/systemd/system"
        place.mkdir(parents=True)
        (place / "nfs-kernel-server.service").symlink_to("nfs-server.service")
        site.programs.enabled.add("nfs-kernel-server.service")  # as systemctl has it
        self.done(site)
        self.assertIn("nfs-server.service", site.programs.enabled & site.programs.active)

    def test_no_kernel_server(self) -> None:
        """Where the kernel has no NFS server, ganesha is installed, and does not start."""
        site = self.site()
        site.write("proc/filesystems", "ext4\n")
        self.done(site)
        self.assertTrue(set(GANESHA) <= site.programs.packages)
        self.assertEqual(site.programs.enabled, {UNIT})

    def test_registries(self) -> None:
        """podman is told of the registries of server.conf (containers-registries.conf(5))."""
        site = self.site()
        site.write(CONF, """\
network: {walt-net: {ip: 10.9.0.1/24}}
registries:
  - {label: hub, api: docker-hub}
  - {label: lab, api: docker-registry-v2, host: reg.example, port: 5000, protocol: http}
  - {label: jf, api: jfrog-artifactory, host: jf.example, repository: walt}
""")
        self.done(site)
        text = site.text("etc/containers/registries.conf.d/walt.conf")
        self.assertIn(
            'unqualified-search-registries = ["docker.io", "reg.example:5000",'
            ' "jf.example:443/walt"]', text,
        )
        self.assertIn(
            'prefix = "docker.io"\nlocation = "registry-1.docker.io"\ninsecure = false\n', text
        )
        self.assertIn('location = "reg.example:5000"\ninsecure = true\n', text)

    def test_remove(self) -> None:
        """--remove takes back what is the product's; data, settings and accounts stay."""
        site = self.site()
        self.done(site)
        site.write("var/lib/walt/data", "kept")
        # A server that died has left what it exported.
        for name in ("walt.exports", "walt-persist.exports"):
            site.write(f"etc/exports.d/{name}", "/var/lib/walt/nodes 192.168.77.0/24(ro)\n")
        self.done(site, "--remove")
        left = site.files()
        self.assertFalse((site.root / "etc/exports.d").exists())
        self.assertIn(("exportfs", "-r", "-f"), site.programs.calls)
        self.assertNotIn(f"{UNITS}/{UNIT}", left)
        self.assertNotIn("usr/local/bin/walt", left)
        self.assertNotIn("etc/bash_completion.d/walt", left)
        self.assertEqual(left["etc/apparmor.d/local/usr.sbin.dhcpd"], "")
        self.assertEqual(left["var/lib/walt/data"], "kept")
        self.assertIn(CONF, left)
        self.assertNotIn(UNIT, site.programs.active | site.programs.enabled)
        self.done(site)
        self.assertEqual(site.call("--check")[0], 0)
        # What the machine exports besides stays; and there may be no configuration any more.
        (site.root / CONF).unlink()
        for name in ("walt.exports", "of-the-site.exports"):
            site.write(f"etc/exports.d/{name}", "")
        self.done(site, "--remove")
        self.assertEqual(
            [one for one in site.files() if "exports" in one], ["etc/exports.d/of-the-site.exports"]
        )

    def test_no_source(self) -> None:
        """Packages that no source has come from the mirror that is named."""
        site = self.site()
        site.programs.sources = False
        status, _, err = site.call()
        self.assertEqual(status, 1)
        self.assertIn("--debian-mirror", err)
        self.assertFalse((site.root / SOURCES.lstrip("/")).exists())
        mirror = "https://mirror.example:8443/debian/"
        self.done(site, "--debian-mirror", mirror)
        self.assertIn(f"URIs: {mirror}\nSuites: bookworm bookworm-updates\n",
                      site.text(SOURCES.lstrip("/")))
        self.assertIn("Nothing lacks.", self.done(site, "--check"))

    def test_security_updates_of_a_former_set_up(self) -> None:
        """They stay, for the Debian that is there now; what does not help changes nothing."""
        mirror, place = "https://mirror.example/debian", SOURCES.lstrip("/")
        former = "# ours\n" + "\n".join(
            f"Types: deb\nURIs: http://mirror.example/{one}\nSuites: {suites}\n"
            "Components: main\nSigned-By: /k.gpg\n" for one, suites in (
                ("debian", "bullseye bullseye-updates"), ("debian-security", "bullseye-security"),
            )
        )
        site = self.site()
        site.write(place, former)
        site.programs.sources, site.programs.mirror = False, "nowhere"
        self.assertEqual(site.call("--debian-mirror", mirror)[0], 1)
        self.assertEqual(site.text(place), former)
        site.programs.mirror = mirror
        self.done(site, "--debian-mirror", mirror)
        self.assertEqual(
            [line for line in site.text(place).splitlines() if line.startswith(("URIs", "Suites"))],
            [
                f"URIs: {mirror}", "Suites: bookworm bookworm-updates",
                "URIs: http://mirror.example/debian-security", "Suites: bookworm-security",
            ],
        )
        self.assertIn("\n\nTypes: deb\nURIs: http://mirror.example/debian-sec", site.text(place))

    def test_packages(self) -> None:
        """What it installs is what the Makefile installs."""
        text = (REPOSITORY / "scripts/packages.mk").read_text()
        self.assertEqual({*PACKAGES, *GANESHA}, set(parse_variable(text, "SERVER_PACKAGES")))
