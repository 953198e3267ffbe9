"""What settings and images do to booted nodes: three QEMU nodes on one platform."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.patience import patient, within
from tests.system.live import ROOT, LivePlatform, Program, why_not

PC = "walt.node.pc-x86-64"
BOARD_IP, BOARD_MAC = "192.168.181.200", "02:00:00:00:00:c8"
# A board that reconnected before its former connection was found dead.
BOARD = """
import socket, sys
def notify():
    peer = socket.create_connection(("192.168.181.1", 12347))
    peer.sendall(b"REQ_NOTIFY_BOOTUP_STATUS\\n")
    assert peer.recv(10) == b"OK\\n"
    peer.sendall(b"\\n")
    return peer
first, second = notify(), notify()
print("two", flush=True)
sys.stdin.readline()
first.close()
print("closed", flush=True)
second.recv(10)
"""
OUTSIDE = "10.99.0"  # a network beyond walt-net
HOOKED = {
    "/etc/walt/image.spec": "templates: [/etc/told, /etc/missing]\n",
    "/etc/told": "%(server_ip)s %(walt_image_size_kib)s 100%%\n",
    "/etc/hostname": "builder\n",
    "/etc/resolv.conf": "nameserver 10.0.0.1\n",
    "/bin/on-bootup": "#!/bin/sh\n: > /run/nologin\necho ran >> /run/hook\n",
    "/bin/blink": '#!/bin/sh\necho "$1" >> /run/blink\n',
    "/root/.ssh/authorized_keys": "ssh-rsa AAAA somebody\n",
}
BROKEN = {
    "/bin/walt-preinit": "#!/bin/sh\nexit 7\n",
    "/etc/walt/image.spec": "templates: [\n",
}

REFUSING = {"/bin/on-bootup": "#!/bin/sh\necho asked > /dev/console\nsleep 1\nexit 1\n"}


class NodeSettingsTests(TestCase):
    skip = why_not()
    timeout = patient(600)

    async def test_booted_nodes(self) -> None:
        """Settings are seen inside; hooks run; NAT passes; what fails is noticed and told."""
        from twisted.internet import reactor

        platform = self.platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        platform.write_config("boot:\n  reconnect-grace: 0\n")
        await platform.import_image()
        await platform.add_image("alice/hooked", {**HOOKED, **await self.nbd_client()})
        await platform.add_image("alice/broken", BROKEN)
        await platform.add_image("alice/refusing", REFUSING)
        await platform.start()
        await self.make_nodes()
        frozen = await self.freeze("v3")
        await self.plug_board()
        await platform.ok("node", "wait", *within(150), "v1,v2")
        await self.check_settings()
        await self.check_swap()
        await self.check_hooks()
        await self.check_preparation()
        await self.check_old_boot_client()
        await self.check_traffic()
        await platform.ok("node", "boot", "v2", "refusing")
        ended = (await self.server_log()).count("virtual node v2: its machine ended")
        await self.check_rescue_shell()
        await self.check_failing_hook(ended)
        await self.check_watchdog_and_timeout(frozen)

    async def make_nodes(self) -> None:
        """v1: hooks, memory, cores, no /persist. v2: NAT. v3: will not boot."""
        platform = self.platform
        for name in ("v3", "v1", "v2"):
            await platform.ok("node", "create", name)
            await platform.ok("node", "config", name, "boot.delay=0")
        for wrong in ("-1", "soon", "1.5", ""):
            refused = await platform.walt("node", "config", "v1", f"boot.delay={wrong}")
            self.assertEqual((refused.status, refused.stdout), (1, b""), wrong)
        # The delay of a new node is random; then it is the one that was set.
        for name in ("v1", "v2", "v3"):
            (first, *_) = re.findall(rf"node {name}: boots in (\d+) s", await self.server_log())
            self.assertIn(int(first), range(1, 11))
        await platform.ok("node", "config", "v3", "boot.timeout=60", "boot.retries=1")
        await platform.ok(
            "node", "config", "v1", "ram=300M", "cpu.cores=2", "mount.persist=false",
            "netconsole=true",
        )
        told = await platform.ok("node", "config", "v2", "netsetup=NAT")
        self.assertIn("Reboot the node(s)", told)
        await platform.ok("node", "reboot", "--hard", "v2")
        await platform.ok("node", "boot", "v1", "hooked")

    async def freeze(self, name: str) -> int:
        """Stop the processor of a machine that is booting; return its process."""
        (pid,) = await self.platform.until(
            lambda: self.platform.machines(name), f"the machine of {name} runs", 30
        )
        os.kill(pid, signal.SIGSTOP)
        return pid

    async def plug_board(self) -> None:
        """A board notifies twice; the end of the former connection means nothing."""
        platform = self.platform
        await platform.event("commit", "", PC, BOARD_IP, BOARD_MAC, "", "0", "unknown")
        name, run = f"{platform.namespace}b", platform.runner.run
        await run(["ip", "netns", "add", name])
        self.addCleanup(run, ["ip", "netns", "del", name], check=False)
        await run(["ip", "-n", platform.namespace, "-batch", "-"], stdin=(
            f"link add board type veth peer name eth0 netns {name}\n"
            "link set board master walt-net up\n"
        ).encode())
        await run(["ip", "-n", name, "-batch", "-"], stdin=(
            f"link set eth0 up\naddress add {BOARD_IP}/24 dev eth0\n"
        ).encode())
        board = Program()
        argv = ["nsenter", f"--net=/run/netns/{name}", "--", sys.executable, "-c", BOARD]
        transport = platform.reactor.spawnProcess(board, argv[0], argv, dict(os.environ))
        self.addCleanup(lambda: transport.pid and transport.signalProcess("KILL"))

        async def confirmed() -> bool:
            return b"two" in board.out and "node node-0000c8 is booted" in await self.platform_log()

        await platform.until(confirmed, "the board is booted", 20)
        transport.write(b"close the first one\n")

        async def closed() -> bool:
            return b"closed" in board.out

        await platform.until(closed, "the first connection is closed", 10)

    async def platform_log(self) -> str:
        """Return the events of the platform."""
        return await self.platform.ok("log", "show", "--platform", "--history", "full")

    def mounts(self) -> int:
        """Return how many images are mounted."""
        return sum(one.is_mount() for one in self.platform.state.glob("images/*/fs"))

    async def run_on(self, node: str, command: str) -> str:
        """Run a command on a node and return its output."""
        return await self.platform.ok("node", "run", node, "--", command)

    async def check_settings(self) -> None:
        """Memory, cores and /persist are those of the settings."""
        total, cores, persist = (await self.run_on(
            "v1", "awk '/MemTotal/ {print $2}' /proc/meminfo; nproc; mount | grep -c ' /persist '"
            " || true",
        )).split()
        self.assertTrue(200_000 < int(total) < 300 * 1024, total)
        self.assertEqual((cores, persist), ("2", "0"))
        self.assertEqual(await self.run_on("v2", "mount | grep -c ' /persist '"), "1\n")
        await self.run_on("v1", "echo '<2>said by the kernel' > /dev/kmsg")
        await self.run_on("v2", "echo '<2>said by the kernel' > /dev/kmsg")

        async def said() -> bool:
            return "said by the kernel" in await self.log("netconsole", "v1")

        await self.platform.until(said, "a message of the kernel of v1", 20)
        self.assertEqual(await self.log("netconsole", "v2"), "")
        console = await self.log("virtualconsole", "v1")
        self.assertIn("no /persist directory for this node", console)

    async def nbd_client(self) -> dict[str, str | Path]:
        """Return nbd-client of this machine for an image without any library."""
        program = shutil.which("nbd-client")
        assert program is not None
        linked = (await self.platform.runner.run(["ldd", program])).stdout.decode().split()
        files = {Path(word).name: Path(word) for word in linked if word.startswith("/")}
        (loader,) = [name for name in files if name.startswith("ld-")]
        return {
            "/usr/sbin/nbd-client": f"#!/bin/sh\nexec /opt/nbd/{loader} --library-path /opt/nbd"
            ' /opt/nbd/nbd-client "$@"\n',
            "/opt/nbd/nbd-client": Path(program),
            **{f"/opt/nbd/{name}": path for name, path in files.items()},
        }

    async def check_swap(self) -> None:
        """v1 has the client of the swap service: it gets 16 GiB, and really swaps there."""
        size, used, same = (await self.run_on(
            # Random bytes and requests for single pages take an emulated processor minutes;
            # read from its end, each page of the file comes back once, not twice.
            "v1", "cd /run/walt/rootfs/tmp; echo 7 > /proc/sys/vm/page-cluster;"
            " dd if=/dev/urandom of=part bs=1M count=10 2>/dev/null;"
            " for i in $(seq 30); do cat part; done > large; rm part;"
            " awk '/nbd0/ {print $3, $4}' /proc/swaps; for i in $(seq 29 -1 0); do"
            " dd if=large bs=1M skip=$((i * 10)) count=10 2>/dev/null; done | wc -c; rm large",
        )).split()
        self.assertEqual((int(size) >> 20, same), (15, str(300 << 20)))
        self.assertGreater(int(used), 10_000)
        self.assertEqual(await self.run_on("v2", "grep -c nbd /proc/swaps || true"), "0\n")

    async def check_hooks(self) -> None:
        """on-bootup ran once, before the notification; blink was told 1, then 0."""
        self.assertEqual(
            await self.run_on("v1", "cat /run/hook; ls /run/nologin 2>/dev/null; true"), "ran\n"
        )
        told = await self.platform.ok("node", "blink", "v1", "1")
        self.assertIn("blinks for 1 seconds", told)
        self.assertEqual(await self.run_on("v1", "cat /run/blink"), "1\n0\n")
        refused = await self.platform.walt("node", "blink", "v2", "1")
        self.assertEqual(refused.status, 1)
        self.assertIn(b"/bin/blink unavailable", refused.stderr)

    async def check_preparation(self) -> None:
        """Files of the image were adapted to the platform."""
        seen = await self.run_on(
            "v1", "cat /etc/told; ls /etc/hostname 2>/dev/null; hostname; cat /etc/resolv.conf"
            " /etc/resolv.conf.saved; wc -l < /root/.ssh/authorized_keys; grep -c localhost"
            " /etc/hosts; ls -l /etc/dropbear/dropbear_ecdsa_host_key | cut -c1-10",
        )
        words = seen.split()
        self.assertEqual(words[0], "192.168.181.1")
        self.assertGreater(int(words[1]), 1000)
        self.assertEqual(
            " ".join(words[2:]),
            "100% v1 domain walt search walt. nameserver 192.168.181.1 nameserver 10.0.0.1 2 2"
            " -rw-------",
        )
        self.assertIn("template /etc/missing", await self.server_log())

    async def check_old_boot_client(self) -> None:
        """The kexec tool of old images gets boot files by MAC or address, with pickles."""
        code = (
            "import pickle, socket, sys\n"
            "for given in ({'node_ip': sys.argv[1], 'path': '/start.ipxe'},\n"
            "              {'node_ip': sys.argv[1], 'path': '/../../x'}, {'path': '/x'}):\n"
            "    s = socket.create_connection((sys.argv[2], 12347)); f = s.makefile('rwb')\n"
            "    f.write(b'12\\n'); f.flush(); assert f.readline() == b'READY\\n'\n"
            "    f.write(pickle.dumps(given, 4)); f.flush(); answer = f.read()\n"
            "    print(answer[:2], answer.count(b'\\n') > 5, answer[-25:])\n"
        )
        seen = await self.platform.runner.run([
            "nsenter", f"--net=/run/netns/{self.platform.namespace}b", "--", sys.executable, "-c",
            code, BOARD_IP, "192.168.181.1",
        ])
        script = (ROOT / "walt" / "images" / "start.ipxe").read_bytes()
        self.assertEqual(seen.stdout.decode().splitlines(), [
            f"b'OK' True {script[-25:]!r}", "b'NO' False b'NO SUCH FILE\\n'",
            "b'NO' False b'NO MAC OR IP SPECIFIED\\n'",
        ])

    async def check_traffic(self) -> None:
        """Through NAT a node reaches a host outside, which sees the server; LAN does not."""
        platform = self.platform
        outside = f"{platform.namespace}o"
        ip = ["ip", "-n", platform.namespace]
        for words in (
            ["ip", "netns", "add", outside],
            [*ip, "link", "add", "out0", "type", "veth", "peer", "name", "out1", "netns", outside],
            [*ip, "address", "add", f"{OUTSIDE}.1/24", "dev", "out0"],
            [*ip, "link", "set", "out0", "up"],
            ["ip", "-n", outside, "address", "add", f"{OUTSIDE}.2/24", "dev", "out1"],
            ["ip", "-n", outside, "link", "set", "out1", "up"],
        ):
            await platform.runner.run(words)
        self.addCleanup(platform.runner.run, ["ip", "netns", "del", outside], check=False)
        argv = [
            "nsenter", f"--net=/run/netns/{outside}", "--", "socat",
            "TCP-LISTEN:8000,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR",
        ]
        serving = platform.runner.run(argv, check=False, timeout=300)
        from twisted.internet.defer import Deferred

        self.server = Deferred.fromCoroutine(serving)
        self.addCleanup(self.server.cancel)
        self.server.addErrback(lambda _: None)
        ask = f"busybox nc -w 5 {OUTSIDE}.2 8000 </dev/null"
        await platform.until(lambda: self.answers("v2", ask), "traffic through NAT", 20)
        self.assertEqual(await self.run_on("v2", ask), f"{OUTSIDE}.1\n")
        away = await platform.walt("node", "run", "v1", "--", ask)
        self.assertNotEqual(away.status, 0)
        forced = await platform.walt(
            "node", "run", "v1", "--", f"route add default gw 192.168.181.1; {ask}"
        )
        self.assertEqual((forced.status != 0, forced.stdout), (True, b""))
        # LAN closes the way at once, for new connections.
        await platform.ok("node", "config", "v2", "netsetup=LAN")

        async def closed() -> bool:
            return not await self.answers("v2", ask)

        await platform.until(closed, "LAN closes the way", 20)

    async def answers(self, node: str, ask: str) -> bool:
        """Tell whether the host outside answered."""
        ran = await self.platform.walt("node", "run", node, "--", ask)
        return ran.stdout.startswith(OUTSIDE.encode())

    async def check_rescue_shell(self) -> None:
        """A boot that fails offers a shell on the console; leaving it reboots the node."""
        platform = self.platform
        await platform.ok("node", "boot", "v1", "broken")
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        # It could still read its former image, to reboot by itself.
        self.assertIn("node v1 is down (cause: image change, method: soft-reboot)", events)
        await self.on_console("v1", "Press <ENTER> within 5 seconds")

        async def answers() -> bool:
            # ENTER, too: on a busy machine the seconds of an offer pass, and the next boot makes
            # another one.
            await platform.type("v1", "\necho rescue-$((6*7))\n")
            return "rescue-42" in await self.log("virtualconsole", "v1")

        await platform.until(answers, "the shell answers", 100)
        self.assertIn("image spec: ", await self.server_log())
        await platform.type("v1", "exit\n")

        async def rebooted() -> bool:
            return "virtual node v1: its machine ended" in (await self.server_log()).split(
                "image spec: "
            )[-1]

        await platform.until(rebooted, "leaving the shell reboots", 30)
        # Nothing answers on 12346 there: the machine is ended instead.
        told = await platform.ok("node", "boot", "v1", "hooked")
        self.assertIn("v1: rebooted ok.", told)
        # The node might still need files of the former image.
        self.assertEqual(self.mounts(), 4)

    async def check_failing_hook(self, ended: int) -> None:
        """A node whose hook fails is never booted: it reboots, again and again."""
        platform = self.platform
        before = (await self.platform_log()).count("node v2 is booted")

        async def again() -> bool:
            count = (await self.server_log()).count("virtual node v2: its machine ended")
            return count > ended + 1 and "asked" in await self.log("virtualconsole", "v2")

        await platform.until(again, "v2 reboots as its hook fails", 150)
        events = await self.platform_log()
        self.assertEqual(events.count("node v2 is booted"), before)
        await platform.ok("node", "boot", "v2", "pc-x86-64-small")
        await platform.ok("node", "wait", *within(150), "v2")

    async def check_watchdog_and_timeout(self, frozen: int) -> None:
        """A node that loses its root reboots; one that does not boot is rebooted hard."""
        platform = self.platform
        tables = json.loads(await platform.ok("node", "show", "--all", "--json"))
        self.assertEqual([row["booted"] for row in tables["free"]], [True])
        self.assertNotIn("node-0000c8 is down", await self.platform_log())
        # The cable of the board is cut: nothing tells the server, but silence.
        await platform.runner.run(["ip", "-n", platform.namespace, "link", "set", "board", "down"])
        before = (await self.server_log()).count("virtual node v2: its machine ended")
        # A server that does not serve would be noticed, and started again: packets get lost.
        (ip,) = [row["ip"] for rows in tables.values() for row in rows if row["name"] == "v2"]
        await self.nft(
            "table ip cut {\nchain input {\ntype filter hook input priority -10\n"
            f"ip saddr {ip} tcp dport 2049 drop\n}}\n}}"
        )

        async def rebooted() -> bool:
            log = await self.server_log()
            return log.count("virtual node v2: its machine ended") > before

        await platform.until(rebooted, "the watchdog reboots v2", 150)
        await self.nft("delete table ip cut")
        await platform.ok("node", "wait", *within(150), "v1,v2,v3")
        events = await platform.ok("log", "show", "--platform", "--history", "full")
        self.assertIn("v3: boot timeout reached, trying hard-reboot (last try).", events)
        self.assertNotIn("v1: boot timeout reached", events)
        self.assertFalse(os.path.exists(f"/proc/{frozen}"))
        self.assertIn("node v1: boots in 0 s", await self.server_log())

        async def noticed() -> bool:
            return (
                "node node-0000c8 is down (cause: unknown, note: server-detected disconnection)"
                in await self.platform_log()
            )

        await platform.until(noticed, "the loss of the board is noticed", 60)

        async def settled() -> bool:
            return self.mounts() == 2

        await platform.until(settled, "the images that nobody boots are unmounted", 90)

    async def nft(self, text: str) -> None:
        """Give nft a text in the namespace of the platform."""
        await self.platform.runner.run(
            ["ip", "netns", "exec", self.platform.namespace, "nft", "-f", "-"],
            stdin=f"{text}\n".encode(),
        )

    async def server_log(self) -> str:
        """Return the output of the server."""
        return self.platform.log.read_text(errors="replace")

    async def log(self, stream: str, node: str) -> str:
        """Return the lines of a stream of a node."""
        return await self.platform.ok(
            "log", "show", "--history", "full", "--issuers", node, "--streams", stream
        )

    async def on_console(self, node: str, text: str) -> None:
        """Wait until a text was on the console of a node."""

        async def shown() -> bool:
            return text in await self.log("virtualconsole", node)

        await self.platform.until(shown, f"{text!r} on the console of {node}", 60)
