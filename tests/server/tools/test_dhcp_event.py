from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.patience import patient
from tests.system.netns import short_dir
from walt.common import ampbox
from walt.common.leases import Sighting, proposed_name
from walt.rpc.base import ApiProtocol
from walt.rpc.commands.devices import RegisterDevice
from walt.server.tools.dhcp_event import parse, request

MAC = "00:0c:01:02:03:04"


def words(**changes: str) -> list[str]:
    """Return a command line."""
    values = {"vci": "", "uci": "", "ip": "192.168.1.7", "mac": MAC, "name": "",
              "known": "0", "dev_type": "unknown", **changes}
    return ["commit", *values.values()]


class ParseTests(SynchronousTestCase):
    def test_new_device(self) -> None:
        """A device without host entry is reported, with a proposal for its name."""
        self.assertEqual(
            parse(words(vci="v", name="Probe")).wanted,
            Sighting(MAC, "192.168.1.7", "v", "", "probe-020304"),
        )
        self.assertEqual(
            parse(words(mac="0:c:1:2:3:4")).wanted,
            Sighting(MAC, "192.168.1.7"),
        )

    def test_early_exits(self) -> None:
        """Typed devices, and known unknown ones that are no nodes, are not reported."""
        for changes, told in (
            ({"known": "1", "dev_type": "node"}, False),
            ({"known": "1"}, False),
            ({"known": "1", "vci": "walt.node.rpi-4-b"}, True),
            ({"known": "1", "uci": "walt.node.pc-x86-64"}, True),
            ({"known": "1", "uci": "xwalt.node.pc"}, False),
        ):
            self.assertEqual(parse(words(**changes)).wanted is not None, told, changes)
        self.assertEqual(parse(["release", "x"]), (None, None))

    def test_names(self) -> None:
        """Six digits are added unless they end the name already, or a name is forced."""
        self.assertEqual(proposed_name("Pi", MAC), "pi-020304")
        self.assertEqual(proposed_name("Pi-020304", MAC), "Pi-020304")
        self.assertEqual(proposed_name("Pi", MAC, force=True), "Pi")
        self.assertIsNone(proposed_name("", MAC, force=True))
        line = words(name="Pi")
        line.insert(1, "--force-name")
        wanted = parse(line).wanted
        assert wanted is not None
        self.assertEqual(wanted.name, "Pi")

    def test_wrong_usage(self) -> None:
        """What cannot be an event is refused with a sentence."""
        for line in ([], ["commit"], words()[:-1], [*words(), "x"], words(mac="x"),
                     words(ip="1.2.3"), words(known="yes"), words(mac=MAC + "\n")):
            self.assertIsNotNone(parse(line).error, line)

    @settings(deadline=None)
    @given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
    def test_request(self, vci: str, uci: str, name: str) -> None:
        """Any texts travel in one box that the server's command understands."""
        raw = request(Sighting(MAC, "192.168.1.7", vci, uci, name or None))
        (box,) = ampbox.Decoder().feed(raw)
        self.assertEqual(box[b"_command"], b"ss.devices.register")
        self.assertEqual(box[b"vci"].decode(), vci)
        self.assertEqual(b"name" in box, bool(name))


class Server(ApiProtocol):
    """Answers registrations as the server does."""

    seen: list[dict] = []

    @RegisterDevice.responder
    def register(self, **values: object) -> dict:
        self.seen.append(values)
        return {}


class CommandTests(TestCase):
    timeout = patient(30)

    async def setUp(self) -> None:
        self.path = short_dir(self) / "rpc.sock"
        Server.seen = []

    async def listen(self, protocol: type[Protocol]) -> None:
        port = await UNIXServerEndpoint(reactor, str(self.path)).listen(
            Factory.forProtocol(protocol)
        )
        self.addCleanup(port.stopListening)

    async def run_it(self, *line: str) -> tuple[bytes, int]:
        """Run the tool in a process of its own."""
        env = {**os.environ, "WALT_RPC_SOCKET": str(self.path),
               "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-m", "walt.server.tools.dhcp_event", *line], env
        )
        return out + err, status

    async def test_registers(self) -> None:
        """The server's own command receives the values."""
        await self.listen(Server)
        out, status = await self.run_it(*words(vci="walt.node.rpi-4-b", name="$(reboot)é"))
        self.assertEqual((out, status), (b"", 0))
        self.assertEqual(Server.seen, [{
            "vci": "walt.node.rpi-4-b", "uci": "", "ip": "192.168.1.7", "mac": MAC,
            "name": "$(reboot)é-020304",
        }])

    async def test_no_server(self) -> None:
        """Without server the status is 1 and the sentence says what to look at."""
        out, status = await self.run_it(*words())
        self.assertEqual(status, 1)
        self.assertIn(b"is it running?", out)

    async def test_server_that_closes(self) -> None:
        """A server that leaves without an answer is an error."""

        class Closing(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

        await self.listen(Closing)
        _, status = await self.run_it(*words())
        self.assertEqual(status, 1)

    async def test_usage(self) -> None:
        """Wrong usage has status 2; nothing to tell has status 0."""
        self.assertEqual((await self.run_it("commit"))[1], 2)
        self.assertEqual((await self.run_it(*words(known="1", dev_type="node")))[1], 0)
        self.assertEqual((await self.run_it("expiry"))[1], 0)

    async def test_imports(self) -> None:
        """It starts without Twisted: dhcpd waits for it."""
        _, err, _ = await getProcessOutputAndValue(
            sys.executable, ["-X", "importtime", "-c", "import walt.server.tools.dhcp_event"],
            {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        )
        modules = {line.split(b"|")[-1].strip().split(b".")[0] for line in err.splitlines()}
        self.assertFalse(modules & {b"twisted", b"zope", b"asyncio", b"json"}, modules)
