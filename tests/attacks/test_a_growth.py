"""What is small where it is sent, and large for who reads it."""

from __future__ import annotations

import io
import os
import pickletools
import resource
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.services import FakeBootFiles
from tests.system.live import ROOT
from tests.system.netns import short_dir
from walt.client.errors import Failure
from walt.client.operations import archives
from walt.common.archives import MAX_HEADER
from walt.common.errors import CommandFailed, NotFound, WaltError
from walt.common.transfers import DIRECTORY, Place
from walt.server.adapters.podman import capabilities, overlay
from walt.server.adapters.podman.boot_links import BootLinks
from walt.server.adapters.podman.imageroot import ImageRoot
from walt.server.adapters.podman.prepare import Preparation, prepare
from walt.server.adapters.tftpd.boot_files import open_inside
from walt.server.assembly import logging
from walt.server.http.peer_limits import CountedSite
from walt.server.http.site import make_site
from walt.server.streams.kernel_messages import MAX_FRAGMENTS, KernelMessages
from walt.server.wire import pickled
from walt.server.wire.connections import ALWAYS, DOORS, WEB, Connections, Kind, Limits, Share
from walt.server.workers import build_context, registry_api

DEEP = 1200  # directories, one in the other: more than Python functions may be


class PeerTests(SynchronousTestCase):
    def test_pickles_by_bytes(self) -> None:
        """A pickle that comes byte by byte is read once, not once for each byte."""
        looked = 0
        genops = pickletools.genops

        def counted(stream: Any) -> Iterator[Any]:
            nonlocal looked
            for one in genops(stream):
                looked += 1
                yield one

        self.patch(pickletools, "genops", counted)
        reader = pickled.Reader()
        for byte in b"\x80\x04(" + b"N0" * 2000 + b"t.":
            reader.add(bytes((byte,)))
            found = reader.take()
        self.assertEqual(found, ())
        self.assertLess(looked, 5000)

    def test_fragments(self) -> None:
        """A kernel message of very many fragments is given up."""
        kernel, lines = KernelMessages(), 0
        for number in range(3 * MAX_FRAGMENTS):
            lines += len(kernel.feed(b"6,1,1,-,ncfrag=%d/60000;x" % (2 * number)))
        self.assertEqual(lines, 3)

    def test_crowds(self) -> None:
        """Strangers of many addresses leave places for nodes; unix sockets have always one."""
        limits = Limits(6, {
            Kind.NODE: Share(9, 6), Kind.NEIGHBOUR: Share(1, 2), Kind.ELSEWHERE: Share(2, 3),
        })
        kinds = {"1": Kind.NODE, "2": Kind.NEIGHBOUR, "3": Kind.ELSEWHERE}
        connections = Connections(limits, lambda address: kinds[address[0]])

        def admitted(*addresses: str) -> list[str]:
            return [one for one in addresses if connections.admit(one)]

        self.assertEqual(admitted("3a", "3a", "3a", "3b", "3c"), ["3a", "3a", "3b"])
        # Addresses of walt-net that no known node has: somebody may give himself many.
        self.assertEqual(admitted("2a", "2a", "2b", "2c"), ["2a", "2b"])
        self.assertEqual(admitted("1a", "1a"), ["1a"])
        self.assertTrue(connections.admit(None))
        connections.release("3a")
        connections.release(None)
        self.assertEqual(admitted("3c", "3c"), ["3c"])

    def test_one_takes_all_it_can(self) -> None:
        """The fuller it is, the fewer are given to one: others find a place."""
        connections = Connections(DOORS, lambda address: Kind.NODE)
        taken = []
        for node in range(20):
            count = 0
            while connections.admit(str(node)):
                count += 1
            taken.append(count)
        self.assertLessEqual(taken[0], DOORS.shares[Kind.NODE].each)
        self.assertGreater(taken[0], taken[1])
        self.assertGreaterEqual(min(taken), ALWAYS)
        self.assertTrue(connections.admit("one more"))

    def test_the_log(self) -> None:
        """What strangers sent is shown in the server's log, not obeyed by its reader's terminal."""
        out = io.StringIO()
        logging.observer(out)({
            "log_format": "{name} was asked for", "name": "\x1b]0;title\x07\r\x9b31m",
            "log_time": 0, "log_namespace": "walt", "log_level": LogLevel.warn,
        })
        self.assertIn(r"\x1b]0;title\x07\r\x9b31m was asked for", out.getvalue())


class ReaderTests(TestCase):
    """Over TCP: the kernel tells what was taken."""

    timeout = 60

    async def test_nothing_is_taken(self) -> None:
        """Who asks for a file and does not read it is not served for ever."""
        node = "127.0.0.1"
        site = CountedSite(
            make_site(FakeBootFiles({(node, "large"): bytes(32 << 20)})),
            Connections(WEB, lambda address: Kind.NODE), 1.0,
        )
        ended: Deferred[None] = Deferred()
        site.unregisterProtocol = (  # type: ignore[method-assign]
            lambda p: CountedSite.unregisterProtocol(site, p) or ended.callback(None)
        )
        port: Any = reactor.listenTCP(0, site, interface=node)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((node, port.getHost().port))
            client.sendall(b"GET /boot/large HTTP/1.1\r\nHost: x\r\n\r\n")
            await ended


class ImageTests(SynchronousTestCase):
    """Trees that an author of images can make."""

    def setUp(self) -> None:
        self.base = short_dir(self)
        self.tree = self.base / "tree"
        for name in ("boot/pc-x86-64", "etc", "usr"):
            (self.tree / name).mkdir(parents=True)

    def dig(self, place: Path, depth: int = DEEP) -> None:
        """Make directories in directories."""
        here = os.open(place, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    def clean(self, place: Path) -> None:
        """Remove them: trial cannot."""
        self.addCleanup(run, ["rm", "-rf", "--", str(place)], check=True)

    def test_deep_directories(self) -> None:
        """They are looked at, and removed, as others are."""
        self.clean(self.base)
        for place in (self.tree / "usr", self.tree / "boot"):
            self.dig(place)
        with ImageRoot(self.tree) as root:
            capabilities.replace(root, self.fail)
            self.assertEqual(root.links_below("/boot"), [])
        context, image = self.base / "context", self.base / "image"
        for place in (context, image / overlay.CHANGES):
            place.mkdir(parents=True)
            self.dig(place)
        build_context.remove({"directory": str(context)}, self.fail)
        overlay.unmount_image(image)
        self.assertFalse(context.exists() or image.exists())

    def test_directories_that_no_path_reaches(self) -> None:
        """Links that cannot be looked at keep the image from being served."""
        self.clean(self.base)
        self.dig(self.tree / "boot", 2500)
        todo = Preparation({"server_ip": "192.0.2.1"}, self.base, "ssh-ed25519 x", self.base / "no")
        self.assertRaises(CommandFailed, prepare, self.tree, todo, lambda text: None)

    def test_links_that_hide_others(self) -> None:
        """One that cannot be followed, or changed, hides none of those after it."""
        boot = self.tree / "boot"
        leaks = [boot / "a", boot / "pc-x86-64/leak", boot / "z"]
        for hidden in ("loop/x", "/" + "d/" * 2040):
            for name in ("l", "pc-x86-64/l", "m"):
                (boot / name).unlink(missing_ok=True)
                (boot / name).symlink_to(hidden)
            for leak in leaks:
                leak.unlink(missing_ok=True)
                leak.symlink_to("../" * 30 + "etc/passwd")
            (boot / "loop").unlink(missing_ok=True)
            (boot / "loop").symlink_to("loop")
            with ImageRoot(self.tree) as root:
                try:
                    BootLinks(root).confine()
                except ValueError:
                    pass
            for leak in leaks:
                self.assertFalse(leak.exists(), (hidden, leak))

    def test_long_ways(self) -> None:
        """Links to links of long ways cost the server no thousands of descriptors."""
        boot, limits = self.tree / "boot", resource.getrlimit(resource.RLIMIT_NOFILE)
        (boot / "d").mkdir()
        (boot / "file").write_text("end")
        for number in range(30):
            (boot / f"l{number}").symlink_to("d/../" * 800 + (f"l{number + 1}" if number < 29
                                                             else "file"))
        opened, real = 0, os.open

        def counted(*words: Any, **more: Any) -> int:
            nonlocal opened
            opened += 1
            return real(*words, **more)

        self.patch(os, "open", counted)
        self.assertRaises(NotFound, open_inside, self.tree, ("boot",), "l0")
        self.assertLess(opened, limits[0])
        self.assertLess(opened, 2000)

    def test_lines_of_ptpd(self) -> None:
        """A file of empty lines is read once, not once for each of them."""
        (self.tree / "etc/ptpd.conf").write_text("ptpengine:\n" + "\n" * 300_000)
        words = "import sys; from tests.attacks.test_a_growth import attempt; attempt(sys.argv[1])"
        run([sys.executable, "-c", words, str(self.tree)], check=True, cwd=ROOT, timeout=40)
        self.assertIn("ptpengine:ip_mode = hybrid", (self.tree / "etc/ptpd.conf").read_text())


def attempt(tree: str) -> None:
    """Prepare a tree: the parent ends us."""
    todo = Preparation({"server_ip": "192.0.2.1"}, Path(tree), "ssh-ed25519 x", Path(tree) / "no")
    prepare(Path(tree), todo, lambda text: None)


class ArchiveTests(SynchronousTestCase):
    """What a node or an image sends to who copies files, or saves a node."""

    def archive(self, **headers: str) -> bytes:
        """Return an archive of one file with extended headers."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("./f")
            member.pax_headers = headers
            archive.addfile(member)
        return made.getvalue()

    def test_the_client(self) -> None:
        """Times that are none, headers of headers, large headers: a sentence, and no memory."""
        head = tarfile.TarInfo("././@LongLink")
        head.type, head.size = tarfile.GNUTYPE_LONGNAME, 100
        one = head.tobuf(tarfile.GNU_FORMAT) + b"a" * 512
        large = self.archive(comment="x" * (MAX_HEADER + 1))
        for data in (
            self.archive(mtime="1e30"), self.archive(mtime="nan"), one * 3000, large, one + large,
        ):
            place = Place(self.mktemp(), None)
            self.assertRaises(
                Failure, archives.unpack, io.BytesIO(data), DIRECTORY, place, self.fail
            )

    def test_saved_nodes(self) -> None:
        """A time that no number holds is an error of the archive."""
        place = Path(self.mktemp())
        place.mkdir()
        done = run(
            [sys.executable, "-m", "walt.server.workers.unpack_tree", str(place)],
            input=self.archive(mtime="1e999999"), capture_output=True, check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertNotIn(b"Traceback", done.stderr)
        self.assertIn(b"time that is none", done.stderr)


class RegistryTests(SynchronousTestCase):
    """A registry that answers what it likes, over TCP."""

    def ask(self, answer: bytes) -> dict[str, Any]:
        """Return what a search finds."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve() -> None:
                while True:
                    try:
                        client = server.accept()[0]
                    except OSError:
                        return
                    with client:
                        client.recv(65536)
                        client.sendall(answer)

            port = server.getsockname()[1]
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                return registry_api.search({
                    "base": f"http://127.0.0.1:{port}/", "verify": True, "limit": 20.0,
                    "ca_directory": "/nonexistent",
                }, self.fail)
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()

    def test_answers(self) -> None:
        """They are errors of the registry, or nothing: never an error of the server."""
        fine = b"HTTP/1.0 200 OK\r\n"
        labels = b'{"repositories":["a/b"],"tags":["t"],"config":{"digest":"x","Labels":%s}}'
        for answer in (
            b"ZZZ\r\n\r\n", fine + b"a: b\r\n" * 200 + b"\r\n{}",
            fine + b"a: " + b"b" * 70000 + b"\r\n\r\n{}", fine + b"\r\n[]", fine + b"\r\n3",
            fine + b'Link: <http://[x>; rel="next"\r\n\r\n{}', fine + b'\r\n{"repositories":3}',
            *(fine + b"\r\n" + labels % one for one in (b'{"walt.node.models":5}', b"[1]", b"7")),
            fine + b'\r\n{"repositories":["a/b"],"tags":["t"],"manifests":3}',
            fine + b'\r\n{"repositories":["a/b"],"tags":["t"],"manifests":[3],"config":[]}',
        ):
            try:
                found = self.ask(answer)
            except WaltError:
                continue
            self.assertEqual(found["images"], [], answer[:80])
