"""A live server and what stands for nbfsd: a datagram socket, and the directory of its files."""

from __future__ import annotations

import socket

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

PC = "walt.node.pc-x86-64"


class NbfsTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def asked(self, control: socket.socket, answer: bytes | None = b"OK") -> None:
        """Wait for a request, and answer it."""
        async def request() -> tuple[bytes, str] | None:
            try:
                return control.recvfrom(100)
            except BlockingIOError:
                return None

        words, sender = await self.platform.until(request, "nbfsd is asked")
        self.assertEqual(words, b"RELOAD_CONF")
        if answer is not None:
            control.sendto(answer, sender)

    async def test_images_of_nodes(self) -> None:
        """What nodes boot is exported as long as they do, to walt-net; a mute nbfsd is told."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        exports, path = platform.base / "exports.d", platform.base / "ctl.sock"
        exports.mkdir()
        file = exports / "walt.exports"
        # In its section: `services` is in the configuration already.
        text = platform.config.read_text().replace(
            "services:\n", "services:\n  nbfs:\n    enabled: true\n"
            f"    exports-dir: {exports}\n    control-socket: {path}\n",
        )
        platform.config.write_text(text)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(control.close)
        control.bind(str(path))
        control.setblocking(False)
        await platform.import_image()
        await platform.start()
        done = await platform.event(
            "commit", "", PC, "192.168.181.10", "52:54:00:00:00:01", "", "0", "unknown"
        )
        self.assertEqual(done.status, 0)
        await self.asked(control)
        head, line = file.read_text().splitlines()
        tree, rest = line.split(" ")
        self.assertRegex(tree, rf"{platform.state}/images/[0-9a-f]{{64}}/fs")
        self.assertEqual(rest, f"192.168.181.0/24(fsid={tree.split('/')[-2][:32]})")

        async def state(wanted: str) -> bool:
            return (await platform.services())["nbfs"]["state"] == wanted

        await platform.until(lambda: state("running"), "it is well")
        # It takes the request and is silent: the platform goes on, and says so.
        await platform.ok("device", "forget", "node-000001")
        await platform.until(lambda: state("not answering"), "the missing answer is told")
        await self.asked(control, None)  # what it has not answered is asked again
        await self.asked(control)
        await platform.until(lambda: state("running"), "it is well again")
        self.assertEqual(file.read_text().splitlines(), [head])
        self.assertEqual(await platform.stop(), 0)
