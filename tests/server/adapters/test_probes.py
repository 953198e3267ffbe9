from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.adapters.dhcpd import probe as dhcpd
from walt.server.adapters.dhcpd.daemon import complaint
from walt.server.adapters.lldp import probe as snmpd
from walt.server.adapters.named import probe as named
from walt.server.adapters.nbdkit import probe as nbdkit
from walt.server.adapters.nfs import probe as nfs
from walt.server.adapters.postgres import probe as postgres
from walt.server.adapters.tftpd import probe as tftpd
from walt.server.adapters.vpn import sshd
from walt.server.adapters.vpn.host_keys import KEPT, ScannedHostKeys
from walt.server.runtime.process import ProcessResult
from walt.server.runtime.watching import NoAnswer

MAC = bytes.fromhex("020000000001")


class SshdTests(SynchronousTestCase):
    def test_greeting(self) -> None:
        """The first line of SSH, in pieces, whatever the version; nothing else."""
        whole = b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"
        for size in range(len(whole)):
            self.assertIsNone(sshd.read_greeting(whole[:size]))
        self.assertTrue(sshd.read_greeting(whole))
        for other in (b"HTTP/1.1 400\r\n", b"SSH-1.5-old\n", b"\n"):
            with self.assertRaises(NoAnswer):
                sshd.read_greeting(other)

    def test_its_log(self) -> None:
        """What it tells of our questions is left out, what it tells of others is not."""
        for line, ours in (
            ("Connection closed by 127.0.0.1 port 4711", True),
            ("kex_exchange_identification: Connection closed by remote host", True),
            ("Connection closed by 10.0.0.1 port 4711 [preauth]", False),
            ("Accepted publickey for walt-vpn from 127.0.0.1 port 1", False),
        ):
            self.assertEqual(sshd.is_of_probe(line), ours, line)


class HostKeysTests(SynchronousTestCase):
    def test_asked_once(self) -> None:
        """Answers count for some seconds, failures too; another host is asked."""
        runner: Any = Scans()
        moment = [100.0]
        file = Path(self.mktemp()) / "keys"
        keys = ScannedHostKeys(runner, lambda: moment[0], file, lambda text: None)

        def ask(host: str, port: int = 22) -> str:
            return self.successResultOf(Deferred.fromCoroutine(keys.of(host, port)))

        self.assertEqual(ask("a.org"), "|1|x ssh-ed25519 AAAA\n")
        ask("a.org")
        self.assertEqual(len(runner.calls), 1)
        self.assertEqual(runner.calls[0][-4:], ["-p", "22", "--", "a.org"])
        moment[0] += KEPT
        ask("a.org")
        ask("a.org", 2222)
        self.assertEqual(len(runner.calls), 3)
        for _ in range(3):
            self.failureResultOf(
                Deferred.fromCoroutine(keys.of("silent.org", 22)), Unavailable
            )
        self.assertEqual(len(runner.calls), 4)

    def test_changed(self) -> None:
        """Who shows other keys later is refused, after a restart too, until the line is gone."""
        runner: Any = Scans()
        file, said = Path(self.mktemp()) / "keys", list[str]()

        def ask(*keys: str, host: str = "a.org") -> str:
            runner.output = "".join(f"|1|{len(runner.calls)}|x {one}\n" for one in keys)
            scanned = ScannedHostKeys(runner, lambda: 0.0, file, said.append)
            return self.successResultOf(Deferred.fromCoroutine(scanned.of(host, 22)))

        good = ("ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 BBBB")
        first = ask(*good)
        self.assertEqual(ask(*good[::-1]).count("AAAA"), 1)
        self.assertNotEqual(ask(*good), first)  # names are hashed anew
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(runner.lasting, [file.stat().st_ino, file.parent.stat().st_ino])
        self.assertEqual(len(said), 1)
        for evil in (
            ("ssh-ed25519 EEEE",), ("ssh-ed25519 EEEE", good[1]), ("ssh-rsa EEEE",),
            (good[0], "ssh-ed25519 EEEE"),
        ):
            with self.assertRaisesRegex(AssertionError, "shows other keys"):
                ask(*evil)
            self.assertIn(str(file), said[-1])
        self.assertEqual(ask(good[0]).split()[1:], good[0].split())
        self.assertNotIn("EEEE", ask(*good, "ssh-rsa EEEE"))  # another type is not passed on
        ask("ssh-ed25519 CCCC", host="b.org")
        file.write_text("".join(
            line for line in file.read_text().splitlines(True) if not line.startswith("a.org:22 ")
        ))
        self.assertIn("EEEE", ask("ssh-ed25519 EEEE"))
        with self.assertRaises(AssertionError):
            ask("ssh-ed25519 EEEE", host="b.org")


class Scans:
    """Runs ssh-keyscan, which hears nothing of one host."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.output = "|1|x ssh-ed25519 AAAA\n"
        self.lasting: list[int] = []  # inodes of what a power failure leaves

    async def run(self, argv: list[str], **options: Any) -> ProcessResult:
        """Return what it prints."""
        if argv[0] == "sync":
            self.lasting.append(Path(argv[-1]).stat().st_ino)
            return ProcessResult(tuple(argv), 0, b"", b"")
        self.calls.append(argv)
        silent = argv[-1] == "silent.org"
        return ProcessResult(
            tuple(argv), 1 if silent else 0, b"" if silent else self.output.encode(), b""
        )


class DhcpdTests(SynchronousTestCase):
    def test_question(self) -> None:
        """A frame for the interface itself: IPv4 with a right checksum, UDP, DHCPINFORM."""
        frame = dhcpd.question(0x01020304, MAC, "192.168.77.1")
        self.assertEqual(frame[:14], MAC + MAC + b"\x08\x00")
        head = struct.unpack("!10H", frame[14:34])
        total = sum(head)
        self.assertEqual((total & 0xFFFF) + (total >> 16), 0xFFFF)
        self.assertEqual(head[1], len(frame) - 14)
        own = socket.inet_aton("192.168.77.1")
        self.assertEqual(frame[26:34], own + own)
        self.assertEqual(struct.unpack("!HHH", frame[34:40]), (68, 67, len(frame) - 34))
        message = frame[42:]
        self.assertEqual(message[4:8], b"\1\2\3\4")
        self.assertEqual(message[12:16], own)  # ciaddr: where the answer goes
        self.assertEqual(message[236:243], b"\x63\x82\x53\x63\x35\1\x08")

    def test_answer(self) -> None:
        """The acknowledgement of this very question, nothing else."""
        good = (
            b"\2\1\6\0\0\0\0\7" + bytes(228) + b"\x63\x82\x53\x63" + bytes([53, 1, 5]) + b"\xff"
        )
        self.assertTrue(dhcpd.is_answer(good, 7))
        self.assertFalse(dhcpd.is_answer(good, 8))
        self.assertFalse(dhcpd.is_answer(good[:242], 7))
        self.assertFalse(dhcpd.is_answer(b"\1" + good[1:], 7))
        self.assertFalse(dhcpd.is_answer(good.replace(b"\x35\1\5", b"\x35\1\6"), 7))

    def test_complaint(self) -> None:
        """Why it gave up, without its banner and its paragraph on bugs."""
        self.assertEqual(complaint([
            "Internet Systems Consortium DHCP Server 4.4.3-P1", "Copyright 2004-2022 I.",
            "All rights reserved.", "For info, please visit https://www.isc.org/software/dhcp/",
            "/x/dhcpd.conf line 7: semicolon expected.", "host", "^",
            "Configuration file errors encountered -- exiting",
            "If you think you have received this message due to a bug rather",
            "than a configuration issue please read the section on submitting", "exiting.",
        ]), "it refuses its configuration: /x/dhcpd.conf line 7: semicolon expected. / host / ^ / "
            "Configuration file errors encountered -- exiting")
        self.assertEqual(complaint([]), "")
        self.assertEqual(complaint([
            "Internet Systems Consortium DHCP Server 4.4.3-P1", "Config file: /x/dhcpd.conf",
            "No subnet declaration for walt-net (no IPv4 addresses).", "exiting.",
        ]), "No subnet declaration for walt-net (no IPv4 addresses).")
        self.assertEqual(complaint(["Can't bind to dhcp address: Address already in use"]),
                         "Can't bind to dhcp address: Address already in use")


class NamedTests(SynchronousTestCase):
    def answer(self, number: int = 5, code: int = 0, *records: dns.RRHeader) -> bytes:
        """Return an answer to a query of ours."""
        message = dns.Message(id=number, answer=1, rCode=code)
        message.addQuery("walt", type=dns.SOA)
        message.answers = list(records)
        return bytes(message.toStr())

    def test_query(self) -> None:
        """SOA of the zone, class IN, without recursion."""
        self.assertEqual(
            named.query("walt", 5), b"\0\5\0\0\0\1\0\0\0\0\0\0" b"\4walt\0" b"\0\6\0\1"
        )

    def test_answers(self) -> None:
        """The serial, or the code of the refusal; other messages are nothing."""
        soa = dns.RRHeader("walt", dns.SOA, payload=dns.Record_SOA(
            "server.walt", "root.server.walt", serial=4294967295
        ))
        other = dns.RRHeader("walt", dns.A, payload=dns.Record_A("192.168.77.1"))
        self.assertEqual(
            named.read_answer(self.answer(5, 0, other, soa), 5), named.Soa(4294967295, 0)
        )
        refused = named.read_answer(self.answer(5, 2), 5)
        assert refused is not None
        self.assertEqual((refused.serial, refused.refusal()), (None, "SERVFAIL"))
        self.assertEqual(named.Soa(None, 9).refusal(), "code 9")
        self.assertIsNone(named.read_answer(self.answer(6, 0, soa), 5))
        self.assertIsNone(named.read_answer(named.query("walt", 5), 5))
        self.assertIsNone(named.read_answer(self.answer(5, 0, soa)[:11], 5))


class TftpdTests(SynchronousTestCase):
    def test_answers(self) -> None:
        """A first block, an acknowledgement of options, an error; nothing else."""
        self.assertEqual(tftpd.request("pxe/x"), b"\0\1pxe/x\0octet\0")
        for raw, told in (
            (b"\0\3\0\1#!ipxe", ""), (b"\0\6tsize\0007\0", ""),
            (b"\0\5\0\1File not found\0", "File not found"), (b"\0\5\0\2", "error 2"),
            (b"\0\5\0\0\xff\0", "\ufffd"), (b"\0\3\0\2x", None), (b"\0\3\0", None),
            (b"\1\3\0\1", None), (b"", None), (b"\0\4\0\1", None),
        ):
            self.assertEqual(tftpd.read_answer(raw), told, raw)


class NbdkitTests(SynchronousTestCase):
    def test_greeting(self) -> None:
        """All 18 bytes of it; another program is told at its first wrong byte."""
        good = b"NBDMAGICIHAVEOPT\0\3"
        for size in range(len(good)):
            self.assertIsNone(nbdkit.read_greeting(good[:size]))
        self.assertTrue(nbdkit.read_greeting(good))
        for bad in (b"SSH-2.0", b"NBDMAGIC\0", b"HTTP/1.0 400 Bad Request\r\n"):
            self.assertRaises(NoAnswer, nbdkit.read_greeting, bad)


class NfsTests(SynchronousTestCase):
    def test_question(self) -> None:
        """One fragment with a call of RFC 5531: NFS, version 4, procedure 0, nobody's."""
        self.assertEqual(len(nfs.NULL_CALL), 44)
        words = struct.unpack("!11I", nfs.NULL_CALL)
        self.assertEqual(words[0], 0x80000000 | 40)
        self.assertEqual(words[2:7], (0, 2, 100003, 4, 0))
        self.assertEqual(set(words[7:]), {0})

    def test_reply(self) -> None:
        """Accepted and done, all 28 bytes; a refusal is told."""
        xid = nfs.NULL_CALL[4:8]
        good = b"\x80\0\0\x18" + xid + struct.pack("!5I", 1, 0, 0, 0, 0)
        for size in range(len(good)):
            self.assertIsNone(nfs.read_reply(good[:size]))
        self.assertTrue(nfs.read_reply(good))
        mismatch = b"\x80\0\0\x18" + xid + struct.pack("!5I", 1, 0, 0, 0, 2)
        self.assertRaises(NoAnswer, nfs.read_reply, mismatch)


class PostgresTests(SynchronousTestCase):
    def test_answer(self) -> None:
        """Yes or no; another program is told."""
        self.assertEqual(postgres.QUESTION, b"\0\0\0\x08\x04\xd2\x16\x2f")
        self.assertIsNone(postgres.read_answer(b""))
        self.assertTrue(postgres.read_answer(b"N"))
        self.assertTrue(postgres.read_answer(b"S"))
        self.assertRaises(NoAnswer, postgres.read_answer, b"HTTP")


class SnmpdTests(SynchronousTestCase):
    # GetResponse of snmpd 5.9.3 for sysObjectID.0: request-id 0x40000001, community lab-7.
    ANSWER = bytes.fromhex(
        "303202010104056c61622d37a22602044000000102010002010030183016"
        "06082b06010201010200060a2b060104 01bf0803020a"
    )

    def test_answers(self) -> None:
        """A value, no value, an error; answers to other questions count for nothing."""
        number = 0x40000001
        self.assertIs(snmpd.read_answer(self.ANSWER, number), True)
        self.assertIsNone(snmpd.read_answer(self.ANSWER, number + 1))
        for size in range(len(self.ANSWER)):
            self.assertIsNone(snmpd.read_answer(self.ANSWER[:size], number), size)
        for tag in (0x80, 0x81):
            absent = self.ANSWER[:-12] + bytes([tag, 10]) + self.ANSWER[-10:]
            self.assertIs(snmpd.read_answer(absent, number), False)
        error = self.ANSWER.replace(bytes.fromhex("020100020100"), bytes.fromhex("020105020101"))
        self.assertIs(snmpd.read_answer(error, number), False)

    def test_question(self) -> None:
        """The question is the one that snmpd answers with the above."""
        self.assertEqual(
            snmpd.question("lab-7", 0x40000001, snmpd.SYS_OBJECT_ID).hex(),
            "302802010104056c61622d37a01c020440000001020100020100300e300c"
            "06082b060102010102000500",
        )


class ParserTests(SynchronousTestCase):
    @given(st.binary(max_size=600))
    def test_anything(self, raw: bytes) -> None:
        """Whatever arrives, nothing but the errors that were announced."""
        number = int.from_bytes(raw[:2], "big")
        self.assertIn(dhcpd.is_answer(raw, number), (True, False))
        named.read_answer(raw, number)
        tftpd.read_answer(raw)
        self.assertIn(snmpd.read_answer(raw, number), (True, False, None))
        for read in (nbdkit.read_greeting, nfs.read_reply, postgres.read_answer):
            try:
                read(raw)
            except NoAnswer:
                pass
