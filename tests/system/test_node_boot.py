"""A QEMU node boots the small image over the network and offers its services."""

from __future__ import annotations

import os
import sys
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.platform import (
    NODE_IP,
    NODE_MAC,
    NODE_NAME,
    OTHER_IP,
    SERVER_IP,
    LegacyCall,
    Platform,
    missing_programs,
)
from walt.server.adapters.network.namespace import inside
from walt.server.adapters.nfs.ganesha import GaneshaExporter
from walt.server.adapters.podman.mounter import OverlayMounter
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.ssh import keys as ssh_keys
from walt.server.adapters.ssh.options import node_options
from walt.server.domain.images.exports import ExportPlan, ImageExport, NodeExport
from walt.server.domain.images.server_values import Facts
from walt.server.runtime.process import ProcessResult
from walt.server.runtime.workers import WorkerPool

CACHE = Path(os.environ.get("WALT_TEST_CACHE", "/var/cache/walt"))
NETWORK = IPv4Network("192.168.183.0/24")
VARIANT = os.environ.get("WALT_TEST_VARIANT", "small")
PATIENCE = float(os.environ.get("WALT_TEST_PATIENCE", patient(60)))


class NoTime:
    """Answers of a server that does not tell the time: none at all, then refusals."""

    CALL = "('API_CALL', 'sync_clock', (), {})"

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def items(self) -> list[tuple[str, bytes]]:
        """Return the answer by method."""
        silent = self._calls.count(self.CALL) == 1
        return [] if silent else [("sync_clock", b"('EXCEPTION', 'later')\n")]


class NodeBootTests(TestCase):
    skip = missing_programs()
    timeout = patient(240)

    async def _start(self, grace: int = 60) -> Platform:
        """Return a platform whose node is being powered on."""
        from twisted.internet import reactor

        self.platform = platform = Platform(reactor)
        self.addCleanup(platform.close)
        await platform.set_up_network()
        tree, image_id = await self._image(platform, grace)
        self.exporter = GaneshaExporter(
            platform.reactor, platform.launcher, platform.runner,
            directory=platform.state / "ganesha", runtime=platform.runtime / "ganesha",
            links=platform.state / "links", trees=[platform.state], address=SERVER_IP,
            subnet=NETWORK,
            place=partial(inside, platform.netns),
        )
        self.exporter.startService()
        self.addCleanup(self.exporter.stopService)
        persist = platform.state / "nodes" / NODE_MAC / "persist_dirs" / "waltplatform"
        self.node = NodeExport(NODE_MAC, NODE_IP, NODE_NAME, image_id, persist)
        self.images = (ImageExport(image_id, tree, (NODE_IP,)),)
        await self._export(self.node)
        platform.start_dhcpd()
        self.notifications = platform.serve_notifications()
        platform.serve_calls()
        platform.serve_boot_files(tree / "boot" / "pc-x86-64")
        platform.start_node()
        return platform

    async def _export(self, *nodes: NodeExport) -> None:
        await self.exporter.apply(
            ExportPlan(NETWORK, self.images, nodes)
        )

    async def _image(self, platform: Platform, grace: int) -> tuple[Path, str]:
        storage = Storage.private(platform.state, platform.runtime)
        await platform.runner.run(
            [sys.executable, "-m", "walt.server.tools.image_recipe", "--variant", VARIANT,
             "--state-dir", str(platform.state), "--runtime-dir", str(platform.runtime),
             "--cache-dir", str(CACHE)],
            network="host", timeout=240,
        )
        keys = platform.state / "keys"
        await ssh_keys.ensure_host_keys(platform.runner, keys)
        key = await ssh_keys.ensure_node_key(platform.runner, platform.base / "home")
        self.known_hosts = platform.base / "known_hosts"
        ssh_keys.write_known_hosts(keys, self.known_hosts)
        store = PodmanStore(platform.runner, storage, platform.base / "images.metadata")
        (image,) = await store.scan()
        self.assertEqual(image.fullname, "waltplatform/pc-x86-64-default:latest")
        pool = WorkerPool(platform.reactor, platform.launcher, network="host")
        self.addCleanup(pool.stop)
        mounter = OverlayMounter(
            pool, store, storage, images=platform.state / "images", keys=keys,
            facts=Facts(SERVER_IP, lambda: "52:54:00:00:00:01", lambda: key, grace),
            server_spec=platform.base / "server.spec",
        )
        self.addCleanup(mounter.unmount, image.image_id)
        await mounter.mount(image)
        return mounter.path(image.image_id), image.image_id

    async def _booted(self) -> None:
        """Wait until the node notifies; its console is shown if it does not."""
        booted = self.platform.booted()
        booted.addTimeout(PATIENCE, self.platform.reactor)
        try:
            await booted
        except BaseException:
            print("\n".join(f"{when:7.2f} {event}" for when, event in self.platform.timeline))
            raise

    async def _ssh(self, command: str, stdin: bytes = b"", check: bool = True) -> ProcessResult:
        key = ssh_keys.node_key(self.platform.base / "home")
        patience = f"ConnectTimeout={patient(20):g}"  # the first one counts (ssh_config(5))
        ssh = ["ssh", "-o", patience, *node_options(self.known_hosts, key), f"root@{NODE_IP}"]
        return await self.platform.runner.run(
            [*ssh, "-n", command] if not stdin else [*ssh, command], stdin=stdin, check=check
        )

    async def _output(self, command: str, stdin: bytes = b"") -> str:
        return (await self._ssh(command, stdin)).stdout.decode()

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self.platform.reactor, seconds, lambda: None)

    async def _refused_connections(self) -> int:
        """Return how many connections to the server were refused (resets sent, snmp(7))."""
        told = (await self.platform.runner.run(["cat", "/proc/net/snmp"])).stdout.decode()
        names, values = (line.split() for line in told.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("OutRsts")])

    async def _until(self, condition, what: str) -> None:  # type: ignore[no-untyped-def]
        for _ in range(200):
            if condition():
                return
            await self._pause(0.1)
        self.fail(f"never happened: {what}")

    async def test_services_of_a_booted_node(self) -> None:
        """The node notifies, answers requests and ssh; its tools reach the server."""
        platform = await self._start()
        await self._booted()
        platform.mark("booted")
        await self._check_requests()
        self.assertEqual(await self._output("echo over ssh"), "over ssh\n")
        platform.mark("ssh")
        await self._check_root()
        await self._check_persist()
        await self._check_rpc()
        await self._check_logs()
        await self._check_tar()
        timeline = [line for line in platform.timeline if line[1] in ("booted", "ssh")]
        print(f"small image, power-on to: {timeline}")

    async def _check_requests(self) -> None:
        request = self.platform.request
        self.assertEqual(await request("MODE single\nPING\n"), b"OK\n")
        silent = request("")
        self.assertEqual(await request("", close=True), b"")
        self.assertEqual(
            await request("PING\n"),
            b'KO Start by specifying "MODE [single|multi]". Closing on my side.\n',
        )
        self.assertEqual(await request("MODE other\nPING\nPING\n"), b"OK\n")
        self.assertEqual(
            await request("MODE multi\nPING\nNOISE\nBLINK 1\nCLOSE\n"),
            b"OK\nKO /bin/blink unavailable or not executable on image\n"
            b"OK Closing on my side.\n",
        )
        answer = await request("MODE single\nDMESG\n")
        self.assertTrue(answer.startswith(b"OK\n\n"))
        self.assertIn(b"Linux version", answer)
        self.assertEqual(
            await request("MODE multi\nSHELL\necho $((6 * 7))\nPING\nCLOSE\n"),
            b"KO /etc/walt/net-shell is not on image\nOK\nOK Closing on my side.\n",
        )
        # Another machine of the network, such as a node, gets no answer and no reboot.
        for text in ("MODE single\nPING\n", "MODE single\nREBOOT\n", "MODE single\nSHELL\n"):
            self.assertEqual(
                await request(text, source=OTHER_IP),
                b"KO Only the server of the platform may ask. Closing on my side.\n",
            )
        self.assertEqual(await request("MODE single\nREBOOT\n", source=OTHER_IP, close=True), b"")
        self.assertEqual(await silent, b"TIMEOUT Closing on my side.\n")
        await self._check_shell()
        self.assertEqual(len(self.platform.notifications), 1)

    async def _check_shell(self) -> None:
        """An image that has the file gives root of the server a shell: its end, its time-out."""
        await self._ssh("mkdir -p /etc/walt; touch /etc/walt/net-shell")
        for port, last, end in ((1001, "exit\n", b""), (1002, "", b"SHELL-TIMEOUT\n")):
            answer = await self.platform.request(
                f"MODE single\nSHELL\necho $((6 * 7)); hostname\n{last}", own_port=port
            )
            self.assertTrue(answer.startswith(b"OK\n\n"), answer)
            self.assertIn(f"42\n{NODE_NAME}\n".encode(), answer)
            self.assertIn(end, answer)
            self.assertTrue(answer.endswith(b"END-OF-SHELL\n"), answer)
        self.assertEqual(
            await self.platform.request("MODE single\nSHELL\nid\n"),
            b"KO a shell is for root of the server, who asks from a port below 1024\n",
        )
        self.assertEqual(
            await self.platform.request("MODE single\nSHELL\nid\n", source=OTHER_IP),
            b"KO Only the server of the platform may ask. Closing on my side.\n",
        )

    async def _check_root(self) -> None:
        text = await self._output(
            ". /bin/walt-env; echo $walt_boot_mode; cat /proc/mounts; hostname; "
            "ls -d /run/uptime-ready /bin/_walt_internal_; ls -ld /root/.ssh | cut -c1-10"
        )
        self.assertTrue(text.startswith("network\n"))
        self.assertIn("overlay / overlay rw,", text)
        self.assertIn(" /run/walt/rootfs/mnt/nfsroot nfs4 ro,", text)
        self.assertTrue(text.endswith(
            f"{NODE_NAME}\n/bin/_walt_internal_\n/run/uptime-ready\ndrwx------\n"
        ), text)
        refused = await self._ssh("echo x > /run/walt/rootfs/mnt/nfsroot/x", check=False)
        self.assertNotEqual(refused.status, 0)

    async def _check_persist(self) -> None:
        await self._ssh("echo kept > /persist/file; sync")
        self.assertEqual((self.node.persist / "file").read_text(), "kept\n")

    async def _check_rpc(self) -> None:
        calls = self.platform.calls
        rpc = "/bin/_walt_internal_/walt-rpc"
        self.assertEqual(await self._output(f"PATH=$PATH:/bin/_walt_internal_; {rpc} sync_clock"),
                         "1700000001\n")
        # The node itself has asked for its settings at boot.
        self.assertEqual(calls[-4:], [
            "REQ_API_SESSION", "NSAPI", "('API_CALL', 'sync_clock', (), {})", "('CLOSE')",
        ])
        calls.clear()
        await self._ssh("walt-report-lldp-neighbor 6c:b0:ce:00:00:01 \"g'3\"")
        self.assertEqual(
            calls[2],
            "('API_CALL', 'report_lldp_neighbor', ( '6c:b0:ce:00:00:01', 'g\\'3',), {})",
        )
        failed = await self._ssh(f"{rpc} broken", check=False)
        self.assertEqual((failed.status, failed.stderr), (1, b"'no such thing'\n"))
        # A server that is silent, then refuses: five tries, no more, and no date is set.
        calls.clear()
        self.patch(LegacyCall, "answers", NoTime(calls))
        failed = await self._ssh(
            "PATH=$PATH:/bin/_walt_internal_; walt-clock-sync", check=False
        )
        self.assertEqual((failed.status, b"gives no time" in failed.stderr), (1, True))
        self.assertEqual(calls.count(NoTime.CALL), 5)

    async def _check_logs(self) -> None:
        lines = self.platform.log_lines
        await self._until(lambda: lines.count("CLOSE") >= 2, "log lines of the boot")
        self.assertIn("Starting up.", lines)
        self.assertIn("Handing over to WalT image init.", lines)
        for command, stdin, expected in (
            ("walt-log-echo s one two", b"", ["s", "NO_TIMESTAMPS", "one two", "CLOSE"]),
            ("walt-log-echo --ts 12.5 s one", b"", ["s", "TIMESTAMPS_INSIDE", "12.5 one", "CLOSE"]),
            ("walt-log-cat s", b"a\nb", ["s", "NO_TIMESTAMPS", "a", "b", "CLOSE"]),
            ("walt-log-cat --ts s", b"1.5 a\n", ["s", "TIMESTAMPS_INSIDE", "1.5 a", "CLOSE"]),
            ("walt-echo s old", b"", ["s", "NO_TIMESTAMPS", "old", "CLOSE"]),
        ):
            lines.clear()
            await self._ssh(command, stdin)
            await self._until(lambda: "CLOSE" in lines, command)
            self.assertEqual(lines, expected)
        lines.clear()
        self.assertEqual(await self._output("walt-log-tee s", b"x\ny\n"), "x\ny\n")
        await self._until(lambda: "CLOSE" in lines, "walt-log-tee")
        self.assertEqual(lines, ["s", "NO_TIMESTAMPS", "x", "y", "CLOSE"])
        lines.clear()
        await self._ssh("walt-log-cat --ts-local s", b"stamped\n")
        await self._until(lambda: "CLOSE" in lines, "walt-log-cat --ts-local")
        self.assertEqual(lines[1], "TIMESTAMPS_INSIDE")
        self.assertRegex(lines[2], r"^\d+\.\d+ stamped$")
        fifo = "/var/lib/walt/logs.fifo"
        text = await self._output(
            f"mkfifo {fifo}; (cat {fifo}; cat {fifo}) & walt-log-echo s t; sleep 1; "
            f"walt-log-echo --ts 1.5 s u; wait; rm {fifo}"
        )
        self.assertEqual(text, "LOG s t\nTSLOG 1.5 s u\n")
        refused = await self._ssh("walt-log-cat --bad s", check=False)
        self.assertEqual(refused.status, 2)

    async def _check_tar(self) -> None:
        """Archives of files; what was changed, names of the system's own files left out."""
        send = "/bin/_walt_internal_/walt-tar-send"
        await self._ssh("mkdir -p 'd 1/sub'; echo a > 'd 1/sub/f'; ln -s nowhere 'd 1/l'")
        for command, members in (
            (f"{send} 'd 1' new", ["./new/", "./new/l", "./new/sub/", "./new/sub/f"]),
            (f"{send} 'd 1' 'd 1'", ["./d 1/", "./d 1/l", "./d 1/sub/", "./d 1/sub/f"]),
            (f"{send} 'd 1' .", ["./", "./l", "./sub/", "./sub/f"]),
            (f"{send} 'd 1/sub/f' g", ["./g"]),
            (f"{send} 'd 1/l' m", ["./m"]),
        ):
            text = await self._output(f"{command} | tar t | sort")
            self.assertEqual(
                sorted(line.rstrip("/") for line in text.splitlines()),
                sorted(line.rstrip("/") for line in members), command,
            )
        missing = await self._ssh(f"{send} ghost x", check=False)
        self.assertIn(b"no such file", missing.stderr)
        await self._ssh("mkdir -p /etc/new /var/log/daemon /srv/log; echo c > /etc/new/conf; "
                        "echo l > /var/log/x; echo k > /etc/x.lock; echo m > /srv/log/mine; "
                        "mkdir /srv/app; echo p > /srv/app/poetry.lock; "
                        "echo i > /srv/app/machine-ids.csv; echo e > /srv/app/walt-env.md; "
                        "mknod /srv/null c 1 3; rm /etc/ethertypes")
        text = await self._output("/bin/_walt_internal_/walt-dump-diff-tar | tar t")
        names = [line.removeprefix("./").rstrip("/") for line in text.splitlines()]
        self.assertIn("etc/new/conf", names)
        for present in ("root/d 1/sub/f", "var/log/daemon", "srv/log/mine", "srv/null",
                        "srv/app/poetry.lock", "srv/app/machine-ids.csv", "srv/app/walt-env.md"):
            self.assertIn(present, names)
        self.assertLess(names.index("etc/new"), names.index("etc/new/conf"))
        for absent in ("var/log/x", "etc/x.lock", "bin/walt-env", "etc/ethertypes"):
            self.assertNotIn(absent, names)
        text = await self._output(
            "now=$(date +%s); date -s @1600000000 > /dev/null; echo p > /srv/app/past; "
            "/bin/_walt_internal_/walt-dump-diff-tar | tar t; date -s @$now > /dev/null"
        )
        self.assertIn("./srv/app/past", text.splitlines())
        text = await self._output(
            "name=$(printf 'a\\nb'); touch \"/srv/$name\"; "
            "/bin/_walt_internal_/walt-dump-diff-tar 2>&1 > /dev/null || rm \"/srv/$name\""
        )
        self.assertIn("rename or remove them: ./srv/a?b", text)
        self.assertEqual(await self._output("ls /tmp"), "")

    async def test_a_server_that_restarts(self) -> None:
        """Notification port and NFS server may restart: the node reconnects, up all along.

        Then REBOOT makes it boot again.
        """
        platform = await self._start()
        await self._booted()
        await self._ssh("echo here > /tmp/mark")
        await self.notifications.stopListening()
        for peer in list(platform.peers):
            peer.transport.abortConnection()
        refused = await self._refused_connections()
        await self.exporter.child.restart()
        other = NodeExport("52:54:00:18:3a:11", "192.168.183.11", "n2", self.node.image_id, None)
        await self._export(self.node, other)
        while await self._refused_connections() == refused:  # the node tries, in vain
            await self._pause(0.1)
        platform.ports.remove(self.notifications)
        self.notifications = platform.serve_notifications()
        await self._booted()
        self.assertEqual(await self._output("cat /tmp/mark; ls /bin/walt-env"),
                         "here\n/bin/walt-env\n")
        self.assertEqual(await platform.request("MODE single\nREBOOT\n"), b"OK\n")
        platform.timeline.clear()
        await self._booted()
        gone = await self._ssh("cat /tmp/mark", check=False)
        self.assertNotEqual(gone.status, 0)
