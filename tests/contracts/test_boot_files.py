"""What every IBootFiles does, on the fake and on real trees."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.fakes.services import FakeBootFiles
from tests.system.netns import short_dir
from walt.common.errors import NotFound
from walt.server.adapters.tftpd.boot_files import BootFiles
from walt.server.domain.network_services.interfaces import IBootFiles

IMAGE = "ab" * 32
NODE, MAC = "192.168.77.20", "02:00:00:00:00:01"


class BootFilesContract:
    """The cases; `make` returns an IBootFiles with kernel and sub/initrd for NODE."""

    @abstractmethod
    def make(self) -> Any:
        """Given by each implementation; the class tells what."""

    def read(self, files: Any, node: str, path: str) -> bytes:
        found = files.open(node, path)
        with found.stream:
            raw = found.stream.read()
        self.assertEqual(len(raw), found.size)  # type: ignore[attr-defined]
        return raw

    def test_provides_the_port(self) -> None:
        """It has the methods of IBootFiles."""
        verifyObject(IBootFiles, self.make())

    def test_files(self) -> None:
        """Files come with their size, by address or MAC, whatever the slashes."""
        files = self.make()
        for node in (NODE, f"::ffff:{NODE}", MAC, MAC.upper()):
            self.assertEqual(self.read(files, node, "kernel"), b"linux")  # type: ignore[attr-defined]
        for path in ("/kernel", "//kernel", "./kernel"):
            self.assertEqual(self.read(files, NODE, path), b"linux")  # type: ignore[attr-defined]
        self.assertEqual(self.read(files, NODE, "sub/initrd"), b"")  # type: ignore[attr-defined]

    def test_nothing_there(self) -> None:
        """Missing files, directories and unknown nodes are not found."""
        files = self.make()
        for node, path in (
            (NODE, "absent"), (NODE, ""), (NODE, "/"), (NODE, "sub"), (NODE, "kernel/x"),
            ("192.168.77.21", "kernel"), ("", "kernel"), ("..", "kernel"), ("node-1", "kernel"),
            (NODE, "../kernel"), (NODE, "sub/../kernel"), (NODE, "kernel\0"), (NODE, "é" * 3000),
        ):
            self.assertRaises(NotFound, files.open, node, path)  # type: ignore[attr-defined]


class FakeTests(BootFilesContract, SynchronousTestCase):
    def make(self) -> FakeBootFiles:
        return FakeBootFiles({
            (node, path): raw for node in (NODE, MAC)
            for path, raw in (("kernel", b"linux"), ("sub/initrd", b""))
        })


class RealTests(BootFilesContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.state = short_dir(self)
        self.fs = self.state / "images" / IMAGE / "fs"
        self.boot = self.fs / "boot" / "pc-x86-64"
        (self.boot / "sub").mkdir(parents=True)
        (self.boot / "kernel").write_bytes(b"linux")
        (self.boot / "sub" / "initrd").write_bytes(b"")
        (self.state / "nodes" / MAC).mkdir(parents=True)
        (self.state / "nodes" / NODE).symlink_to(MAC)
        (self.state / "nodes" / MAC / "tftp").symlink_to(
            f"../../images/{IMAGE}/fs/boot/pc-x86-64"
        )
        (self.state / "secret").write_bytes(b"secret")
        (self.fs / "inside").write_bytes(b"inside")

    def make(self) -> BootFiles:
        return BootFiles(self.state)

    def test_links_inside_the_image(self) -> None:
        """Links are followed as if the image were the root directory."""
        for name, target in (
            ("relative", "../../inside"), ("absolute", "/inside"), ("far", "../../../../inside"),
            ("twice", "relative"), ("through", "/boot/../inside"),
        ):
            (self.boot / name).symlink_to(target)
            self.assertEqual(self.read(self.make(), NODE, name), b"inside", name)

    def test_links_out_of_the_image(self) -> None:
        """No link leads outside, nor round in circles, nor to something that is no file."""
        os.mkfifo(self.boot / "fifo")
        for name, target in (
            ("up", "../../../../../secret"), ("host", str(self.state / "secret")),
            ("passwd", "/etc/passwd"), ("proc", "/proc/self/environ"), ("loop", "loop"),
            ("dir", "/"), ("empty", "sub"),
        ):
            (self.boot / name).symlink_to(target)
        (self.boot / "updir").symlink_to("../../../../..")
        for path in ("up", "host", "passwd", "proc", "loop", "dir", "empty", "fifo",
                     "updir/secret", "dir/secret", "updir/etc/passwd"):
            self.assertRaises(NotFound, self.make().open, NODE, path)

    def test_tampered_node_links(self) -> None:
        """A link of the tree that leads elsewhere than an image serves nothing."""
        tftp = self.state / "nodes" / MAC / "tftp"
        for target in ("/etc", "../..", f"../../images/{IMAGE}/fs/../../..", "/x/../tftp-static"):
            tftp.unlink()
            tftp.symlink_to(target)
            self.assertRaises(NotFound, self.make().open, NODE, "passwd")
        (self.state / "nodes" / "192.168.77.22").symlink_to("../../etc")
        self.assertRaises(NotFound, self.make().open, "192.168.77.22", "passwd")

    def test_static(self) -> None:
        """Nodes on tftp-static get its files."""
        (self.state / "tftp-static").mkdir()
        (self.state / "tftp-static" / "config.txt").write_bytes(b"firmware")
        tftp = self.state / "nodes" / MAC / "tftp"
        tftp.unlink()
        tftp.symlink_to("../../tftp-static")
        self.assertEqual(self.read(self.make(), NODE, "config.txt"), b"firmware")

    def test_no_descriptor_is_left(self) -> None:
        """Neither success nor failure leaves descriptors open."""
        (self.boot / "loop").symlink_to("loop")
        files = self.make()
        before = len(os.listdir("/proc/self/fd"))
        for path in ("kernel", "absent", "loop", "sub", "kernel/x"):
            try:
                files.open(NODE, path).stream.close()
            except NotFound:
                continue
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
