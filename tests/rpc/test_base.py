"""The AMP connection: long values both ways, errors contained, boxes bounded."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.test.iosim import IOPump, connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.transports import TcpTransport
from walt.common import ampbox
from walt.common.errors import ERRORS, NotFound, Unavailable
from walt.rpc.arguments import Json, Text
from walt.rpc.base import ApiProtocol, WaltCommand


class Echo(WaltCommand):
    """Return what it gets."""

    commandName = b"cs.test.echo"
    side = "cs"
    arguments = [(b"value", Json()), (b"text", Text(1 << 26))]
    response = [(b"value", Json()), (b"text", Text(1 << 26))]


class Fail(WaltCommand):
    """Fail in some way."""

    commandName = b"cs.test.fail"
    side = "cs"
    arguments = [(b"how", Text())]


class Server(ApiProtocol):
    @Echo.responder
    def echo(self, value: Any, text: str) -> dict[str, Any]:
        return {"value": value, "text": text}

    @Fail.responder
    def fail(self, how: str) -> dict[str, Any]:
        if how == "bug":
            raise ZeroDivisionError("a secret of the server")
        if how == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/walt/x")
        if how == "bad answer":
            return None  # type: ignore[return-value]
        if how in ERRORS:
            raise ERRORS[how]("declared")
        raise NotFound(how * 1_000_000 if how == "x" else how)


class ApiProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client: ApiProtocol
        self.pump: IOPump
        self.client, self.server, self.pump = connectedServerAndClient(Server, ApiProtocol)

    def ask(self, command: Any, **arguments: Any) -> Deferred[Any]:
        outcome: Deferred[Any] = Deferred()
        # AMP takes a failure that nobody handles at once for an unhandled one.
        self.client.callRemote(command, **arguments).addBoth(outcome.callback)
        self.pump.flush()
        return outcome

    def usable(self) -> None:
        """Check that the connection still answers."""
        answer = self.successResultOf(self.ask(Echo, value=1, text="t"))
        self.assertEqual(answer, {"value": 1, "text": "t"})

    def test_five_thousand_rows(self) -> None:
        """A table of 5,000 rows travels both ways."""
        rows = [{"name": f"node-{number}", "ip": "192.168.1.1"} for number in range(5000)]
        answer = self.successResultOf(self.ask(Echo, value=rows, text=""))
        self.assertEqual(answer["value"], rows)

    def test_sizes(self) -> None:
        """Values around multiples of 65,535 bytes, two long ones in one box."""
        for size in (65_535, 65_536, 131_070, 131_071):
            text = "é" * (size // 2) + "x" * (size % 2)
            answer = self.successResultOf(self.ask(Echo, value=text, text=text))
            self.assertEqual(answer, {"value": text, "text": text})

    def test_long_error_text(self) -> None:
        """An error text of 1 MB arrives whole."""
        failure = self.failureResultOf(self.ask(Fail, how="x"), NotFound)
        self.assertEqual(len(str(failure.value)), 1_000_000)
        self.usable()

    def test_declared_error(self) -> None:
        """It arrives as itself, with its wire code."""
        failure = self.failureResultOf(self.ask(Fail, how="no such thing"), NotFound)
        self.assertEqual(str(failure.value), "no such thing")

    def test_undeclared_error(self) -> None:
        """The caller gets a reference and nothing of the bug; the log has both."""
        for how in ("bug", "bad answer"):
            failure = self.failureResultOf(self.ask(Fail, how=how))
            text = str(failure.value)
            self.assertNotIn("secret", text)
            self.assertRegex(text, r"reference [0-9a-f]+")
            self.assertGreaterEqual(len(self.flushLoggedErrors()), 1)
            self.usable()

    def test_full_disk(self) -> None:
        """A full disk of the server is no bug: the caller is told what to do."""
        failure = self.failureResultOf(self.ask(Fail, how="full disk"), Unavailable)
        self.assertEqual(
            str(failure.value),
            "the server cannot write /var/lib/walt/x: No space left on device; free some space"
            " on it",
        )
        self.usable()

    def test_one_method_for_two_commands(self) -> None:
        """A method may answer several commands."""

        class Other(Echo):
            """The same, by another name."""

            commandName = b"vs.test.echo"

        class Both(ApiProtocol):
            @Echo.responder
            @Other.responder
            def echo(self, value: Any, text: str) -> dict[str, Any]:
                return {"value": value, "text": text}

        self.client, self.server, self.pump = connectedServerAndClient(Both, ApiProtocol)
        for command in (Echo, Other):
            answer = self.successResultOf(self.ask(command, value=1, text="t"))
            self.assertEqual(answer, {"value": 1, "text": "t"})

    def test_unknown_command(self) -> None:
        """UNHANDLED, and the connection stays usable."""

        class Unknown(Fail):
            """Nobody answers it."""

            commandName = b"cs.test.unknown"

        self.failureResultOf(self.ask(Unknown, how=""), amp.UnhandledCommand)
        self.usable()

    def test_wrong_argument(self) -> None:
        """INVALID names the argument; nothing is logged as a bug."""

        class Wrong(Echo):
            """The same command, called by a program of another version."""

            commandName = Echo.commandName
            arguments = [(b"value", amp.String()), (b"text", amp.String())]

        failure = self.failureResultOf(self.ask(Wrong, value=b"{", text=b""))
        self.assertIn("value", str(failure.value))
        self.usable()

    def test_every_error_keeps_its_class(self) -> None:
        """Each declared error arrives as its own class, not as the base class."""
        for error in ERRORS.values():
            failure = self.failureResultOf(self.ask(Fail, how=error.code), error)
            self.assertIs(failure.type, error)


class LimitTests(SynchronousTestCase):
    def test_oversize_box(self) -> None:
        """A box above the limit ends the connection before it is kept."""
        protocol = Server()
        protocol.max_box = 200_000
        transport = TcpTransport()
        protocol.makeConnection(transport)
        data = ampbox.encode({b"_command": b"x", b"value": bytes(300_000)})
        for at in range(0, len(data), 65_536):
            if not transport.aborted:
                protocol.dataReceived(data[at:at + 65_536])
        self.assertTrue(transport.aborted)

    def test_key_too_long(self) -> None:
        """A key above 255 bytes ends the connection."""
        protocol = Server()
        transport = TcpTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(b"\x01\x00")
        self.assertTrue(transport.aborted)

    def test_many_small_boxes(self) -> None:
        """The limit is one box's, not the connection's."""
        protocol = Server()
        protocol.max_box = 200
        transport = TcpTransport()
        protocol.makeConnection(transport)
        box = ampbox.encode(
            {b"_command": b"cs.test.echo", b"_ask": b"1", b"value": b"1", b"text": b""}
        )
        protocol.dataReceived(box * 50)
        self.assertEqual(len(amp.parseString(transport.value())), 50)
        self.assertFalse(transport.aborted)
