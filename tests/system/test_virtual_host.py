"""walt-virtual-node as a program manages it; a script stands for QEMU, http.server for the server.

With the real ones it is in test_foreign_node.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, Program
from tests.system.netns import Namespace, short_dir, why_not

MAC = "52:54:00:00:00:01"
PYTHON = os.environ.get("WALT_PYTHON39") or sys.executable  # the oldest that must do
QEMU = f"""#!{sys.executable}
import os, sys
print("qemu", os.getpid(), *sys.argv[1:], flush=True)
for line in sys.stdin:
    print("typed", line, end="", flush=True)
"""
SCRIPT = "kernel kernel a=1 ip=${ip} name=${hostname} gw=${gateway}.\ninitrd initrd\nboot\n"


class ManagedTests(TestCase):
    skip = why_not("ip")
    timeout = patient(60)

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.namespace = Namespace(self)
        self.namespace.run("ip", "link", "add", "walt-net", "type", "bridge")
        self.namespace.run("ip", "address", "add", "192.168.99.1/24", "dev", "walt-net")
        self.namespace.run("ip", "link", "set", "walt-net", "up")
        self.base = short_dir(self)
        for name in ("bin", "tmp", "www/boot"):
            (self.base / name).mkdir(parents=True)
        qemu = self.base / "bin/qemu-system-x86_64"
        qemu.write_text(QEMU)
        qemu.chmod(0o755)
        for name, text in (("start.ipxe", SCRIPT), ("kernel", "k"), ("initrd", "i")):
            (self.base / "www/boot" / name).write_text(text)

    def start(self, *words: str) -> Program:
        """Start a Python program in the namespace."""
        program = Program()
        argv = self.namespace.command(PYTHON, *words)
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.base / "tmp"),
            "PATH": f"{self.base}/bin:{os.environ['PATH']}",
        }
        transport = self.reactor.spawnProcess(program, argv[0], argv, environment)
        self.addCleanup(self.end, program, transport)
        return program

    async def end(self, program: Program, transport: Any) -> None:
        """Kill what still runs."""
        if transport.pid:
            transport.signalProcess("KILL")
            await program.ended

    def node(self) -> Program:
        """Start a managed node."""
        return self.start(
            "-c", "from walt.virtual.main import main; main()", "--managed", "--mac", MAC,
            "--model", "pc-x86-64", "--ip", "192.168.99.9", "--netmask", "255.255.255.0",
            "--server-ip", "192.168.99.1", "--hostname", "vn", "--boot-delay", "0",
            "--accel", "tcg", "--pid-path", f"{self.base}/pid",
            "--disks-path", f"{self.base}/disks", "--networks-path", f"{self.base}/networks",
        )

    def serve(self) -> None:
        """Start the server of boot files."""
        self.start(
            "-m", "http.server", "80", "--bind", "192.168.99.1", "--directory",
            f"{self.base}/www",
        )

    async def until(self, condition: Callable[[], object]) -> Any:
        """Wait until something is true."""
        while not (found := condition()):
            await deferLater(self.reactor, 0.05)
        return found

    def machines(self, node: Program) -> list[list[str]]:
        """Return the command lines of the machines started so far."""
        lines = node.out.decode().splitlines(keepends=True)
        return [line.split() for line in lines if line.startswith("qemu ") and line.endswith("\n")]

    def links(self) -> set[str]:
        """Return the interfaces of the namespace."""
        found = json.loads(self.namespace.run("ip", "-json", "link", "show"))
        return {link["ifname"] for link in found}

    async def test_commands(self) -> None:
        """Settings, console, restart and end; orders count before the first machine too."""
        before = self.links()
        node = self.node()
        await self.until(lambda: b"No boot files yet" in node.err)
        orders: Any = node.transport
        orders.write(
            b"CONF ram 1G\nKILL_VM\nCONF ram much\nCONF networks walt-net,home\n"
            b"CONF gateway 192.168.99.1\nCONF gateway x=1\n"
        )
        await self.until(lambda: b"gateway: 'x=1' is not" in node.err)
        self.assertIn(b'"much" is not an amount', node.err)
        second = self.node()
        self.assertEqual(await second.ended, 1)
        self.assertIn(b"this node runs already", second.err)

        self.serve()
        await self.until(lambda: self.machines(node))
        (machine,) = self.machines(node)
        self.assertEqual(machine[machine.index("-m") + 1], "1024")
        self.assertIn("-append a=1 ip=192.168.99.9 name=vn gw=192.168.99.1.", " ".join(machine))
        self.assertEqual(len(self.links() - before), 3)  # two taps and a bridge
        orders.write(b"INPUT " + b64encode(b"hello\n") + b"\n")
        await self.until(lambda: b"typed hello\n" in node.out)
        orders.write(b"CONF cpu_cores 2\nKILL_VM\n")
        machine = (await self.until(lambda: self.machines(node)[1:]))[0]
        self.assertEqual(machine[machine.index("-smp") + 1], "2")

        orders.write(b"EXIT\n")
        self.assertEqual(await node.ended, 0, node.err)
        self.assertEqual(self.links(), before)
        self.assertEqual(list((self.base / "tmp").iterdir()), [])
        self.assertFalse((self.base / "pid").exists())

    async def test_the_manager_goes(self) -> None:
        """Without its manager a node ends; killed, it takes its machine with it."""
        self.serve()
        node = self.node()
        await self.until(lambda: self.machines(node))
        first: Any = node.transport
        first.closeStdin()
        self.assertEqual(await node.ended, 0, node.err)

        node = self.node()
        pid = (await self.until(lambda: self.machines(node)))[0][1]
        killed: Any = node.transport
        killed.signalProcess("KILL")
        await node.ended
        await self.until(lambda: not self._runs(pid))
        node = self.node()  # taps that were left are no obstacle
        await self.until(lambda: self.machines(node))
        last: Any = node.transport
        last.signalProcess("TERM")
        self.assertEqual(await node.ended, 0, node.err)

    @staticmethod
    def _runs(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False
