"""Archives of backups: whole ones come back, any other one is refused before it writes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.common.errors import Invalid, WaltError
from walt.common.files import write_atomic
from walt.server.adapters.postgres.restore import check_restore
from walt.server.config.load import parse
from walt.server.tools.backup import places, save, sparse
from walt.server.tools.backup.archive import MANIFEST, Writer, is_name, verified, walk
from walt.server.tools.backup.restore import restore

CONF = b"network: {walt-net: {ip: 10.0.0.1/24}}\nstate-dir: %s\n"
MAC = "02:00:00:00:00:01"


class ArchiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = short_dir(self)
        self.file = self.place / "b.tar"

    def write(self, members: dict[str, bytes], images: dict[str, str] | None = None) -> None:
        """Write a good archive."""
        writer = Writer(self.file)
        for name, data in members.items():
            writer.add_bytes(name, data)
        writer.close(images or {})

    def test_back_again(self) -> None:
        """What was added is told and comes back; the file is whole, and root's alone."""
        self.write({"a/b": b"x" * 5000, "c": b""}, {"ann/x:latest": "12ab"})
        found = verified(self.file)
        self.assertEqual(found.images, {"ann/x:latest": "12ab"})
        self.assertEqual(
            {name: stream.read() for name, stream in walk(self.file)},
            {"a/b": b"x" * 5000, "c": b""},
        )
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.place), ["b.tar"])

    def test_every_byte_counts(self) -> None:
        """A changed byte of contents, or a missing end, is refused."""
        self.write({"a": b"secret" * 100, "b": b"more"})
        good = self.file.read_bytes()
        at = good.index(b"secret")
        for bad in (good[:at] + b"S" + good[at + 1:], good[:at + 100], good[:-20000] or b"",
                    b"", b"not a tar", good.replace(b'"format": 1', b'"format": 2')):
            self.file.write_bytes(bad)
            self.assertRaises(Invalid, verified, self.file)

    def spoilt(self, change: Callable[[tarfile.TarFile], None], manifest: Any = None) -> None:
        """Write an archive by hand, with what nobody else would have in it."""
        with tarfile.open(self.file, "w") as archive:
            change(archive)
            text = json.dumps(manifest if manifest is not None else {
                "format": 1, "walt": "11", "made": 1, "members": {}, "images": [],
            }).encode()
            info = tarfile.TarInfo(MANIFEST)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))

    def test_hostile_members(self) -> None:
        """Links, devices, names that lead out, twice the same one, something after the end."""

        def odd(kind: bytes, name: str = "x", link: str = "") -> Callable[[tarfile.TarFile], None]:
            def change(archive: tarfile.TarFile) -> None:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, link
                archive.addfile(info)
            return change

        def twice(archive: tarfile.TarFile) -> None:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("same"))

        for change in (
            odd(tarfile.SYMTYPE, link="/etc/passwd"), odd(tarfile.LNKTYPE, link="../x"),
            odd(tarfile.CHRTYPE), odd(tarfile.FIFOTYPE), odd(tarfile.DIRTYPE),
            odd(tarfile.REGTYPE, "../../etc/cron.d/x"), odd(tarfile.REGTYPE, "/etc/passwd"),
            odd(tarfile.REGTYPE, "a/../b"), odd(tarfile.REGTYPE, "a//b"),
            odd(tarfile.REGTYPE, "-x"), odd(tarfile.REGTYPE, "a\nb"), twice,
        ):
            self.spoilt(change)
            self.assertRaises(Invalid, verified, self.file)

    def test_hostile_manifests(self) -> None:
        """Whatever it says, it is refused in words."""
        good = {"format": 1, "walt": "11", "made": 1, "members": {}, "images": []}
        for bad in (
            [], {}, 5, "x", {**good, "members": []}, {**good, "images": [{}]},
            {**good, "members": {"x": {"size": 0, "sha256": "0" * 64, "mode": 0}}},
            {**good, "members": {"../x": {"size": 0, "sha256": "0" * 64, "mode": 0}}},
            {**good, "members": {"x": {"size": True, "sha256": 5, "mode": "rw"}}},
            {**good, "images": [{"name": 5, "id": None}]}, {**good, "made": None},
        ):
            self.spoilt(lambda archive: None, bad)
            self.assertRaises(Invalid, verified, self.file)

    def test_places(self) -> None:
        """A member goes to its place, or to none."""
        state, config = Path("/s"), Path("/c/my.conf")
        for name, expected in (
            ("state/keys/host", "/s/keys/host"), ("config/server.conf", "/c/my.conf"),
            ("config/server.env", "/c/server.env"), ("state/.walt-net.mac", "/s/.walt-net.mac"),
            ("state/postgres/x", None), ("state/keys/../../etc/x", None), ("state/keys", None),
            ("config/other", None), ("etc/passwd", None), ("state//keys/x", None),
        ):
            found = places.target_of(name, state, config)
            self.assertEqual(None if found is None else str(found), expected, name)
        for name, right in (
            (f"persist/{MAC}/ann.ext4", True), (f"persist/{MAC}/../x.ext4", False),
            ("persist/zz:00:00:00:00:01/ann.ext4", False), (f"persist/{MAC}/-x.ext4", False),
        ):
            self.assertEqual(places.persistent_target(name, Path("/n")) is not None, right, name)

    @given(st.text(max_size=60))
    def test_names(self, text: str) -> None:
        """No name leads out of a directory."""
        if is_name(text):
            inside = os.path.normpath(f"/base/{text}")
            self.assertEqual(inside, f"/base/{text}")
            self.assertFalse(text.startswith("-"))

    def test_credentials_of_the_store(self) -> None:
        """Those of archived lines come back where they lie beside server.conf, else are named."""
        self.patch(save, "_add_database", lambda writer, scratch: writer.add_bytes(
            places.DATABASE, b"dump"
        ))
        self.patch(save, "_add_images", lambda *words: {})
        state, away = self.place / "state", self.place / "elsewhere"
        beside = self.place / "log-archive.credentials"
        for file in (beside, away):
            write_atomic(file, b"secret", 0o600)
            text = CONF.decode() % state + (
                f"logs: {{archive: {{to: 's3://bucket', credentials: {file}}}}}\n"
            )
            (self.place / "server.conf").write_text(text)
            told: list[str] = []
            self.file.unlink(missing_ok=True)
            save.save(parse(text), self.place / "server.conf", self.file, told.append)
            self.assertEqual(f"{file} is not in it: keep a copy of that file, too" in told,
                             file is away)
        new = self.place / "new"
        new.mkdir()
        restore(new / "server.conf", self.file, lambda text: None)
        copy = new / "log-archive.credentials"
        self.assertEqual((copy.read_bytes(), copy.stat().st_mode & 0o777), (b"secret", 0o600))

    # -- restoring ------------------------------------------------------------

    def try_restore(self, members: dict[str, bytes], images: dict[str, str] | None = None) -> str:
        """Restore; return what was told, or the reason why not."""
        self.write(members, images)
        try:
            restore(self.place / "new.conf", self.file, lambda text: None)
        except WaltError as error:
            return str(error)
        return ""

    def test_restored_files(self) -> None:
        """Files come where they belong, with their modes; the dump waits for the server."""
        state = self.place / "state"
        told = self.try_restore({
            "database/walt.dump": b"dump", "config/server.conf": CONF % bytes(state),
            "state/keys/host": b"key", "state/.walt-net.mac": b"52:54:00:01:02:03\n",
        })
        self.assertEqual(told, "")
        self.assertEqual((state / "keys/host").read_bytes(), b"key")
        self.assertEqual((state / "keys/host").stat().st_mode & 0o777, 0o600)
        self.assertEqual((state / "restore/walt.dump").read_bytes(), b"dump")
        self.assertTrue((self.place / "new.conf").exists())
        self.assertEqual(os.listdir(state / "restore"), ["walt.dump"])
        self.file.unlink()
        self.assertIn("holds a platform already", self.try_restore({
            "database/walt.dump": b"", "config/server.conf": CONF % bytes(state),
        }))

    def test_cut(self) -> None:
        """A restore that was cut is begun again; a server does not start meanwhile."""
        state = self.place / "state"
        members = {
            "database/walt.dump": b"dump", "config/server.conf": CONF % bytes(state),
            f"persist/{MAC}/ann.ext4": b'{"size": 4, "extents": [[0, 9]]}\n',
        }
        self.assertIn("too large, or shorter", self.try_restore(members))
        self.assertIn("run it again", check_restore(state)[0])
        self.file.unlink()
        del members[f"persist/{MAC}/ann.ext4"]
        self.assertEqual(self.try_restore(members), "")
        self.assertEqual(check_restore(state), [])

    def test_refused_whole(self) -> None:
        """A good archive with a member of no place, or a name that is none, writes nothing."""
        state = self.place / "state"
        base = {"database/walt.dump": b"", "config/server.conf": CONF % bytes(state)}
        for more, images, words in (
            ({"etc/shadow": b"x"}, {}, "it holds etc/shadow"),
            ({"state/services/named/x": b"x"}, {}, "it holds state/services"),
            ({}, {"-x/y:z": "1"}, "is no name of an image"),
            ({}, {"ann/x:latest --y": "1"}, "is no name of an image"),
        ):
            self.assertIn(words, self.try_restore({**base, **more}, images))
            self.file.unlink()
            self.assertFalse(state.exists())
        self.assertIn("lacks database", self.try_restore({"config/server.conf": b""}))


class SparseTests(SynchronousTestCase):
    def test_back_again(self) -> None:
        """Holes stay holes, data stay where they are."""
        place = short_dir(self)
        source, target, packed = place / "a", place / "b", io.BytesIO()
        with source.open("wb") as stream:
            stream.truncate(64 << 20)
            for at, data in ((0, b"begin"), (1 << 20, b"x" * 70000), ((64 << 20) - 4, b"last")):
                stream.seek(at)
                stream.write(data)
        sparse.pack(source, packed)
        self.assertLess(packed.tell(), 1 << 20)
        packed.seek(0)
        sparse.unpack(packed, target)
        self.assertEqual(target.read_bytes(), source.read_bytes())
        self.assertLess(target.stat().st_blocks * 512, 1 << 20)

    @given(st.one_of(st.binary(max_size=100), st.builds(
        lambda size, parts: json.dumps({"size": size, "extents": parts}).encode(),
        st.integers(-5, 1 << 70), st.lists(st.lists(st.integers(-9, 1 << 50), max_size=3)),
    )))
    def test_any_head(self, line: bytes) -> None:
        """It makes sense, or is refused in words."""
        try:
            size, parts = sparse.head(line)
        except Invalid:
            return
        self.assertLessEqual(size, sparse.LARGEST)
        self.assertTrue(all(start >= 0 and start + length <= size for start, length in parts))

    def test_lies(self) -> None:
        """Data that are missing, or too many, are told."""
        place = short_dir(self)
        for number, raw in enumerate((
            b'{"size": 9, "extents": [[0, 4]]}\nab', b'{"size": 9, "extents": [[0, 2]]}\nabc',
            b'{"size": 9, "extents": [[4, 2], [5, 1]]}\nabc', b"\n", b"",
        )):
            self.assertRaises(Invalid, sparse.unpack, io.BytesIO(raw), place / str(number))
