"""The check that package lists bring what tests start: its rules, and a real record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scripts.programs import (
    Package,
    brought,
    check,
    counts,
    names_of,
    parse_installed,
    parse_lists,
    parse_owners,
    unlisted,
)
from tests.system.netns import short_dir

SCRIPTS = Path(__file__).parent.parent / "scripts"
INSTALLED = """\
installed\tbash\tyes\t\tbase-files (>= 2.1.12), debianutils (>= 5.6-0.1), libc6 (>= 2.36)
installed\tbase-files\tyes\tbase\tlibcrypt1 (>= 1:4.4.10-10), awk
installed\tmawk\tno\tawk\tlibc6
installed\tlibc6\tno\tlibc6-2.36\tlibgcc-s1
installed\tsocat\tno\t\tlibc6 (>= 2.34), libssl3 (>= 3.0.0)
installed\tlibssl3\tno\t\tlibc6
installed\tpodman\tno\t\tconmon (>= 2.0.18~), golang-github-containers-common, crun | runc:any
installed\trunc\tno\t\tlibc6
installed\tconmon\tno\t\t
installed\tjq\tno\t\tlibjq1
config-files\told\tno\t\tlibc6
"""


class RulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.installed = parse_installed(INSTALLED)

    def test_installed(self) -> None:
        """Names without versions and architectures; only what is installed."""
        self.assertEqual(
            self.installed["podman"],
            Package("podman", depends=(
                ("conmon",), ("golang-github-containers-common",), ("crun", "runc"),
            )),
        )
        self.assertTrue(self.installed["bash"].essential)
        self.assertEqual(self.installed["mawk"].provides, {"awk"})
        self.assertNotIn("old", self.installed)

    def test_brought(self) -> None:
        """Essential packages and dependencies, virtual and alternative ones; no others."""
        base = {"bash", "base-files", "mawk", "libc6"}
        self.assertEqual(brought(self.installed, []), base)
        self.assertEqual(
            brought(self.installed, ["podman", "absent"]), base | {"podman", "conmon", "runc"}
        )
        self.assertNotIn("socat", brought(self.installed, ["podman"]))

    def test_lists(self) -> None:
        """Every list of the makefile, over several lines; no other variable."""
        text = "A_PACKAGES = one two \\\n\tthree\n#B_PACKAGES = n\nC_PACKAGES := four\nD = x\n"
        self.assertEqual(parse_lists(text), {"one", "two", "three", "four"})
        self.assertIn("socat", parse_lists((SCRIPTS / "packages.mk").read_text()))

    def test_owners(self) -> None:
        """Several packages of a path, architectures, diversions of both kinds."""
        owners = parse_owners(
            "diversion by dash from: /bin/sh\n"
            "diversion by dash to: /bin/sh.distrib\n"
            "dash: /bin/sh\n"
            "bash, zsh:amd64: /usr/share/x\n"
            "local diversion from: /usr/bin/tool\n"
            "local diversion to: /usr/bin/tool.real\n"
            "tools: /usr/bin/tool\n"
            "dpkg-query: no path found matching pattern /nowhere\n"
        )
        self.assertEqual(owners["/bin/sh"], {"dash"})
        self.assertEqual(owners["/usr/share/x"], {"bash", "zsh"})
        self.assertEqual(owners["/usr/bin/tool.real"], {"tools"})
        self.assertNotIn("/bin/sh.distrib", owners)

    def test_names(self) -> None:
        """A package may know a file by the name that it had before /usr was merged."""
        self.assertEqual(names_of("/usr/bin/ls"), ["/usr/bin/ls", "/bin/ls"])
        self.assertEqual(
            names_of("/usr/lib64/ld.so"), ["/usr/lib64/ld.so", "/lib64/ld.so"]
        )
        self.assertEqual(names_of("/sbin/runc"), ["/usr/sbin/runc", "/sbin/runc"])
        self.assertEqual(names_of("/usr/local/bin/x"), ["/usr/local/bin/x"])
        self.assertEqual(names_of("/opt/x"), ["/opt/x"])

    def test_counts(self) -> None:
        """Directories of ours are left out whole, by their names and no longer ones."""
        own = [Path("/srv/tree"), Path("/tmp")]
        for path, expected in (
            ("/tmp/x/bin/sh", False), ("/srv/tree/.venv/bin/python", False),
            ("/srv/tree2/run", True), ("/usr/bin/tmp", True),
        ):
            self.assertEqual(counts(path, own), expected, path)

    def test_unlisted(self) -> None:
        """A program of no package, and of a package that nothing asks for, each once."""
        owners = {"/bin/ls": {"coreutils"}, "/usr/bin/socat": {"socat"}}
        told = unlisted(
            ["/usr/bin/socat", "/usr/bin/ls", "/usr/local/bin/own", "/usr/bin/socat"], owners,
            {"coreutils"},
        )
        self.assertEqual(len(told), 2)
        self.assertIn("/usr/bin/socat was started", told[0])
        self.assertIn("the package is socat", told[0])
        self.assertIn("/usr/local/bin/own was started, which belongs to no", told[1])
        self.assertEqual(unlisted(["/usr/bin/socat"], owners, {"socat"}), [])

    def test_made_by_tests(self) -> None:
        """On this machine: a program that is gone was a test's; nothing at all is an error."""
        lists = SCRIPTS / "packages.mk"
        shell = os.path.realpath("/bin/sh")
        gone = "/usr/local/bin/docker-credential-of-a-test"
        self.assertEqual(check([shell, gone], lists, [Path("/tmp")]), [])
        self.assertIn("cannot be right", check([gone], lists, [])[0])


class RecordTests(SynchronousTestCase):
    skip = None if os.geteuid() == 0 else "needs root"

    def record(self, script: str) -> tuple[int, list[str]]:
        """Run a script of sh under the recorder; return its status and the programs."""
        file = short_dir(self) / "programs"
        status = subprocess.run(
            [sys.executable, str(SCRIPTS / "record.py"), str(file), "sh", "-c", script],
            check=False, timeout=60,
        ).returncode
        return status, file.read_text().splitlines()

    def test_descendants(self) -> None:
        """What shells, their orphans and other sessions start; the status is the command's."""
        status, found = self.record(
            "env sleep 0; setsid sh -c 'sleep 0.2; mktemp -u' >/dev/null & "
            'until [ "$(sort "$WALT_TEST_PROGRAMS" | grep -c mktemp)" = 1 ]; do sleep 0.1; done;'
            "exit 7"
        )
        self.assertEqual(status, 7)
        names = [Path(one).name for one in found]
        for name in ("env", "sleep", "setsid", "mktemp", "grep"):
            self.assertEqual(names.count(name), 1, (name, names))

    def test_other_roots(self) -> None:
        """Programs that another root directory shows under the same path do not count."""
        root = short_dir(self)
        _, found = self.record(
            f"mkdir -p {root}/bin && cp /bin/busybox {root}/bin/nice && "
            f"unshare --mount sh -c 'mount --bind {root} {root} && cd {root} && "
            "mkdir old && pivot_root . old && exec bin/nice nice true'"
        )
        self.assertFalse([one for one in found if Path(one).name == "nice"], found)
        self.assertTrue([one for one in found if Path(one).name == "pivot_root"], found)

    def test_signals(self) -> None:
        """The end of a command by a signal is told as shells do."""
        self.assertEqual(self.record("kill -KILL $$")[0], 137)
