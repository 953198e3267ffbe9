"""Secondary networks: two nodes at once, latency, what a killed server leaves."""

from __future__ import annotations

import json
import re
import signal

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import LivePlatform, why_not

NODES = ("v1", "v2")
PING = re.compile(r"min/avg/max = ([0-9.]+)/([0-9.]+)/")


class NetworksTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_two_nodes_on_a_second_network(self) -> None:
        """Frames go through it, with the latency that was asked for; nothing is left over."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.platform = platform
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        for name in NODES:
            await platform.ok("node", "create", name)
        for wrong in ("home-net", "walt-net,x[lat=1]", "walt-net,walt-net", "walt-net,-x"):
            refused = await platform.walt("node", "config", "v1", f"networks={wrong}")
            self.assertEqual((refused.status, refused.stdout), (1, b""), wrong)
        told = await platform.ok(
            "node", "config", ",".join(NODES), "networks=home-net,walt-net", "boot.delay=0",
            "ram=256M",
        )
        self.assertIn("Reboot the node(s)", told)
        await platform.ok("node", "reboot", "--hard", ",".join(NODES))
        await platform.ok("node", "wait", *within(150), ",".join(NODES))
        self.assertLess(await self.ping(), 2 * 19.7)
        macs = await self.macs()

        await platform.ok(
            "node", "config", ",".join(NODES), "networks=walt-net,home-net[lat=20ms,bw=8Mbps]"
        )
        await gatherResults([
            Deferred.fromCoroutine(platform.ok("node", "reboot", name)) for name in NODES
        ])
        await platform.ok("node", "wait", *within(150), ",".join(NODES))
        slow = await self.ping()
        self.assertGreaterEqual(slow, 2 * 19.7)
        self.assertEqual(await self.macs(), macs)
        # 3 MB at 8 Mbit/s take 3 s; what a bucket holds may pass at once.
        size, seconds = await self.send()
        self.assertEqual(size, 3_000_000)
        self.assertGreater(seconds, 2.4)

        self.assertEqual(await platform.stop(signal.SIGKILL), -1)
        before = await self.interfaces()
        self.assertIn("home-net", before)
        await platform.start()
        await platform.ok("node", "config", "v1", "networks=walt-net")
        await platform.ok("node", "reboot", "--hard", "v1")
        await platform.ok("node", "remove", "--force", "v2")

        async def gone() -> bool:
            return "home-net" not in await self.interfaces()

        await platform.until(gone, "the network without nodes is gone")
        await platform.ok("node", "remove", "--force", "v1")
        self.assertEqual(
            sorted(name for name in await self.interfaces() if name.startswith("wt")), []
        )

    async def ping(self) -> float:
        """Return the shortest round trip through the second network, in ms."""
        platform = self.platform
        for number, name in enumerate(NODES):
            device = (await self.macs())[number]
            script = (
                f"for i in /sys/class/net/*; do if grep -q {device} $i/address; then"
                f" ifconfig ${{i##*/}} 10.7.7.{number + 1} netmask 255.255.255.0 up; fi; done"
            )
            await platform.ok("node", "run", name, "--", script)
        output = await platform.ok(
            "node", "run", "v1", "--",
            "ping -c 3 -q 10.7.7.2 >/dev/null; ping -c 10 -q -i 0.2 10.7.7.2",
        )
        match = PING.search(output)
        assert match is not None, output
        return float(match[1])

    async def send(self) -> tuple[int, float]:
        """Send 3 MB through the second network; return what arrived, and seconds it took."""
        received, sent = await gatherResults([
            Deferred.fromCoroutine(self.platform.ok("node", "run", name, "--", script))
            for name, script in (
                ("v2", "mkfifo /tmp/open; exec 3<>/tmp/open;"
                       " busybox timeout 60 busybox nc -l -p 5000 <&3 | wc -c"),
                ("v1", "sleep 2; cut -d' ' -f1 /proc/uptime;"
                       " dd if=/dev/zero bs=100000 count=30 2>/dev/null |"
                       " busybox timeout 60 busybox nc 10.7.7.2 5000; cut -d' ' -f1 /proc/uptime"),
            )
        ])
        start, end = map(float, sent.split())
        return int(received), end - start

    async def macs(self) -> list[str]:
        """Return the MACs on the second network, as the server keeps them."""
        rows = json.loads(await self.platform.ok("device", "show", "--json"))
        return [
            (self.platform.state / "nodes" / row["mac"] / "networks" / "home-net.mac")
            .read_text().strip()
            for row in sorted(rows["known"], key=lambda row: str(row["name"]))
            if row["name"] in NODES
        ]

    async def interfaces(self) -> set[str]:
        """Return the names of the interfaces of the platform's namespace."""
        shown = await self.platform.runner.run([
            "nsenter", f"--net=/run/netns/{self.platform.namespace}", "ip", "-json", "link", "show"
        ])
        return {one["ifname"] for one in json.loads(shown.stdout)}
