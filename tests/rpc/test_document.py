"""docs/protocols.md is enough to speak with the server: its bytes are sent as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

import walt
from tests.client.platform import ROOT, Server, reactor, until
from tests.patience import patient
from tests.server.wire.test_legacy import Peer

DOCUMENT = ROOT / "docs" / "protocols.md"
_DUMP = re.compile(r"    ((?:[0-9a-f]{2}|xx)(?: (?:[0-9a-f]{2}|xx)){0,15})(?:  .*)?")
NOW = 1795380000.25  # as many digits as the clock of the document


def section(title: str) -> list[str]:
    """Return the lines below a title of the document, up to the next title."""
    lines = DOCUMENT.read_text().splitlines()
    found = lines[lines.index(title) + 1:]
    ends = [number for number, line in enumerate(found) if line.startswith("#")]
    return found[:ends[0]] if ends else found


def dumps(lines: list[str]) -> list[list[int | None]]:
    """Return the hexadecimal dumps of a text, each a list of bytes; None is one that varies."""
    found: list[list[int | None]] = []
    inside = False
    for line in lines:
        match = _DUMP.fullmatch(line)
        if match is not None:
            if not inside:
                found.append([])
            found[-1] += [None if one == "xx" else int(one, 16) for one in match[1].split()]
        inside = match is not None
    return found


class _Client(Protocol):
    received = b""
    lost = False

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class WorkedExampleTests(TestCase):
    timeout = patient(20)

    async def test_session(self) -> None:
        """Each call of the document gets the answer that the document shows."""
        server = Server(self)
        server.platform.clock.advance(NOW - server.platform.clock.seconds())
        client = await connectProtocol(
            UNIXClientEndpoint(reactor, str(Path(server.directory) / "rpc.sock")), _Client()
        )
        shown = dumps(section("### A session by hand"))
        self.assertEqual(len(shown), 6)
        self.assertEqual(len(walt.__version__), 4, "write the new length into the document")
        for call, answer in zip(shown[::2], shown[1::2], strict=True):
            client.received = b""
            client.transport.write(bytes(one for one in call if one is not None))
            self.assertNotIn(None, call)
            await until(lambda: client.received.endswith(b"\0\0"))
            self.assertEqual(len(client.received), len(answer), client.received)
            self.assertEqual([
                None if wanted is None else byte
                for byte, wanted in zip(client.received, answer, strict=True)
            ], answer, client.received)
        client.transport.loseConnection()
        await until(lambda: client.lost)

    def test_columns(self) -> None:
        """The text beside each row of a dump says the same as its bytes."""
        for line in section("### A session by hand"):
            match = _DUMP.fullmatch(line)
            if match is None:
                continue
            text = line[4:].partition("  ")[2].lstrip(" ")
            shown = match[1].split()
            self.assertEqual(len(shown), len(text), line)
            for byte, sign in zip(shown, text, strict=True):
                if byte != "xx":
                    value = int(byte, 16)
                    self.assertEqual(sign, chr(value) if 32 <= value < 127 else ".", line)


class LegacyExampleTests(SynchronousTestCase):
    def test_session(self) -> None:
        """The lines of the document, in their order."""
        peer = Peer()
        lines = [
            line[4:] for line in section("## RPC: TCP 12345 and `<runtime-dir>/rpc.sock`")
            if line.startswith(("    > ", "    < "))
        ]
        self.assertGreater(len(lines), 5)
        received = b""
        for line in lines:
            if line.startswith("> "):
                received += peer.says(line[2:].encode() + b"\n")
                continue
            peer.clock.advance(0.75 if received == b"" else 0.0)
            received += peer.says(b"")
            wanted = line[2:].encode() + b"\n"
            self.assertTrue(received.startswith(wanted), (received, wanted))
            received = received[len(wanted):]
        self.assertEqual(received, b"")
        self.assertTrue(peer.transport.disconnecting)
