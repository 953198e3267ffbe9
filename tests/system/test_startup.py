"""Starts that must fail clearly, and stops that keep or release the nodes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load, descendants
from walt.common.mounts import mounted_below
from walt.server.runtime.process import ProcessResult

PC = "walt.node.pc-x86-64"
TWISTD = ["-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=",
          "--logger", "walt.server.assembly.logging.observer", "walt-server", "--config"]
# A node that has booted: it confirms, and holds its connection.
BOARD = """
import socket
peer = socket.create_connection(("192.168.181.1", 12347))
peer.sendall(b"REQ_NOTIFY_BOOTUP_STATUS\\n")
assert peer.recv(10) == b"OK\\n"
peer.sendall(b"\\n")
print("up", flush=True)
peer.recv(10)
"""


class RefusedStartTests(TestCase):
    """Every problem is told on stderr, the status is 1, and nothing is left."""

    skip = why_not()
    timeout = patient(120)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.addCleanup(self.platform.close)

    async def refused(self, prefix: Sequence[str] = ()) -> str:
        """Run the server, which must end with status 1; return its stderr."""
        result: ProcessResult = await self.platform.runner.run(
            [*prefix, sys.executable, *TWISTD, str(self.platform.config)], check=False,
            env={"PYTHONPATH": str(ROOT)}, cwd="/", timeout=60,
        )
        text = result.stderr.decode()
        self.assertEqual(result.status, 1, text + result.stdout.decode()[-2000:])
        self.assertNotIn("Traceback", text)
        self.assertEqual(self.platform.left_overs(), [])
        return text

    async def test_configuration(self) -> None:
        """All errors of the file come at once; no directory is created."""
        platform = self.platform
        platform.write_config("services:\n  http:\n    port: 0\n")
        self.assertIn("not valid YAML", await self.refused())  # a key twice
        state = platform.base / "new"
        platform.config.write_text(
            f"network:\n  walt-net:\n    ip: 192.168.1.0/24\n    vlan: 7\nstate-dir: {state}\n"
            f"runtime-dir: relative\nvirtual:\n  accel: magic\nlogs:\n  retention: -1\nfoo: 1\n"
        )
        text = await self.refused()
        for expected in (
            str(platform.config), "network.walt-net.ip: 192.168.1.0 is not a host address",
            "network.walt-net.vlan: needs raw-device", "runtime-dir: expected an absolute path",
            "virtual.accel: expected one of auto, kvm, tcg", "logs.retention: expected",
            "foo: unknown key",
        ):
            self.assertIn(expected, text)
        self.assertFalse(state.exists())
        platform.config.unlink()
        self.assertIn("does not exist; create it", await self.refused())

    async def test_state_directory_closed_to_daemons(self) -> None:
        """A parent directory without the x bit for others is an error of the file."""
        self.platform.base.chmod(0o700)
        self.assertIn(f"run: chmod o+x {self.platform.base}", await self.refused())

    async def test_missing_programs(self) -> None:
        """Every missing package is named in one line to copy."""
        hidden = ["/usr/sbin/dhcpd", "/usr/bin/dropbearconvert"]
        script = " && ".join(
            f"mount --bind /dev/null $(readlink -f {path})" for path in hidden
        )
        text = await self.refused(["unshare", "-m", "sh", "-c", f'{script} && exec "$@"', "sh"])
        self.assertIn("run: apt-get install dropbear-bin isc-dhcp-server", text)

    async def test_not_root(self) -> None:
        """An ordinary user is told that the server needs root."""
        text = await self.refused([
            "setpriv", "--reuid", "nobody", "--clear-groups",
            # The tree under test may lie where root alone can read.
            "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
        ])
        self.assertIn("root", text)

    async def test_no_space(self) -> None:
        """A full disk is told before anything is written there."""
        state = self.platform.state
        await self.platform.runner.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "wtest", str(state)]
        )
        try:
            result = await self.platform.runner.run(
                [sys.executable, *TWISTD, str(self.platform.config)], check=False,
                env={"PYTHONPATH": str(ROOT)}, cwd="/",
            )
            self.assertEqual(result.status, 1)
            self.assertIn(f"MiB are free in {state}; free at least 256 MiB".encode(), result.stderr)
            self.assertEqual(list(state.iterdir()), [])
        finally:
            await self.platform.runner.run(["umount", str(state)])

    async def test_port_taken(self) -> None:
        """The port, and how to find who has it; what was started is stopped again."""
        platform, outer = self.platform, f"wlo{os.getpid()}"
        text = platform.config.read_text().replace(f"  namespace: {platform.namespace}\n", "")
        platform.config.write_text(text)
        run = platform.runner.run
        await run(["ip", "netns", "add", outer])
        inside = ["nsenter", f"--net=/run/netns/{outer}", "--"]
        holder = platform.runner.run(
            [*inside, "socat", "TCP-LISTEN:12347,fork", "SYSTEM:true"], check=False, timeout=90
        )
        holding = quietly(holder)
        try:
            await run([*inside, "ip", "link", "set", "lo", "up"])

            async def taken() -> bool:
                shown = await run([*inside, "ss", "-Hltn", "sport", "=", "12347"])
                return shown.stdout.startswith(b"LISTEN")

            await platform.until(taken, "the port is taken", 20)
            words = await self.refused(inside)
            self.assertIn("needs port 12347 of this machine", words)
            self.assertIn("ss -lnp", words)
            links = await run([*inside, "ip", "-o", "link"])
            self.assertNotIn(b"walt-net", links.stdout)
        finally:
            holding.cancel()
            await run(["ip", "netns", "del", outer])


# What the log says along a start, each long before the next.
MOMENTS = (
    "reactor class: ", "started postgres (pid", "is ready to accept connections",
    "started tftpd (pid",
)


class RestartTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def start(self) -> Load:
        """Return a server that says when it is ready, with the small image."""
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        load = Load(self.platform)
        self.addCleanup(self.platform.close)
        self.addCleanup(load.database.close)
        await self.platform.import_image()
        await load.started()
        return load

    async def board(self, number: int) -> str:
        """Join a board that has booted to walt-net; return its MAC."""
        platform, mac, name = self.platform, f"52:54:00:00:00:{number:02x}", f"wlb{os.getpid()}"
        ip = f"192.168.181.{number}"
        await platform.event("commit", "", PC, ip, mac, "", "0", "unknown")
        run = platform.runner.run
        await run(["ip", "netns", "add", name])
        self.addCleanup(run, ["ip", "netns", "del", name], check=False)
        await self.plug(number)
        return mac

    async def plug(self, number: int) -> None:
        """Connect the namespace of the board, and let it notify."""
        platform, name = self.platform, f"wlb{os.getpid()}"
        run = platform.runner.run
        await run(["ip", "-n", name, "link", "del", "eth0"], check=False)
        await run(["ip", "-n", platform.namespace, "link", "add", f"wtb{number}", "type", "veth",
                   "peer", "name", "eth0", "netns", name])
        await run(["ip", "-n", platform.namespace, "link", "set", f"wtb{number}", "master",
                   "walt-net", "up"])
        await run(["ip", "-n", name, "link", "set", "eth0", "up"])
        await run(["ip", "-n", name, "address", "add", f"192.168.181.{number}/24", "dev", "eth0"])
        connected = quietly(run(
            ["nsenter", f"--net=/run/netns/{name}", "--", sys.executable, "-c", BOARD],
            check=False, timeout=200,
        ))
        self.addCleanup(connected.cancel)

    async def booted(self) -> list[bool]:
        """Return which nodes are booted."""
        tables = json.loads(await self.platform.ok("node", "show", "--all", "--json"))
        return [row["booted"] for rows in tables.values() for row in rows]

    async def test_restart_keeps_nodes(self) -> None:
        """SIGUSR2 leaves boot links and states; SIGTERM sends the nodes to the static files."""
        load = await self.start()
        mac = await self.board(10)
        link = self.platform.state / "nodes" / mac / "tftp"

        async def is_up() -> bool:
            return (
                await self.booted() == [True] and os.path.lexists(link)
                and "tftp-static" not in os.readlink(link)
            )

        await self.platform.until(is_up, "the board is booted, its image mounted")

        async def recorded() -> bool:
            return bool(await load.database.query("SELECT 1 FROM bootstates WHERE booted"))

        await self.platform.until(recorded, "the state is recorded")
        target = os.readlink(link)
        load.database.close()
        await self.platform.stop(signal.SIGUSR2)
        self.assertEqual(os.readlink(link), target)

        await load.started()
        self.assertEqual(await self.booted(), [True])  # until boot.reconnect-grace is over
        self.assertEqual(os.readlink(link), target)
        await self.plug(10)
        self.assertEqual(await self.platform.stop(), 0)
        self.assertEqual(os.readlink(link), "../../tftp-static")
        self.assertEqual(self.platform.left_overs(), [])

        await load.started()
        self.assertEqual(await self.booted(), [False])  # told to reboot by the orderly stop

        async def back() -> bool:
            return os.readlink(link) == target

        await self.platform.until(back, "the link to the image is back")

    async def test_killed_server(self) -> None:
        """After kill -9 no daemon runs on, and the next server takes everything over."""
        load = await self.start()
        mac = await self.board(11)
        link = self.platform.state / "nodes" / mac / "tftp"

        async def linked() -> bool:
            made = os.path.lexists(link) and "tftp-static" not in os.readlink(link)
            return made and os.path.lexists(link.parents[1] / "node-00000b")

        await self.platform.until(linked, "the boot links")
        children = descendants(self.platform.pid)
        self.assertGreater(len(children), 3)
        target = os.readlink(link)
        self.check_tree(mac)
        # Rows that are wrong, as after the server got another network card or address.
        await load.database.execute(
            "UPDATE devices SET name = 'old-server', ip = '192.168.181.77' WHERE type = 'server'"
        )
        await load.database.execute(
            "INSERT INTO devices (mac, name, ip, type) VALUES"
            " ('02:00:00:00:00:e1', 'walt-server', '192.168.181.78', 'server'),"
            " ('02:00:00:00:00:e2', 'thief', '192.168.181.1', 'unknown')"
        )
        load.database.close()
        await self.platform.stop(signal.SIGKILL)
        await self.disturb_tree(mac)

        async def gone() -> bool:
            return not [pid for pid in children if alive(pid)]

        await self.platform.until(gone, "the children ended", 20)
        await load.started()
        self.assertEqual(os.readlink(link), target)
        self.assertEqual(await load.recorded(), 1)
        tables = json.loads(await self.platform.ok("device", "show", "--json"))
        self.assertEqual(
            {row["name"]: row["ip"] for rows in tables.values() for row in rows},
            {"walt-server": "192.168.181.1", "node-00000b": "192.168.181.11"},
        )
        await self.check_mended_tree(mac)

        await self.all_run()
        load.database.close()
        self.assertEqual(await self.platform.stop(), 0)
        self.assertEqual(self.platform.left_overs(), [])

    async def all_run(self) -> dict[str, dict[str, Any]]:
        """Wait until every daemon runs; return the rows of `walt advanced services`."""

        async def rows() -> dict[str, dict[str, Any]]:
            found = await self.platform.services()
            return found if all(row["running"] for row in found.values()) else {}

        running: dict[str, dict[str, Any]] = await self.platform.until(
            rows, "every daemon runs", 40
        )
        return running

    def check_tree(self, mac: str) -> None:
        """Check the directory of the board: its names, and relative links that lead somewhere."""
        nodes = self.platform.state / "nodes"
        for alias in (mac.replace(":", "-"), "192.168.181.11", "node-00000b"):
            self.assertEqual(os.readlink(nodes / alias), mac)
        self.assertFalse((nodes / mac).is_symlink())
        image = os.readlink(nodes / mac / "fs")
        self.assertRegex(image, r"\A\.\./\.\./images/[0-9a-f]{64}/fs\Z")
        self.assertEqual(os.readlink(nodes / mac / "tftp"), f"{image}/boot/pc-x86-64")
        self.assertIn("start.ipxe", os.listdir(nodes / "192.168.181.11" / "tftp"))
        self.assertEqual(os.readlink(nodes / mac / "persist"), "persist_dirs/waltplatform")
        self.assertEqual(os.readlink(nodes / "192.168.181.99"), "probing")
        self.assertEqual(os.readlink(nodes / "probing" / "tftp"), "../../tftp-static")

    async def disturb_tree(self, mac: str) -> None:
        """Leave what no server would: missing and wrong links, strange files, an old layout."""
        nodes = self.platform.state / "nodes"
        (nodes / "node-00000b").unlink()
        (nodes / "192.168.181.11").unlink()
        (nodes / "192.168.181.11").symlink_to("probing")
        (nodes / "192.168.181.99").unlink()
        (nodes / "192.168.181.99").mkdir()
        (nodes / mac / "strange").write_text("of nobody")
        (nodes / mac / "disks").mkdir()
        (nodes / mac / "disks" / "one").write_text("of the node")

        async def unmounted() -> bool:
            points = map(str, mounted_below(nodes / mac))
            return all(subprocess.run(["umount", one], check=False).returncode == 0
                       for one in points)

        await self.platform.until(unmounted, "ganesha is gone, whose view had it too", 20)
        shutil.rmtree(nodes / mac / "persist_dirs")
        (nodes / mac / "persist").unlink()
        (nodes / mac / "persist").mkdir()
        (nodes / mac / "persist" / "data").write_text("of the owner")

    async def check_mended_tree(self, mac: str) -> None:
        """The tree is as before, data were kept; a node may be forbidden to have some."""
        node = self.platform.state / "nodes" / mac

        async def mended() -> bool:
            return (node / "persist").is_symlink() and not (node / "strange").exists()

        await self.platform.until(mended, "the tree is mended", 20)
        self.check_tree(mac)
        self.assertEqual((node / "persist" / "data").read_text(), "of the owner")
        self.assertEqual((node / "disks" / "one").read_text(), "of the node")
        await self.platform.ok("node", "config", "node-00000b", "mount.persist=false")

        async def forbidden() -> bool:
            return not (node / "persist").exists()

        await self.platform.until(forbidden, "no persistent data", 20)
        self.assertTrue((node / "volumes" / "waltplatform.ext4").exists())
        await self.platform.ok("node", "config", "node-00000b", "mount.persist=true")

        async def allowed() -> bool:
            return (node / "persist" / "data").exists()

        await self.platform.until(allowed, "persistent data again", 20)

    async def test_killed_again_and_again(self) -> None:
        """Kills at any moment of the start leave a platform that starts."""
        load = await self.start()
        load.database.close()
        await self.platform.stop(signal.SIGKILL)
        for moment in MOMENTS:
            await self.starting(moment)
            self.assertEqual(await self.platform.stop(signal.SIGKILL), -1)
        await load.started()
        await self.platform.ok("device", "show")
        self.assertEqual(await self.platform.stop(), 0)
        self.assertEqual(self.platform.left_overs(), [])

    async def test_stopped_while_starting(self) -> None:
        """SIGTERM at any moment of the start leaves nothing."""
        load = await self.start()
        await self.platform.stop()
        for moment in MOMENTS:
            await self.starting(moment)
            self.assertEqual(await self.platform.stop(), 0)
            self.assertEqual(self.platform.left_overs(), [], moment)
        # Ready, and still busy with the nodes.
        await load.started()
        self.assertEqual(await self.platform.stop(), 0)
        self.assertEqual(self.platform.left_overs(), [])
        await load.started()

    async def starting(self, moment: str) -> None:
        """Start a server, and return when it has logged a text of its start; it is not ready."""
        begin = len(self.platform.told())
        self.platform.spawn()

        async def reached() -> bool:
            return moment in self.platform.told()[begin:]

        await self.platform.until(reached, moment, 30, every=0.02)
        self.assertNotIn("the WalT server is ready", self.platform.told()[begin:])

    async def test_readiness_is_not_for_children(self) -> None:
        """systemd's socket is told READY=1, and the children know nothing of it."""
        await self.start()  # it waits for READY=1
        environment = Path(f"/proc/{self.platform.pid}/environ").read_bytes()
        self.assertIn(b"NOTIFY_SOCKET=", environment)
        own = Path(f"/proc/{self.platform.pid}/cmdline").read_bytes()
        checked = 0
        for pid in descendants(self.platform.pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                # What was forked a moment ago, and is no other program yet, has our memory.
                if Path(f"/proc/{pid}/cmdline").read_bytes() != own:
                    self.assertNotIn(b"NOTIFY_SOCKET", environment)
                    checked += 1
        self.assertGreater(checked, 3)

    async def test_second_server(self) -> None:
        """A second server on the same directories refuses, and disturbs nothing."""
        await self.start()
        before = await self.all_run()
        result = await self.platform.runner.run(
            [sys.executable, *TWISTD, str(self.platform.config)], check=False,
            env={"PYTHONPATH": str(ROOT)}, cwd="/",
        )
        self.assertEqual(result.status, 1)
        self.assertIn(f"used by process {self.platform.pid}".encode(), result.stderr)
        self.assertEqual(await self.platform.services(), before)


def quietly(running: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Run what the test cancels at its end."""
    started: Deferred[Any] = Deferred.fromCoroutine(running)
    started.addErrback(lambda failure: None)
    return started


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
