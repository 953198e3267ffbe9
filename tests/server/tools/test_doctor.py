"""What the doctor makes of the machine, and of what strangers answer; live: tests.system."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.vpn.authority import CA_KEY
from walt.server.assembly import confinement, preflight
from walt.server.config.model import NetworkConfig, Paths, ServerConfig, Vpn
from walt.server.tools.doctor import dhcp, machine, probes, vpn
from walt.server.tools.doctor.findings import Finding, Step, Wrong, status, summary
from walt.server.tools.doctor.machine import Machine
from walt.server.tools.doctor.outside import Site
from walt.server.tools.doctor.vpn import VpnSteps

GIB = 1 << 30


def offer(number: int, options: bytes, file: bytes = b"pxe/walt.ipxe") -> bytes:
    """Return a frame with a DHCPOFFER."""
    message = (
        struct.pack("!BBBBI", 2, 1, 6, 0, number) + bytes(8) + bytes([10, 0, 0, 9]) + bytes(24)
        + bytes(64) + file.ljust(128, b"\0") + b"\x63\x82\x53\x63" + options
    )
    udp = struct.pack("!HHHH", 67, 68, 8 + len(message), 0) + message
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                       bytes([10, 0, 0, 1]), b"\xff" * 4)
    return bytes(12) + b"\x08\x00" + head + udp


class VpnTests(SynchronousTestCase):
    """Faults of the way in of boards; that it is found good is told by tests.system.test_vpn."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()).absolute()
        (self.state / "vpn-server").mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.steps = self.of(Vpn(True, "gate.org:2022", "gate.org", "enforced", self.port))

    def of(self, vpn: Vpn) -> VpnSteps:
        """Return the steps of a configuration."""
        return VpnSteps(ServerConfig(
            networks={"walt-net": NetworkConfig("walt-net", ip=IPv4Interface("10.0.0.1/24"))},
            paths=Paths(self.state, self.state, self.state, self.state), vpn=vpn,
        ), Site(None))

    def look(self, name: str) -> Finding:
        """Return what one step finds."""
        return next(one for one in self.steps.steps() if one.name == name).finding()

    def test_none(self) -> None:
        """A platform without VPN has nothing to try."""
        self.assertEqual(self.of(Vpn()).steps(), [])

    def test_sshd(self) -> None:
        """Nothing answers, or something else."""
        found = self.look("VPN sshd")
        self.assertEqual((found.state, "nothing answers" in found.text), ("wrong", True))
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            thread = threading.Thread(target=lambda: listening.accept()[0].sendall(b"220 mail\r\n"))
            thread.start()
            found = self.look("VPN sshd")
            thread.join()
        self.assertEqual((found.state, "no ssh server" in found.text), ("wrong", True))
        self.assertTrue(found.remedy)

    def test_entry_points(self) -> None:
        """Each is tried as boards do; before the first start there are no keys."""
        self.assertEqual(self.look("VPN ssh entry point").state, "skipped")
        (self.state / "vpn-server" / CA_KEY).touch()
        asked: list[tuple[object, ...]] = []
        self.patch(vpn, "try_ssh", lambda *words: asked.append(words) or "refused")
        self.patch(vpn, "ask_http", lambda *words: asked.append(words) or "no such host")
        found = self.look("VPN ssh entry point")
        self.assertEqual((found.state, "refused" in found.text), ("wrong", True))
        found = self.look("VPN HTTP entry point")
        self.assertEqual((found.state, "no such host" in found.text), ("doubtful", True))
        self.assertEqual([words[0] for words in asked], ["gate.org", "gate.org"])
        self.assertEqual(asked[0][1], 2022)


class MachineTests(SynchronousTestCase):
    def setUp(self) -> None:
        config = ServerConfig(
            networks={"walt-net": NetworkConfig("walt-net", ip=IPv4Interface("10.0.0.1/24"))},
            paths=Paths(Path("/s"), Path("/r"), Path("/c"), Path("/l")),
        )
        self.machine = Machine(config, Site(None))

    def state(self, look: Callable[[], str]) -> tuple[str, str]:
        """Return the state and the words of a step."""
        found = Step("it", look).finding()
        if found.state == "wrong":
            self.assertTrue(found.remedy)
        return found.state, found.text

    def test_space(self) -> None:
        """Little space is doubtful; none, no more files, or a read-only disk is wrong."""
        for free, files, flag, state, words in (
            (9 * GIB, 10**6, 0, "good", "9 GiB free"), (GIB, 10**6, 0, "doubtful", "1024 MiB"),
            (GIB // 8, 10**6, 0, "wrong", "only 128 MiB"),
            (9 * GIB, 10, 0, "wrong", "10 more files"),
            (9 * GIB, 10**6, os.ST_RDONLY, "wrong", "is read-only"),
        ):
            self.patch(os, "statvfs", lambda path, free=free, files=files, flag=flag:
                       SimpleNamespace(f_flag=flag, f_bavail=free // 4096, f_frsize=4096,
                                       f_files=10**7, f_favail=files))
            found = self.state(lambda: self.machine.space(Path("/s")))
            self.assertEqual(found[0], state, found)
            self.assertIn(words, found[1])

    def test_no_directory(self) -> None:
        """A state directory that is not there is told."""
        self.assertEqual(
            self.state(lambda: self.machine.space(Path("/nowhere/at/all"))),
            ("wrong", "/nowhere/at/all is not there"),
        )

    def test_clock(self) -> None:
        """A clock before the installation, or decades after it, is wrong."""
        now = time.time()
        for moment, words in ((now - 10 * 365 * 86400, "before this software"),
                              (now + 40 * 365 * 86400, "decades after")):
            self.patch(time, "time", lambda moment=moment: moment)
            state, text = self.state(self.machine.clock)
            self.assertEqual(state, "wrong")
            self.assertIn(words, text)

    def test_programs(self) -> None:
        """Missing programs are told by their packages."""
        self.patch(preflight, "find_program", lambda name: None if name == "named" else name)
        self.assertEqual(self.state(self.machine.programs), ("wrong", "missing: bind9"))

    def test_neighbours(self) -> None:
        """More nodes than the kernel may remember are doubtful; the remedy has room for them."""
        limit = Path(self.mktemp())
        self.patch(machine, "NEIGHBOURS", limit)
        self.machine._rows = {"services": [], "nodes": [{}] * 600}
        self.assertEqual(self.state(self.machine.neighbours)[0], "skipped")
        limit.write_text("1024\n")
        found = Step("it", self.machine.neighbours).finding()
        self.assertEqual(found.state, "doubtful")
        self.assertIn("gc_thresh3=2400", found.remedy)
        limit.write_text("4096\n")
        self.assertEqual(self.state(self.machine.neighbours)[0], "good")

    def test_apparmor(self) -> None:
        """Profiles that lack our directories are wrong where they are enforced."""
        self.patch(confinement, "is_enforced", lambda: True)
        self.patch(confinement, "problems", lambda paths: ["dhcpd is kept out"])
        self.assertEqual(self.state(self.machine.apparmor), ("wrong", "dhcpd is kept out"))
        self.patch(confinement, "problems", lambda paths: [])
        self.assertEqual(self.state(self.machine.apparmor)[0], "good")
        self.patch(confinement, "is_enforced", lambda: False)
        self.assertEqual(self.state(self.machine.apparmor)[0], "skipped")


class FindingsTests(SynchronousTestCase):
    def test_one_line(self) -> None:
        """Whatever was found is one line; what fails in the doctor is a finding, too."""

        def look() -> str:
            raise Wrong("two\nlines", "mend it")

        def broken() -> str:
            raise PermissionError(13, "Permission denied")

        self.assertEqual(Step("A", look).finding().line(), "WRONG   A: two / lines -- mend it")
        self.assertIn("Permission denied", Step("B", broken).finding().line())

    def test_status(self) -> None:
        """1 for what is wrong; doubts are none."""
        good, doubt, bad = (Finding("x", state, "t") for state in ("good", "doubtful", "wrong"))
        for findings, expected, words in (
            ([good], 0, "nothing is wrong"), ([good, doubt], 0, "1 of 2 steps are doubtful"),
            ([good, doubt, bad], 1, "1 of 3 steps are wrong"),
        ):
            self.assertEqual(status(findings), expected)
            self.assertIn(words, summary(findings))


class DhcpTests(SynchronousTestCase):
    def test_offer(self) -> None:
        """Server, address and file of the offer for this very question."""
        raw = offer(7, bytes([53, 1, 2, 54, 4, 10, 0, 0, 2, 255]))
        found = dhcp.read_offer(raw, 7)
        assert found is not None
        self.assertEqual((found.server, found.address, found.file),
                         ("10.0.0.2", "10.0.0.9", "pxe/walt.ipxe"))
        self.assertIsNone(dhcp.read_offer(raw, 8))
        self.assertIsNone(dhcp.read_offer(raw.replace(bytes([53, 1, 2]), bytes([53, 1, 5])), 7))
        # Without the option: who sent it.
        found = dhcp.read_offer(offer(7, bytes([53, 1, 2, 255])), 7)
        assert found is not None
        self.assertEqual(found.server, "10.0.0.1")

    @given(st.binary(max_size=400), st.integers(0, 400))
    def test_anything(self, raw: bytes, cut: int) -> None:
        """What strangers send is an offer or not; options are never read beyond their end."""
        dhcp.read_offer(raw, 7)
        dhcp.read_offer(offer(7, bytes([53, 1, 2]) + raw)[:42 + cut], 7)
        for value in dhcp.read_options(raw).values():
            self.assertLessEqual(len(value), len(raw))

    def test_question(self) -> None:
        """A DISCOVER to everybody, which asks for no lease."""
        frame = dhcp.question(5, b"\2walt\1"[:6], {60: b"class"})
        self.assertEqual(frame[:6], b"\xff" * 6)
        self.assertIn(bytes([53, 1, 1]), frame)
        self.assertIn(b"\x3c\x05class", frame)


class HoldersTests(SynchronousTestCase):
    def test_names(self) -> None:
        """The programs in what ss prints."""
        text = ('UNCONN 0 0 10.0.0.1:53 0.0.0.0:* users:(("dnsmasq",pid=7,fd=4))\n'
                'UNCONN 0 0 *:53 *:* users:(("named",pid=8,fd=4),("named",pid=8,fd=5))\n')
        self.assertEqual(probes.holders(text), "dnsmasq, named")
        self.assertEqual(probes.holders(""), "")
