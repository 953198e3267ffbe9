"""What workers do with files of archived lines, and with directories that are not as they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import TestCase

from pyarrow import parquet

from walt.common.errors import Conflict, Denied, Unavailable
from walt.server.adapters.archive import places, writing
from walt.server.adapters.archive.files import holder
from walt.server.domain.logs.archive import ArchiveTarget

ROWS: list[writing.Line] = [
    (10**15 + n, "node", "exp", f"line {n}", "02:00:00:00:00:01", n % 2, 10**15 + n, n)
    for n in range(100)
]


@dataclass
class Lines:
    """A week."""

    count: int
    lines: Iterator[writing.Line]
    mark: int = 100


@dataclass
class Known:
    """What a database has of a file."""

    size: int
    lines: int
    forgotten: int


@contextmanager
def week(rows: list[writing.Line]) -> Iterator[Lines]:
    """Give a week of these lines."""
    yield Lines(len(rows), iter(rows))


def nothing(word: str) -> None:
    """Tell nobody."""


class WritingCase(TestCase):
    """A directory."""

    def setUp(self) -> None:
        """Make it."""
        self.directory = self.fresh("archive")

    def fresh(self, name: str) -> Path:
        """Return a new directory."""
        found = Path(f"{self.id()}.{name}").resolve()
        found.mkdir(mode=0o750)
        return found

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Return those of a job."""
        return {
            "target": ArchiveTarget(directory=str(self.directory))._asdict(),
            "name": str(self.directory), "platform": "p", "has_files": False,
            "holder": {"id": "", "claim": ""}, "file_size": 1 << 30, **more,
        }

    def write(self, prefix: str = "logs-2020-01-06-aa", **more: Any) -> dict[str, Any]:
        """Write the lines; return what is told of their file."""
        written = writing.write(self.arguments(prefix=prefix, **more), week(ROWS), nothing)
        (file,) = written["files"]
        return dict(file)

    def rewrite(
        self, file: dict[str, Any], holder: Any = None, **known: int
    ) -> list[dict[str, Any]]:
        """Write it again without every other line."""
        return writing.rewrite(
            self.arguments(
                former=file["name"], prefix="logs-2020-01-06-bb", streams=[1], has_files=True,
                **({} if holder is None else {"holder": holder}),
            ),
            Known(**{"size": file["size"], "lines": 100, "forgotten": 50, **known}), nothing,
        )

    def names(self) -> list[str]:
        """Return what is there."""
        return sorted(os.listdir(self.directory))

    def manifest(self) -> dict[str, Any]:
        """Return it."""
        found: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text())
        return found


class DirectoryTests(WritingCase):
    """Whose directory it is, and what lies there."""

    def test_links(self) -> None:
        """Links of known names are not followed, neither to write nor to read."""
        victim = self.fresh("other") / "victim"
        victim.write_text("untouched")
        victim.chmod(0o600)
        for name in (".manifest.json.partial", ".logs-2020-01-06-aa-001.parquet.partial"):
            (self.directory / name).symlink_to(victim)
        file = self.write()
        self.assertEqual((victim.read_text(), victim.stat().st_mode & 0o777), ("untouched", 0o600))
        self.assertEqual(self.names(), [file["name"], "manifest.json"])
        (self.directory / "manifest.json").rename(victim)
        (self.directory / "manifest.json").symlink_to(victim)
        with self.assertRaises(Unavailable):
            self.write("logs-2020-01-13-cc")

    def test_directories_of_others(self) -> None:
        """One that others can change, or whose parents they can, is not used."""
        for mode in (0o770, 0o757):
            self.directory.chmod(mode)
            with self.assertRaisesRegex(Denied, "chmod go-w"):
                self.write()
            told = writing.check(self.arguments(files=[]), nothing)
            self.assertIn("can be changed by others", told[0])
        self.directory.chmod(0o2750)  # whose files a group may read
        self.write()
        inner = self.directory / "open" / "inner"
        inner.mkdir(parents=True)
        inner.parent.chmod(0o777)
        self.directory = inner
        with self.assertRaisesRegex(Denied, "open can be changed"):
            self.write()
        inner.parent.chmod(0o1777)  # as /tmp
        self.write()
        os.chown(inner, 12345, -1)
        with self.assertRaisesRegex(Denied, "chown root"):
            self.write("logs-2020-01-13-cc")

    def test_no_directory(self) -> None:
        """One that is not there is told as such."""
        self.directory.rmdir()
        with self.assertRaisesRegex(Unavailable, "No such file or directory"):
            self.write()
        self.assertIn(
            "No such file or directory", writing.check(self.arguments(files=[]), nothing)[0]
        )


class MountTests(WritingCase):
    """A directory whose disk is not mounted."""

    def test_removing(self) -> None:
        """What is not mounted is not taken for removed, though it was the last file."""
        with self.assertRaisesRegex(Unavailable, "mount the disk"):
            writing.remove(self.arguments(names=["logs-x-001.parquet"], prefixes=[]), nothing)
        self.assertEqual(self.names(), [])
        # What was never finished may never have been begun.
        writing.remove(self.arguments(names=[], prefixes=["logs-x"]), nothing)
        self.assertEqual(self.names(), [])

    def test_a_manifest_without_files(self) -> None:
        """One that was begun at the mount point is not that of a platform that has files."""
        (self.directory / "manifest.json").write_text(
            json.dumps({"format": 1, "platform": "p", "files": {}})
        )
        with self.assertRaisesRegex(Unavailable, "mount the disk"):
            self.write(has_files=True)
        told = writing.check(self.arguments(files=[("a", 1)], has_files=True), nothing)
        self.assertIn("mount the disk", told[0])
        self.write()

    def test_a_check_writes_no_manifest(self) -> None:
        """Who looks leaves nothing, whether there is a manifest or not."""
        self.assertEqual(writing.check(self.arguments(files=[]), nothing), [])
        self.assertEqual(self.names(), [])
        file = self.write()
        before = (self.directory / "manifest.json").stat().st_ino
        self.assertEqual(writing.check(self.arguments(files=[]), nothing), [])
        self.assertEqual((self.directory / "manifest.json").stat().st_ino, before)
        self.assertEqual(self.names(), [file["name"], "manifest.json"])


class StrangeTests(WritingCase):
    """Files that the database does not know, as after it was restored from a backup."""

    def test_strange_files(self) -> None:
        """They are told, but for those that are being written, and what is no file of lines."""
        names = [self.write(f"logs-2020-01-{day}-aa")["name"] for day in ("06", "13", "20")]
        (self.directory / "README").touch()

        def told(known: list[str], begun: list[str]) -> list[str]:
            return writing.check(self.arguments(files=[], known=known, begun=begun), nothing)

        self.assertEqual(told(names, []), [])
        self.assertEqual(told(names[1:], ["logs-2020-01-06-aa"]), [])
        self.assertEqual(told(names[1:], []), [f"the database does not know {names[0]}"])
        self.assertEqual(
            told([], []), [f"the database does not know {names[0]} and 2 other files"]
        )
        (self.directory / names[0]).unlink()  # somebody moved it away
        self.assertEqual(told(names[1:], []), [])


class RewriteTests(WritingCase):
    """A file that is written again."""

    def test_the_rest_is_kept(self) -> None:
        """A good one loses the lines that are to go, and no other."""
        file = self.write()
        (new,) = self.rewrite(file)
        kept = parquet.read_table(self.directory / new["name"])["line"].to_pylist()
        self.assertEqual(kept, [f"line {n}" for n in range(0, 100, 2)])

    def test_another_file(self) -> None:
        """One that is shorter, or has other lines in as many octets, is not believed."""
        file = self.write()
        place = self.directory / file["name"]
        good = place.read_bytes()
        other = writing.write(
            self.arguments(prefix="logs-2020-01-13-cc"), week(ROWS[:10]), nothing
        )["files"][0]
        short = (self.directory / other["name"]).read_bytes()
        place.write_bytes(short)
        with self.assertRaisesRegex(Unavailable, "put it back from a copy"):
            self.rewrite(file)
        # Of the same size: only its content tells.
        manifest = self.manifest()
        manifest["files"][file["name"]]["size"] = len(short)
        (self.directory / "manifest.json").write_text(json.dumps(manifest))
        with self.assertRaisesRegex(Unavailable, "put it back from a copy"):
            self.rewrite(file, size=len(short))
        place.write_bytes(good)
        with self.assertRaises(Unavailable):  # the manifest is another one than the database's
            self.rewrite(file)
        manifest["files"][file["name"]]["size"] = len(good)
        (self.directory / "manifest.json").write_text(json.dumps(manifest))
        for wrong in ({"lines": 99}, {"forgotten": 49}):
            with self.assertRaises(Unavailable):
                self.rewrite(file, **wrong)
        self.assertEqual(sorted(self.manifest()["files"]), sorted([file["name"], other["name"]]))

    def test_an_archive_of_others(self) -> None:
        """Nothing is written where the manifest names another platform."""
        file = self.write()
        manifest = self.manifest() | {"platform": "another"}
        (self.directory / "manifest.json").write_text(json.dumps(manifest))
        with self.assertRaises(Conflict):
            self.rewrite(file)
        self.assertEqual(self.names(), [file["name"], "manifest.json"])


class ManifestTests(WritingCase):
    """The file that names all files."""

    def test_size(self) -> None:
        """It never becomes larger than what is read of it."""
        self.addCleanup(setattr, writing, "MAX_TEXT", places.MAX_TEXT)
        writing.MAX_TEXT = 600  # type: ignore[misc]
        self.write()
        before = self.manifest()
        with self.assertRaisesRegex(Unavailable, "too large"):
            self.write("logs-2020-01-13-cc")
        self.assertEqual(self.manifest(), before)


class CopyTests(WritingCase):
    """A platform, and a copy of it with the same database."""

    def test_a_copy_changes_nothing(self) -> None:
        """Files are those of who wrote them, until somebody says that another one takes them."""
        state, other = self.fresh("state"), self.fresh("state2")
        mine, copy = {"holder": holder(state)}, {"holder": holder(other)}
        file = self.write(**mine)
        before = self.names()
        for work in (
            lambda: self.write("logs-2020-01-13-cc", **copy),
            lambda: writing.remove(
                self.arguments(names=[file["name"]], prefixes=[], **copy), nothing
            ),
            lambda: self.rewrite(file, **copy),
        ):
            with self.assertRaisesRegex(Conflict, f"touch {other}"):
                work()
        claim = other / "take-log-archive"
        claim.touch()
        told = writing.check(self.arguments(files=[], **copy), nothing)
        self.assertIn("touch", told[0])  # who looks takes nothing over
        self.assertEqual(self.names(), before)
        self.write("logs-2020-01-13-cc", **copy)
        self.assertFalse(claim.exists())
        self.assertEqual(writing.check(self.arguments(files=[], **copy), nothing), [])
        with self.assertRaisesRegex(Conflict, f"touch {state}"):
            self.write("logs-2020-01-20-dd", **mine)

    def test_a_claim_waits(self) -> None:
        """It stays while the disk is not mounted, or where the archive is another platform's."""
        state = self.fresh("state")
        (state / "take-log-archive").touch()
        for text in (None, json.dumps({"format": 1, "platform": "another", "files": {}})):
            if text is not None:
                (self.directory / "manifest.json").write_text(text)
            with self.assertRaises((Conflict, Unavailable)):
                self.write(has_files=True, holder=holder(state))
            self.assertTrue((state / "take-log-archive").exists())


class SpaceTests(WritingCase):
    """A disk that others need, too."""

    def test_reserve(self) -> None:
        """No line is written to a disk that has little left; files are removed from it."""
        file = self.write()
        free = shutil.disk_usage(self.directory).free
        self.addCleanup(setattr, places, "RESERVE", places.RESERVE)
        places.RESERVE = 2 * free  # type: ignore[misc]
        with self.assertRaisesRegex(Unavailable, "MiB are free at .* larger disk"):
            self.write("logs-2020-01-13-cc")
        self.assertEqual(self.names(), [file["name"], "manifest.json"])
        writing.remove(self.arguments(names=[file["name"]], prefixes=[]), nothing)
        self.assertEqual(self.names(), ["manifest.json"])
