"""Software inside images: packages walt-node of earlier releases, unmodified, and our own."""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import CACHE, ROOT, LivePlatform, why_not
from tests.system.load import Load
from walt.server.adapters.podman.prepare import INTERNAL_SCRIPTS, PUBLIC_SCRIPTS

RELEASES = ("8.2", "9.0", "10.0")
IP = "192.168.181.60"
MAC = "02:00:00:00:03:01"

# The daemon of logs, and what people call, in a mount namespace where our own node tools
# are in /bin and the directory of the FIFO is empty.
NODE = """
set -e
mount -t tmpfs none /var/lib
mkdir /var/lib/walt
mount -t overlay -o "lowerdir=$1:/usr/bin" none /usr/bin
export PYTHONPATH="$2"
"$3" -c "from walt.node.logs.daemon import run; run()" &
daemon=$!
while [ ! -p /var/lib/walt/logs.fifo ]; do sleep 0.1; done
walt-log-echo "$4" "first line"
walt-log-echo --ts 1700000000.5 "$4" "stamped line"
for number in $(seq 50); do echo "line $number"; done | walt-log-cat "$4-many"
script -qec "bash $2/bin/walt-log-monitor echo monitored" /dev/null > /dev/null
"$3" - <<'END'
from walt.common.apilink import ServerAPILink
import time
with ServerAPILink("192.168.181.1", "VSAPI") as server:
    info = server.get_device_info("02:00:00:00:03:01")
    assert info["ip"] == "192.168.181.60", info
    assert info["conf"].get("kexec.allow", True) is True, info
    assert info["netmask"] == "255.255.255.0", info
with ServerAPILink("192.168.181.1", "NSAPI") as server:
    seconds = server.sync_clock()
    assert abs(time.time() - seconds) < 0.5, seconds
print("calls answered")
END
sleep 1
kill $daemon
wait $daemon || true
"""

# The same with the tools of this release, as walt-node-setup links them.
OURS = """
set -e
mount -t tmpfs none /var/lib
mkdir /var/lib/walt
mount -t overlay -o "lowerdir=$1:/usr/bin" none /usr/bin
export PYTHONPATH="$2"
"$3" -m walt.node.logs.daemon &
daemon=$!
while [ ! -p /var/lib/walt/logs.fifo ]; do sleep 0.1; done
walt-log-echo "$4" "first line"
walt-log-echo --ts 1700000000.5 "$4" "stamped line"
for number in $(seq 50); do echo "line $number"; done | walt-log-cat "$4-many"
"$3" -m walt.node.logs.monitor echo monitored
kill $daemon
wait $daemon
[ ! -e /var/lib/walt/logs.fifo ]
walt-log-echo "$4" "without the daemon"
walt-report-lldp-neighbor 02:00:00:00:07:01 12
walt-report-lldp-neighbor 02:00:00:00:07:02 "it's \\ \"odd\""
walt-report-lldp-neighbor 02:00:00:00:07:03 12
echo "calls answered"
"""


class OldPackagesTests(TestCase):
    skip = why_not()
    timeout = patient(300)

    async def test_lines_and_calls(self) -> None:
        """The logs daemon, the monitor, the tools and the calls of three releases."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", IP, MAC, "", "0", "unknown"
        )
        self.namespace = f"wo{os.getpid()}"
        await self._cable(platform)
        tools = self._tools(platform)
        places = [await self._install(platform, release) for release in RELEASES]
        for number, (release, place) in enumerate(zip(RELEASES, places, strict=True), 1):
            await self._node(platform, release, tools, place)
            self.assertEqual(await self._monitored(platform), number, release)
        await self._neighbours(platform)
        lines = await self._node(platform, "ours", tools, ROOT, OURS)
        await self._check_neighbours(platform)
        await self._records(platform)
        self.assertEqual(lines, {"first line", "stamped line", "without the daemon"})
        self.assertEqual(await self._monitored(platform), len(RELEASES) + 1)

    async def test_switches_that_nodes_report(self) -> None:
        """An administrator may have devices that nodes report become switches, as in WalT 10."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.write_config("switches: {reported: convert}\n")
        await platform.import_image()
        await platform.start()
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", IP, MAC, "", "0", "unknown"
        )
        self.namespace = f"wo{os.getpid()}"
        await self._cable(platform)
        await self._neighbours(platform)
        await self._node(platform, "ours", self._tools(platform), ROOT, OURS)
        devices = json.loads(await platform.ok("device", "show", "--json"))
        rows = {row["mac"]: row for table in devices.values() for row in table}
        node = rows[MAC]["name"]
        text = await platform.ok("log", "show", "--platform", "--history", "full")
        for number in (1, 2):
            mac = f"02:00:00:00:07:0{number}"
            row, former = rows[mac], self.switches[mac]
            self.assertEqual((row["type"], row["name"]), ("switch", f"switch-00070{number}"))
            line = f"Node {node} is connected on {former}, so {former} is a switch."
            self.assertEqual(text.count(line), 1)
            self.assertIn(f"renamed {former} to {row['name']} for clarity", text)
        self.assertNotIn("02:00:00:00:07:03", rows)
        # It is nothing that the node can configure: nothing is asked of it by SNMP.
        told = await platform.ok("device", "config", "switch-000701")
        self.assertIn("lldp.explore=false", told.replace(" ", ""))

    async def _records(self, platform: LivePlatform) -> None:
        """What programs get of a set of nodes."""
        load = Load(platform)
        client = await load.connect()
        await client.call("hello", program="test", version="11.0", protocol="1", username="ann")
        [node] = json.loads((await client.call("cs.nodes.get", nodes="all-nodes"))[b"nodes"])
        load.close(client)
        self.assertEqual((node["mac"], node["ip"], node["type"]), (MAC, IP, "node"))

    async def _neighbours(self, platform: LivePlatform) -> None:
        """Two devices of unknown type."""
        for number in (1, 2):
            await platform.event(
                "commit", "", "", f"192.168.181.7{number}", f"02:00:00:00:07:0{number}", "", "0",
                "unknown",
            )
        devices = json.loads(await platform.ok("device", "show", "--json"))
        rows = [row for table in devices.values() for row in table]
        self.switches = {
            row["mac"]: row["name"] for row in rows if row["mac"].startswith("02:00:00:00:07")
        }

    async def _check_neighbours(self, platform: LivePlatform) -> None:
        """They are proposed as switches, and did not change; the unknown one was ignored."""
        devices = json.loads(await platform.ok("device", "show", "--json"))
        kinds = {row["mac"]: row["type"] for table in devices.values() for row in table}
        self.assertEqual(
            [kinds.get(f"02:00:00:00:07:0{number}") for number in (1, 2, 3)],
            ["unknown", "unknown", None],
        )
        text = await platform.ok("log", "show", "--platform", "--history", "full")
        for name in self.switches.values():
            self.assertIn(f"run: walt device config {name} type=switch", text)

    async def _cable(self, platform: LivePlatform) -> None:
        """Make a namespace for the node, plugged into the platform's bridge."""
        run = platform.runner.run
        await run(["ip", "netns", "add", self.namespace])
        self.addCleanup(run, ["ip", "netns", "del", self.namespace])
        await run([
            "ip", "-n", platform.namespace, "link", "add", "oldport", "type", "veth",
            "peer", "name", "eth0", "netns", self.namespace,
        ])
        await run(
            ["ip", "-n", platform.namespace, "link", "set", "oldport", "master", "walt-net", "up"]
        )
        for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"],
                      ["address", "add", f"{IP}/24", "dev", "eth0"]):
            await run(["ip", "-n", self.namespace, *words])

    async def _node(
        self, platform: LivePlatform, release: str, tools: Path, place: Path, script: str = NODE
    ) -> set[str]:
        """Run the script of a node; return the lines of its first stream."""
        stream = f"release-{release}"
        ran = await platform.runner.run(
            ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "--pid",
             "--fork", "--kill-child", "--mount-proc", "timeout", "60", "sh", "-c", script, "sh",
             str(tools), str(place), sys.executable, stream],
            timeout=120, check=False, env={"TERM": "xterm"},
        )
        said = ran.stdout.decode(errors="replace") + ran.stderr.decode(errors="replace")
        self.assertIn("calls answered", said, release)

        async def lines() -> dict[str, list[Any]]:
            text = await platform.ok(
                "log", "show", "--history", "full", "--issuers", "all-nodes", "--json"
            )
            found: dict[str, list[Any]] = {}
            for one in map(json.loads, text.splitlines()):
                found.setdefault(one["stream"], []).append((one["line"], one["timestamp"]))
            return found

        async def complete() -> bool:
            return len((await lines()).get(f"{stream}-many", [])) == 50

        await platform.until(complete, f"the lines of {release}", 30)
        found = await lines()
        # The daemons of earlier releases are killed in the middle.
        ended = {"<disconnected!>"} if script is NODE else set()
        lines_sent = {line for line, _ in found[stream]} - ended
        self.assertLessEqual({"first line", "stamped line"}, lines_sent)
        self.assertIn(("stamped line", 1700000000.5), found[stream])
        self.assertEqual(
            {line for line, _ in found[f"{stream}-many"]}, {f"line {one}" for one in range(1, 51)}
        )
        return lines_sent

    async def _monitored(self, platform: LivePlatform) -> int:
        """Return how many commands walt-log-monitor ran, told by their lines."""
        text = await platform.ok(
            "log", "show", "--history", "full", "--issuers", "all-nodes", "--streams",
            "[.]monitor$", "--format", "{line}",
        )
        # The terminal of older packages begins with a NUL.
        lines = [line.strip().removeprefix("\\x00") for line in text.splitlines()]
        self.assertEqual(lines.count("START"), lines.count("END"))
        return lines.count("monitored")

    def _tools(self, platform: LivePlatform) -> Path:
        """Put our node tools into a directory, as the server puts them into images."""
        tools = platform.base / "tools"
        (tools / "_walt_internal_").mkdir(parents=True)
        source = Path(str(resources.files("walt.node")))
        values = {
            "server_ip": "192.168.181.1", "walt_server_rpc_port": "12345",
            "walt_server_logs_port": "12347", "walt_server_notify_bootup_port": "12347",
            "walt_node_net_service_port": "12346", "walt_image_id": "none",
            "walt_image_size_kib": "0", "walt_reconnect_grace": "180",
        }
        for directory, names in ((tools, PUBLIC_SCRIPTS),
                                 (tools / "_walt_internal_", INTERNAL_SCRIPTS)):
            for name in names:
                text = (source / name).read_text()
                (directory / name).write_text(text % values if name == "walt-env" else text)
                (directory / name).chmod(0o755)
        return tools

    async def _install(self, platform: LivePlatform, release: str) -> Path:
        """Install a release into a directory of its own; the packages are kept in the cache."""
        wheels = CACHE / "packages" / release
        place = platform.base / f"walt-node-{release}"
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        if not wheels.is_dir():
            fresh = platform.base / f"wheels-{release}"
            await platform.runner.run(
                [*pip, "download", "-d", str(fresh), f"walt-node=={release}"],
                timeout=120, network="host", env=dict(os.environ),
            )
            wheels.parent.mkdir(parents=True, exist_ok=True)
            await platform.runner.run(["cp", "-r", str(fresh), str(wheels)])
        await platform.runner.run(
            [*pip, "install", "--no-index", "--find-links", str(wheels), "--target", str(place),
             f"walt-node=={release}"],
            timeout=120,
        )
        return place
