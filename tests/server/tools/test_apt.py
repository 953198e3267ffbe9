"""How set-up has apt and dpkg bring packages: both are real, on files below a directory.

The repository is one of small packages, in a directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.patience import patient
from walt.common.errors import CommandFailed, Unavailable
from walt.server.tools.setup.debian import POLICY, SOURCES, PackagesStep
from walt.server.tools.setup.machine import Done, IPrograms, Machine, Memory, Programs

MIRROR = "http://mirror.example/debian"
OURS = "Types: deb\nURIs: file:{repository}\nSuites: ./\nTrusted: yes\n# {name}\n"


@implementer(IPrograms)
class Below:
    """Programs of apt and dpkg, told that the machine is in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[tuple[str, ...]] = []
        self._programs = Programs()

    def call(self, argv: Sequence[str], more_env: Mapping[str, str]) -> Done:
        """See IPrograms."""
        self.calls.append(tuple(argv))
        words = [argv[0]]
        if argv[0].startswith("apt-"):
            for setting in (
                f"Dir={self.root}", f"Dir::State::status={self.root}/var/lib/dpkg/status",
                "APT::Sandbox::User=root", f"DPkg::Options::=--root={self.root}",
                "DPkg::Options::=--log=/dev/null", "DPkg::Use-Pty=0",
            ):
                words += ["-o", setting]
        elif argv[0] == "dpkg":
            words += [f"--root={self.root}", "--log=/dev/null"]
        elif argv[0] == "dpkg-query":
            words += [f"--admindir={self.root}/var/lib/dpkg"]
        return self._programs.call([*words, *argv[1:]], more_env)


class AptTests(SynchronousTestCase):
    timeout = patient(120)

    def setUp(self) -> None:
        """Make a machine without packages, and a repository."""
        self.base = Path(self.mktemp()).absolute()
        self.root, self.repository = self.base / "root", self.base / "repository"
        for place in (
            "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d",
            "etc/apt/trusted.gpg.d", "var/lib/dpkg/updates", "var/lib/dpkg/info",
            "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt", "etc",
            "usr/sbin", "tmp",
        ):
            (self.root / place).mkdir(parents=True, exist_ok=True)
        for file in ("var/lib/dpkg/status", "var/lib/dpkg/available"):
            (self.root / file).touch()
        (self.root / "etc/os-release").write_text("VERSION_CODENAME=bookworm\n")
        self.repository.mkdir()
        self.programs = Below(self.root)
        self.machine = Machine(self.programs, self.root)
        self.memory = Memory(self.machine, Path("/var/lib/walt"))

    def package(self, name: str, version: str, conf: str = "") -> None:
        """Put a package into the repository, and write its index."""
        place = self.base / f"{name}-{version}"
        (place / "DEBIAN").mkdir(parents=True)
        (place / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: A <a@b.c>\nDescription: small\n"
        )
        if conf:
            (place / "etc").mkdir()
            (place / f"etc/{name}.conf").write_text(conf)
            (place / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
        file = self.repository / f"{name}_{version}.deb"
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", str(place), str(file)], check=True,
            capture_output=True, stdin=subprocess.DEVNULL,
        )
        index = []
        for one in sorted(self.repository.glob("*.deb")):
            fields = subprocess.run(
                ["dpkg-deb", "--field", str(one)], check=True, capture_output=True, text=True,
                stdin=subprocess.DEVNULL,
            ).stdout.strip()
            index.append(
                f"{fields}\nFilename: ./{one.name}\nSize: {one.stat().st_size}\n"
                f"SHA256: {hashlib.sha256(one.read_bytes()).hexdigest()}\n"
            )
        (self.repository / "Packages").write_text("\n".join(index))

    def step(self, *names: str) -> PackagesStep:
        """Return the step for some packages, whose own source is the repository."""
        return PackagesStep(
            self.machine, self.memory, names, MIRROR,
            sources=OURS.replace("{repository}", str(self.repository)),
        )

    def site(self) -> None:
        """Give the machine a source of the site."""
        (self.root / "etc/apt/sources.list").write_text(
            f"deb [trusted=yes] file:{self.repository} ./\n"
        )

    def test_sources_of_the_site(self) -> None:
        """They suffice: nothing is added; what the administrator has changed stays."""
        self.site()
        self.package("one", "1", "theirs\n")
        self.package("two", "1")
        step = self.step("one", "two")
        self.assertEqual(
            step.lacks(), ["package one is not installed", "package two is not installed"]
        )
        step.apply()
        self.assertEqual(step.lacks(), [])
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        self.assertFalse((self.root / POLICY.lstrip("/")).exists())
        self.assertEqual(self.memory.packages(), ["one", "two"])
        (self.root / "etc/one.conf").write_text("of the site\n")
        self.package("one", "2", "newer\n")
        self.package("three", "1")
        status = self.root / "var/lib/dpkg/status"
        installed = "Package: one\nStatus: install ok installed"
        status.write_text(
            status.read_text().replace(installed, installed.replace("installed", "unpacked"))
        )
        again = self.step("one", "three")
        again.apply()
        self.assertEqual(again.lacks(), [])
        self.assertEqual((self.root / "etc/one.conf").read_text(), "of the site\n")

    def test_no_source(self) -> None:
        """The mirror is added where none has a package; it goes with `--remove`."""
        (self.root / "etc/apt/sources.list").write_text("# of the site\n")
        self.package("one", "1")
        step = self.step("one")
        error = self.assertRaises(Unavailable, replace(step, mirror=None).apply)
        self.assertIn("name a mirror of Debian with --debian-mirror", str(error))
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        step.apply()
        self.assertEqual(step.lacks(), [])
        ours = (self.root / SOURCES.lstrip("/")).read_text()
        self.assertIn("# bookworm\n", ours)
        self.assertEqual((self.root / "etc/apt/sources.list").read_text(), "# of the site\n")
        step.undo()
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        self.assertEqual(step.lacks(), [])

    def test_nowhere(self) -> None:
        """A package that no source has is named; one that cannot be fetched, too."""
        self.site()
        self.package("one", "1")
        error = self.assertRaises(Unavailable, self.step("one", "nowhere").apply)
        self.assertIn("no source of apt has nowhere: see", str(error))
        self.assertEqual(len(self.step("one").lacks()), 1)
        (self.repository / "one_1.deb").write_bytes(b"damaged")
        self.assertRaises(CommandFailed, self.step("one").apply)
        self.assertFalse((self.root / POLICY.lstrip("/")).exists())

    def test_another_apt(self) -> None:
        """Another one that holds lists, archives or packages is waited for; nothing is asked."""
        self.site()
        self.package("one", "1")
        for place in ("var/lib/apt/lists/lock", "var/cache/apt/archives/lock"):
            with open(self.root / place, "w") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX)
                pauses: list[float] = []

                def pause(
                    seconds: float, held: TextIO = lock, pauses: list[float] = pauses
                ) -> None:
                    # The other one may have services that start.
                    policy = self.root / POLICY.lstrip("/")
                    self.assertEqual(policy.exists(), "archives" in held.name)
                    pauses.append(seconds)
                    if len(pauses) == 2:
                        fcntl.lockf(held, fcntl.LOCK_UN)

                replace(self.step("one"), sleep=pause).apply()
            self.assertEqual(len(pauses), 2, place)
            self.assertEqual(self.step("one").lacks(), [])
            status = self.root / "var/lib/dpkg/status"
            status.write_text("")
        install = [one for one in self.programs.calls if "install" in one][-1]
        self.assertIn("DPkg::Lock::Timeout=600", install)
        self.assertIn("Dpkg::Options::=--force-confold", install)
        # Not for ever; what else goes wrong is not waited for.
        with open(self.root / "var/lib/apt/lists/lock", "w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            pauses = []
            step = replace(self.step("one"), sleep=pauses.append, patience=15.0)
            self.assertIn("Could not get lock", str(self.assertRaises(CommandFailed, step.apply)))
            self.assertEqual(len(pauses), 3)

    def test_a_source_that_is_away(self) -> None:
        """A mirror that does not answer is no reason to add sources, and is told."""
        (self.root / "etc/apt/sources.list").write_text(
            "deb [trusted=yes] http://127.0.0.1:9 ./\n"
            f"deb [trusted=yes] file:{self.repository} ./\n"
        )
        self.package("one", "1")
        error = str(self.assertRaises(CommandFailed, self.step("one", "two").apply))
        self.assertIn("no source of apt has two, and not all sources could be read", error)
        self.assertIn("127.0.0.1", error)
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        self.step("one").apply()  # of no matter for what others have
        self.assertEqual(self.step("one").lacks(), [])

    def test_a_source_that_does_not_help(self) -> None:
        """What was added goes when apt cannot read it, and when it has not what is looked for."""
        self.site()
        self.package("one", "1")
        wrong = replace(self.step("two"), sources="Types: deb\nURIs: {name}\n")
        error = str(self.assertRaises(CommandFailed, wrong.apply))
        self.assertIn(f"no source of apt has two, and {MIRROR} cannot be added", error)
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        self.assertRaises(Unavailable, self.step("two").apply)
        self.assertFalse((self.root / SOURCES.lstrip("/")).exists())
        # One of an earlier set-up that keeps apt from reading any.
        self.machine.write(SOURCES, "Types: deb\nURIs: nonsense\n")
        self.step("one").apply()
        self.assertEqual(self.step("one").lacks(), [])

    def test_keys_of_the_site(self) -> None:
        """A mirror is verified as the sources that name it are: apt reads both."""
        plain = PackagesStep(self.machine, self.memory, ())
        place = self.root / "etc/apt/sources.list.d/debian.sources"
        lists = self.root / "etc/apt/sources.list"
        stanza = "# old\nTypes: deb\nURIs: {}\nSuites: {}\nComponents: main\n{}\n"
        for keys in (
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp\n",
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n", "",
        ):
            place.write_text(
                stanza.format(MIRROR, "bookworm bookworm-updates", keys)
                + stanza.format(f"{MIRROR}-security", "bookworm-security", keys)
            )
            self.machine.write(SOURCES, plain.sources.format(
                mirror=MIRROR, name="bookworm", verified=plain._verified(MIRROR)
            ))
            self.machine.run("apt-get", "update", "--print-uris")
            if not keys:
                continue
            self.machine.write(SOURCES, plain.sources.format(
                mirror=MIRROR, name="bookworm",
                verified="Signed-By: /usr/share/keyrings/another.gpg\n"
            ))
            error = self.assertRaises(
                CommandFailed, self.machine.run, "apt-get", "update", "--print-uris"
            )
            self.assertIn("Conflicting values set for option Signed-By", str(error))
        place.unlink()
        for options in ("", "[signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] "):
            lists.write_text(f"deb {options}{MIRROR} bookworm main\n")
            self.machine.write(SOURCES, plain.sources.format(
                mirror=MIRROR, name="bookworm", verified=plain._verified(MIRROR)
            ))
            self.machine.run("apt-get", "update", "--print-uris")

    def test_sources_of_debian(self) -> None:
        """What is added is understood by apt, and names this Debian: main and updates."""
        (self.root / "etc/apt/sources.list").write_text("")
        plain = PackagesStep(self.machine, self.memory, ())
        self.machine.write(SOURCES, plain.sources.format(
            mirror=MIRROR, name="bookworm", verified=plain._verified(MIRROR)
        ))
        asked = self.machine.run("apt-get", "update", "--print-uris")
        found = [line.split("'")[1] for line in asked.splitlines() if "InRelease" in line]
        self.assertEqual(sorted(found), [
            f"{MIRROR}/dists/bookworm-updates/InRelease", f"{MIRROR}/dists/bookworm/InRelease",
        ])
