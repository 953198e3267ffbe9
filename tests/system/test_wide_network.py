"""A walt-net of 65,000 addresses: boards that are not known find their first files there, too."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.dhcp_packets import DISCOVER, MESSAGE, DhcpClient
from tests.system.live import LivePlatform, why_not
from tests.system.netns import Namespace, short_dir

BOARD = "b8:27:eb:00:00:07"


class WideNetworkTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_a_board_that_requests_no_address(self) -> None:
        """It uses what it is offered, as firmware of Raspberry Pis does, and gets its files."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor, net="10.66.0", prefix=16)
        self.addCleanup(platform.close)
        static = platform.state / "tftp-static"
        static.mkdir(mode=0o755)
        (static / "bootcode.bin").write_text("firmware")
        await platform.start()
        nodes = platform.state / "nodes"
        self.assertEqual([one for one in os.listdir(nodes) if one.startswith("10.66.")], [])
        board = Namespace(self)
        await platform.runner.run(["ip", "-n", platform.namespace, "-batch", "-"], stdin=(
            f"link add cable type veth peer name eth0 netns {board.name}\n"
            "link set cable master walt-net up\n"
        ).encode())
        board.run("ip", "link", "set", "eth0", "up")
        client = DhcpClient(reactor, board, "eth0")
        self.addCleanup(client.close)
        offer = await client.ask(BOARD, {MESSAGE: bytes([DISCOVER])}, tries=60)
        self.assertTrue(offer.yiaddr.startswith("10.66."))

        board.run("ip", "address", "add", f"{offer.yiaddr}/16", "dev", "eth0")
        got = short_dir(self) / "got"
        argv = board.command(
            "tftp", "-m", "binary", "10.66.0.1", "-c", "get", "bootcode.bin", str(got)
        )

        async def fetched() -> bool:
            await getProcessOutputAndValue(argv[0], argv[1:], os.environ)
            return got.exists() and got.read_text() == "firmware"

        await platform.until(fetched, "the board gets its files", 20)
        # Nothing else of the network has links, and the board is no device yet.
        self.assertEqual(
            [one for one in os.listdir(nodes) if one.startswith("10.66.")], [offer.yiaddr]
        )
        self.assertNotIn(BOARD, await platform.ok("device", "show"))
        self.assertEqual(Path(os.readlink(nodes / offer.yiaddr)), Path("probing"))
        self.assertEqual(await platform.stop(), 0)
