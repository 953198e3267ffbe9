"""Boot files of boards: archives of any kind, odd and hostile ones, cuts."""

from __future__ import annotations

import errno
import hashlib
import io
import lzma
import os
import resource
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.server.tools.test_setup import Site
from walt.common.errors import Invalid, Unavailable
from walt.server.tools.setup.firmware import chosen, members, obtained

RELEASE = {
    "firmware-1/README": b"r", "firmware-1/boot/start4.elf": b"four",
    "firmware-1/boot/overlays/a.dtbo": b"overlay", "firmware-1/boot/walt.date": b"1\n",
}


def tar(files: dict[str, bytes], mode: str = "w:gz", *more: tarfile.TarInfo) -> bytes:
    """Return a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


class FirmwareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        self.site = Site(Path(self.mktemp()).absolute())
        self.static = self.site.root / "var/lib/walt/tftp-static"

    def archive(self, content: bytes, name: str = "a") -> Path:
        """Return an archive as a file."""
        place = Path(self.mktemp())
        place.mkdir()
        (place / name).write_bytes(content)
        return (place / name).absolute()

    def install(self, source: Path | str) -> tuple[int, str, str]:
        """Call set-up with an archive."""
        return self.site.call("--board-firmware", str(source))

    def there(self) -> dict[str, bytes]:
        """Return what boards get, without the marker."""
        return {
            str(one.relative_to(self.static)): one.read_bytes()
            for one in self.static.rglob("*") if one.is_file() and one.name != "walt.date"
        }

    def test_kinds(self) -> None:
        """Tar, compressed or not, and zip: the directory of the first stages is taken."""
        wanted = {"start4.elf": b"four", "overlays/a.dtbo": b"overlay"}
        for content in (
            tar(RELEASE), tar(RELEASE, "w"), tar(RELEASE, "w:xz"), tar(RELEASE, "w:bz2"),
            zipped(RELEASE),
        ):
            self.site = Site(Path(self.mktemp()).absolute())
            self.static = self.site.root / "var/lib/walt/tftp-static"
            status, out, err = self.install(self.archive(content))
            self.assertEqual((status, err), (0, ""), out)
            self.assertEqual(self.there(), wanted)
            self.assertEqual((self.static / "start4.elf").stat().st_mode & 0o777, 0o644)
            last = (self.static / "walt.date").read_text().splitlines()[-1]
            self.assertGreater(int(last), 1_600_000_000)

    def test_again_and_beside(self) -> None:
        """The same one is there already; another one comes beside; a newer one replaces."""
        first, second = self.archive(tar(RELEASE)), self.archive(tar({"u-boot.bin": b"u"}))
        self.assertEqual(self.install(first)[0], 0)
        self.assertIn("boot files of boards: as it should be", self.install(first)[1])
        self.assertEqual(self.install(second)[0], 0)
        self.assertEqual(set(self.there()), {"start4.elf", "overlays/a.dtbo", "u-boot.bin"})
        self.assertIn("as it should be", self.install(first)[1])
        newer = self.archive(tar({"boot/start4.elf": b"newer"}))
        self.assertEqual(self.install(newer)[0], 0)
        self.assertEqual(self.there()["start4.elf"], b"newer")
        # Back to the former one; what somebody removed comes again.
        self.assertEqual(self.install(first)[0], 0)
        self.assertEqual(self.there()["start4.elf"], b"four")
        (self.static / "overlays/a.dtbo").unlink()
        self.assertEqual(self.install(first)[0], 0)
        self.assertIn("overlays/a.dtbo", self.there())

    def test_by_http(self) -> None:
        """From an address; what is not there, or does not answer, is told."""
        content = tar(RELEASE)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                good = self.path == "/firmware.tar.gz"
                self.send_response(200 if good else 404)
                self.end_headers()
                self.wfile.write(content if good else b"")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self.addCleanup(stop)
        address = f"http://127.0.0.1:{server.server_port}"
        good = f"{address}/firmware.tar.gz#sha256={hashlib.sha256(content).hexdigest()}"
        with obtained(good, {}) as place:
            self.assertEqual(place.read_bytes(), content)
        self.assertFalse(place.exists())
        for source, kind in (
            (f"{address}/none#sha256=0", Unavailable),
            ("http://127.0.0.1:1/x#sha256=0", Unavailable),
            (f"{address}/firmware.tar.gz", Invalid), (f"{good[:-1]}x", Invalid),
        ):
            self.assertRaises(kind, obtained(source, {}).__enter__)
        self.assertRaises(Invalid, obtained(good, {}, most=10).__enter__)

    def refused(self, content: bytes) -> str:
        """Return why an archive is refused; nothing of it is there."""
        status, _, err = self.install(self.archive(content))
        self.assertEqual(status, 1)
        self.assertEqual(self.there() if self.static.exists() else {}, {})
        return err

    def test_refused(self) -> None:
        """What leads elsewhere, is no file, has no first stage, is damaged, encrypted, missing."""
        for name in ("../start4.elf", "/boot/start4.elf", "a/../../start4.elf"):
            self.assertIn("leads elsewhere", self.refused(tar({"start4.elf": b"", name: b"x"})))
            self.assertIn("leads elsewhere", self.refused(zipped({"start4.elf": b"", name: b"x"})))
        link = tarfile.TarInfo("boot/kernel.img")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        self.assertIn("neither a file", self.refused(tar(RELEASE, "w", link)))
        self.assertIn("no boot files", self.refused(tar({"README": b"x"})))
        self.assertIn("no archive", self.refused(b"x" * 4000))
        self.assertIn("no archive", self.refused(tar(RELEASE)[:60]))
        status, _, err = self.install("/nowhere/a.tar")
        self.assertEqual(status, 1)
        self.assertIn("/nowhere/a.tar", err)
        self.assertEqual(self.site.call("--check", "--board-firmware", "x")[0], 1)

    def test_too_much(self) -> None:
        """A bomb is refused before it is unpacked."""
        huge = tarfile.TarInfo("start4.elf")
        huge.size = 1 << 40
        head = huge.tobuf() + b"\0" * 1024
        self.assertIn("too large", self.refused(head))

    def test_much_memory(self) -> None:
        """A name of hundreds of megabytes is not read; the limit is gone afterwards."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        head = tarfile.TarInfo("././@LongLink")
        head.type, head.size = tarfile.GNUTYPE_LONGNAME, 400 << 20
        place = Path(self.mktemp()).absolute()
        with lzma.open(place, "wb", preset=0) as stream:
            stream.write(head.tobuf(tarfile.GNU_FORMAT))
            for _ in range(400):
                stream.write(b"x" * (1 << 20))
        status, _, err = self.install(place)
        self.assertEqual((status, "memory" in err), (1, True), err)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_AS), before)

    def test_clashes(self) -> None:
        """A name is a file or a directory; dates are dates; nothing is written before."""
        self.assertIn("as a file and as a directory", self.refused(
            tar({"start4.elf": b"x", "overlays": b"x", "overlays/a": b"x"})
        ))
        odd = tarfile.TarInfo("start4.elf")
        odd.pax_headers = {"mtime": "inf"}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(odd)
        self.assertIn("archive", self.refused(out.getvalue()))

    def test_full_disk(self) -> None:
        """It is told, nothing is left half-written, and the next call goes on."""
        archive = self.archive(tar(RELEASE))

        def full(content: object, stream: Any, size: int) -> None:
            stream.write(b"f")
            raise OSError(errno.ENOSPC, "No space left on device")

        patched = self.patch(shutil, "copyfileobj", full)
        status, _, err = self.install(archive)
        self.assertEqual((status, "o space left" in err), (1, True), err)
        self.assertEqual(self.there(), {})
        patched.restore()
        self.assertEqual(self.install(archive)[0], 0)
        self.assertEqual(self.there()["start4.elf"], b"four")

    def test_behind_a_link(self) -> None:
        """A directory of tftp-static that is a link is not followed."""
        self.static.mkdir(parents=True)
        (self.static / "overlays").symlink_to("/tmp")
        status, _, err = self.install(self.archive(tar(RELEASE)))
        self.assertEqual(status, 1)
        self.assertIn("is a link", err)

    @given(st.binary(max_size=300), st.integers(0, 2))
    def test_any_bytes(self, content: bytes, kind: int) -> None:
        """Nothing but words comes of it."""
        whole = (content, tar(RELEASE, "w")[:512] + content, zipped(RELEASE)[:-30] + content)[kind]
        place = self.archive(whole)
        try:
            with members(place) as found:
                names: Any = chosen(found)
        except (Invalid, OSError):
            return
        self.assertTrue(all(".." not in name.parts for name in names))
