"""The scripts of the remote side, run by real shells."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import CommandFailed
from walt.common.transfers import Place
from walt.server.domain.transfers import (
    MAX_ENTRIES,
    list_script,
    parse_list,
    parse_probe,
    probe_script,
    receive_script,
    send_script,
)

# GNU tar, busybox's, and bsdtar in the place of tar.
SHELLS = (
    ["sh", "-c"], ["busybox", "sh", "-c"],
    ["sh", "-c", 'tar() { bsdtar "$@"; }; eval "$1"', "sh"],
)


def _run(shell: list[str], script: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*shell, script], input=data, capture_output=True, timeout=30)


class ScriptTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A source with odd names and a place to put it."""
        self.base = Path(self.mktemp()).absolute()
        self.source, self.target = self.base / "it's $(a) source", self.base / "target dir"
        self.target.mkdir(parents=True)
        (self.source / "sub").mkdir(parents=True)
        (self.source / "-file").write_text("content")
        (self.source / ".hidden").write_text("hidden")
        (self.source / "link").symlink_to("-file")
        (self.base / "alias").symlink_to(self.source)

    def _copy(self, shell: list[str], source: Path, kind: str, place: Place, merge: bool) -> None:
        sent = _run(shell, send_script(str(source), kind, merge=merge))
        self.assertEqual((sent.returncode, sent.stderr), (0, b""))
        received = _run(shell, receive_script(place, kind), sent.stdout)
        self.assertEqual((received.returncode, received.stderr), (0, b""))

    def test_probe(self) -> None:
        """Kinds of a path and of its parent; links are followed."""
        for shell in SHELLS:
            for path, expected in (
                (self.source, ("d", "d")), (self.base / "alias", ("d", "d")),
                (self.source / "-file", ("f", "d")), (self.source / "nothing", ("-", "d")),
                (self.source / "no" / "thing", ("-", "-")), (Path("/dev/null"), ("o", "d")),
                (Path("/"), ("d", "d")),
            ):
                answer = _run(shell, probe_script(str(path))).stdout
                self.assertEqual(parse_probe(answer), expected, path)
        self.assertRaises(CommandFailed, parse_probe, b"hello")
        self.assertRaises(CommandFailed, parse_probe, b"")

    def test_list(self) -> None:
        """Names with a beginning, hidden ones by their dot; slashes after directories."""
        (self.source / "sub" / "new\nline '$(x)'*?").touch()
        os.symlink("nowhere", self.source / "sub" / "dangling")
        Path(os.fsdecode(bytes(self.source / "sub") + b"/\xff")).touch()
        for shell in SHELLS:
            for directory, prefix, expected in (
                (self.source, "", ["-file", "link", "sub/"]), (self.source, "-", ["-file"]),
                (self.source, ".", [".hidden"]), (self.base, "al", ["alias/"]),
                (self.source / "sub", "", ["dangling", "new\nline '$(x)'*?"]),
                (self.source / "sub", "*", []), (self.source / "-file", "", []),
                (self.source / "no", "", []),
            ):
                done = _run(shell, list_script(str(directory), prefix))
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertEqual(sorted(parse_list(done.stdout)), expected)

    def test_long_list(self) -> None:
        """There is a limit, and a beginning of an answer is no name."""
        many = self.base / "many"
        many.mkdir()
        for number in range(MAX_ENTRIES + 10):
            (many / str(number)).touch()
        for shell in SHELLS:
            found = parse_list(_run(shell, list_script(str(many), "")).stdout)
            self.assertEqual(len(found), MAX_ENTRIES)
        self.assertEqual(parse_list(b"a\0b"), ["a"])

    def test_directory_under_a_new_name(self) -> None:
        """Everything arrives, hidden files and links included; a linked source is followed."""
        for number, shell in enumerate(SHELLS):
            name = f"new {number}"
            place = Place(str(self.target), name)
            self._copy(shell, self.base / "alias", "d", place, False)
            self.assertEqual(
                sorted(os.listdir(self.target / name)), ["-file", ".hidden", "link", "sub"]
            )
            self.assertTrue((self.target / name / "link").is_symlink())

    def test_merge(self) -> None:
        """The directory that exists keeps its mode and its other files."""
        for shell in SHELLS:
            self.target.chmod(0o1777)
            (self.target / "other").write_text("kept")
            self._copy(shell, self.source, "d", Place(str(self.target), None), True)
            self.assertEqual(self.target.stat().st_mode & 0o7777, 0o1777)
            self.assertEqual(
                sorted(os.listdir(self.target)), ["-file", ".hidden", "link", "other", "sub"]
            )

    def test_merge_of_nothing(self) -> None:
        """An empty directory is an archive too."""
        for shell in SHELLS:
            self._copy(shell, self.source / "sub", "d", Place(str(self.target), None), True)
            self.assertEqual(os.listdir(self.target), [])

    def test_files(self) -> None:
        """A file gets its new name, replaces another one, follows a link."""
        for shell in SHELLS:
            for name in ("-file", "link"):
                place = Place(str(self.target), "-new 'name")
                self._copy(shell, self.source / name, "f", place, False)
                self.assertEqual(os.listdir(self.target), ["-new 'name"])
                self.assertEqual((self.target / "-new 'name").read_text(), "content")
                self.assertFalse((self.target / "-new 'name").is_symlink())

    def test_links_to_files_stay(self) -> None:
        """A file that goes where such a link is goes through it, as with `cp`."""
        for number, shell in enumerate(SHELLS):
            real = self.base / f"real '{number}'"
            real.write_text("old")
            link = self.target / f"a link {number}"
            link.symlink_to(os.path.relpath(real, self.target))
            self._copy(shell, self.source / "-file", "f", Place(str(self.target), link.name), False)
            self.assertTrue(link.is_symlink())
            self.assertEqual(real.read_text(), "content")
            dangling = self.target / f"dangling {number}"
            dangling.symlink_to("nothing")
            place = Place(str(self.target), dangling.name)
            self._copy(shell, self.source / "-file", "f", place, False)
            self.assertEqual(dangling.read_text(), "content")
        self.assertFalse((self.target / "nothing").exists())

    def test_files_of_the_kernel(self) -> None:
        """Their size is not known before they are read."""
        for shell in SHELLS:
            for path in ("/proc/self/limits", "/proc/version", "/sys/kernel/mm/hugepages"):
                if os.path.isdir(path):
                    continue
                self._copy(shell, Path(path), "f", Place(str(self.target), "copy"), False)
                self.assertTrue((self.target / "copy").read_text().startswith(
                    "Limit" if path.endswith("limits") else "Linux"
                ))

    def test_hidden_files(self) -> None:
        """A file whose name begins with a dot, alone."""
        (self.source / "..more").write_text("more")
        for shell in SHELLS:
            for name, text in ((".hidden", "hidden"), ("..more", "more")):
                self._copy(shell, self.source / name, "f", Place(str(self.target), name), False)
                self.assertEqual((self.target / name).read_text(), text)
            self.assertEqual(sorted(os.listdir(self.target)), ["..more", ".hidden"])

    def test_through_links(self) -> None:
        """A directory that exists as a link to one stays a link, and receives the content."""
        (self.source / "sub" / "new").write_text("new")
        for number, shell in enumerate(SHELLS):
            system = self.base / f"system {number}"
            (system / "usr" / "sub").mkdir(parents=True)
            (system / "usr" / "sub" / "old").write_text("old")
            (system / "sub").symlink_to("usr/sub")
            self._copy(shell, self.source, "d", Place(str(system), None), True)
            self.assertEqual(os.readlink(system / "sub"), "usr/sub")
            self.assertEqual(sorted(os.listdir(system / "usr" / "sub")), ["new", "old"])

    def test_broken_archives(self) -> None:
        """A failure is told, the old file stays, nothing else remains."""
        (self.target / "old").write_text("old")
        (self.target / "dir").mkdir()
        for shell in SHELLS:
            for name in ("old", "dir", "new"):
                script = receive_script(Place(str(self.target), name), "f")
                done = _run(shell, script, b"not an archive" * 100)
                self.assertNotEqual(done.returncode, 0)
                self.assertNotEqual(done.stderr, b"")
            self.assertEqual((self.target / "old").read_text(), "old")
            self.assertEqual(sorted(os.listdir(self.target)), ["dir", "old"])
            self.assertEqual(os.listdir(self.target / "dir"), [])

    @settings(max_examples=30, deadline=None)
    @given(st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60,
    ).filter(lambda name: name not in (".", "..")))
    def test_any_name(self, name: str) -> None:
        """No name reaches the shell as anything but a name."""
        parent = self.base / "names"
        parent.mkdir(exist_ok=True)
        answer = _run(SHELLS[0], probe_script(str(parent / name))).stdout
        self.assertEqual(parse_probe(answer), ("-", "d"))
