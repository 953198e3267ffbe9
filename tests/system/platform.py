"""A walt-net in a network namespace of its own, with a node in QEMU.

DHCP, HTTP and the notification port are set up by hand: what is tested is the
image, its scripts and the NFS server.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import File

from tests.places import ON_DISK
from walt.common.mounts import mounted_below
from walt.common.qemu import PC
from walt.server.runtime.child import ChildService, ChildSpec
from walt.server.runtime.process import Launcher, ProcessRunner

SERVER_IP = "192.168.183.1"
NODE_IP = "192.168.183.10"
OTHER_IP = "192.168.183.77"  # of a machine that is not the server
NODE_MAC = "52:54:00:18:3a:10"
NODE_NAME = "vnode1"
ROOT = Path(__file__).resolve().parent.parent.parent
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def missing_programs() -> str | None:
    """Return why nodes cannot be booted here, None if they can."""
    if os.geteuid() != 0:
        return "needs root"
    programs = ("ip", "nsenter", "dhcpd", "qemu-system-x86_64", "podman", "ganesha.nfsd",
                "mmdebstrap", "dropbearconvert", "ssh", "ssh-keygen")
    missing = [name for name in programs if shutil.which(name) is None]
    if not Path("/usr/lib/ipxe/ipxe.lkrn").exists():
        missing.append("ipxe")
    return f"not installed: {', '.join(missing)}" if missing else None


@dataclass(frozen=True)
class NamespaceLauncher(Launcher):
    """Start programs inside a namespace, but for those that need the host's network."""

    netns: str = ""

    def command(
        self, argv: Sequence[str], *, network: Any = "walt", death_signal: str = "KILL",
        credentials: Sequence[str] = (),
    ) -> list[str]:
        prefix = ["nsenter", f"--net={self.netns}", "--"] if network == "walt" else []
        if argv[0] == sys.executable:
            # Workers import the tree under test, wherever another one is installed.
            argv = ["env", f"PYTHONPATH={ROOT}", *argv]
        return [*prefix, "setpriv", "--pdeathsig", death_signal, *credentials, "--", *argv]


class Notification(Protocol):
    """The server's end of a node's connection to port 12347: bootup status or logs."""

    def connectionMade(self) -> None:
        self.buffer = b""
        self.request = b""
        self.booted = False
        self.factory.platform.peers.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.platform.peers.discard(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            self.line(line)

    def line(self, line: bytes) -> None:
        if not self.request:
            self.request = line
            if line == b"REQ_NOTIFY_BOOTUP_STATUS":
                self.transport.write(b"OK\n")
        elif self.request == b"REQ_NOTIFY_BOOTUP_STATUS":
            if not self.booted:
                self.booted = True
                self.factory.platform.on_booted(self)
        else:
            self.factory.platform.log_lines.append(line.decode(errors="replace"))
            if line.endswith(b"Starting up."):
                self.factory.platform.mark("root mounted")
            if line == b"CLOSE":
                self.transport.loseConnection()


class LegacyCall(Protocol):
    """The server's end of walt-rpc: answers by method, notes what it got."""

    answers = {
        "sync_clock": b"('RESULT', 1700000001)\n",
        "netconsole": b"('RESULT', False)\n",
        "report_lldp_neighbor": b"('RESULT', None)\n",
        "user_keys": b"('RESULT', '')\n",
        "broken": b"('EXCEPTION', 'no such thing')\n",
    }

    def connectionMade(self) -> None:
        self.buffer = b""
        self.lines: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            self.lines.append(line)
            self.factory.platform.calls.append(line.decode())
            if len(self.lines) == 2:
                self.transport.write(b"10.0\n")
            for method, answer in self.answers.items():
                if line.startswith(f"('API_CALL', '{method}'".encode()):
                    self.transport.write(answer)
            if line == b"('CLOSE')":
                self.transport.loseConnection()


class Requester(Protocol):
    """One request to the node service; the Deferred gets all it answered."""

    def __init__(self, request: bytes, close: bool = False) -> None:
        self.request = request
        self.close = close
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)
        if self.close:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if b"REBOOT" in self.request and b"\n" in self.received:
            # As the server does: the first line is the answer, the node may vanish.
            self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.received)


class Platform:
    """Namespace, bridge, dhcpd, HTTP, port 12347, one QEMU node."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.name = f"wti{os.getpid()}"
        self.base = Path(tempfile.mkdtemp(prefix="wti-", dir=ON_DISK))
        self.base.chmod(0o711)
        self.state, self.runtime = self.base / "s", self.base / "r"
        for directory in (self.state, self.runtime):
            directory.mkdir(mode=0o711)
        self.netns = f"/run/netns/{self.name}"
        self.launcher = NamespaceLauncher(netns=self.netns)
        self.runner = ProcessRunner(reactor, self.launcher)
        self.timeline: list[tuple[float, str]] = []
        self.log_lines: list[str] = []
        self.calls: list[str] = []
        self.console: list[str] = []
        self.children: list[ChildService] = []
        self.ports: list[Any] = []
        self.peers: set[Notification] = set()
        self.notifications: list[Notification] = []
        self._booted: list[Deferred[Notification]] = []
        self._start = time.monotonic()

    def mark(self, event: str) -> None:
        """Note the time of an event since power-on."""
        self.timeline.append((time.monotonic() - self._start, event))

    def on_booted(self, notification: Notification) -> None:
        self.mark("booted")
        self.notifications.append(notification)
        waiting, self._booted = self._booted, []
        for one in waiting:
            one.callback(notification)

    def booted(self) -> Deferred[Notification]:
        """Fire at the next bootup notification."""
        waiting: Deferred[Notification] = Deferred()
        self._booted.append(waiting)
        return waiting

    async def set_up_network(self) -> None:
        await self.runner.run(["ip", "netns", "add", self.name], network="host")
        lines = [
            "link set lo up", "link add walt-net type bridge",
            f"addr add {SERVER_IP}/24 dev walt-net", f"addr add {OTHER_IP}/24 dev walt-net",
            "tuntap add dev tap0 mode tap", "link set tap0 master walt-net", "link set tap0 up",
            "link set walt-net up",
        ]
        await self.runner.run(["ip", "-batch", "-"], stdin="\n".join(lines).encode())

    def socket(
        self, *, port: int | None = None, connect: tuple[str, int] | None = None,
        source: str = SERVER_IP, own_port: int = 0,
    ) -> Any:
        """Return a socket that lives in the namespace: this process stays outside."""
        with open("/proc/self/ns/net") as here, open(self.netns) as there:
            assert _libc.setns(there.fileno(), _CLONE_NEWNET) == 0
            try:
                made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                if port is not None:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind((SERVER_IP, port))
                    made.listen(50)
                elif connect is not None:
                    made.settimeout(5)
                    made.bind((source, own_port))
                    made.connect(connect)
            finally:
                assert _libc.setns(here.fileno(), _CLONE_NEWNET) == 0
        made.setblocking(False)
        return made

    def listen(self, port: int, factory: Any) -> Any:
        made = self.socket(port=port)
        listening = self.reactor.adoptStreamPort(made.fileno(), socket.AF_INET, factory)
        made.close()
        self.ports.append(listening)
        return listening

    def serve_notifications(self) -> Any:
        factory = Factory.forProtocol(Notification)
        factory.platform = self  # type: ignore[attr-defined]
        factory.noisy = False
        return self.listen(12347, factory)

    def serve_boot_files(self, directory: Path) -> None:
        root = Resource()
        root.putChild(b"boot", File(str(directory)))
        site = Site(root)
        site.noisy = False  # type: ignore[assignment]
        self.listen(80, site)

    def serve_calls(self) -> None:
        factory = Factory.forProtocol(LegacyCall)
        factory.platform = self  # type: ignore[attr-defined]
        factory.noisy = False
        self.listen(12345, factory)

    def request(
        self, text: str, close: bool = False, source: str = SERVER_IP, own_port: int = 0
    ) -> Deferred[bytes]:
        """Send a request to the node's service on 12346 and return all of its answer.

        It comes from `own_port`, or from any.
        """
        peer = Requester(text.encode(), close)
        made = self.socket(
            connect=(NODE_IP, 12346), source=source, own_port=own_port
        )
        factory = Factory()
        factory.buildProtocol = lambda address: peer  # type: ignore[method-assign]
        factory.noisy = False
        self.reactor.adoptStreamConnection(made.fileno(), socket.AF_INET, factory)
        made.close()
        return peer.done

    def child(self, name: str, argv: Sequence[str], **options: Any) -> ChildService:
        service = ChildService(
            self.reactor, self.launcher, ChildSpec(name, tuple(argv)), **options
        )
        service.startService()
        self.children.append(service)
        return service

    def start_dhcpd(self) -> None:
        config = self.base / "dhcpd.conf"
        config.write_text(f"""
authoritative;
option ipxe-encap code 175 = encapsulate ipxe;
option space ipxe code width 1 length width 1;
option ipxe.no-pxedhcp code 176 = unsigned integer 8;
option ipxe.no-pxedhcp 1;
ping-check off;
next-server {SERVER_IP};
subnet 192.168.183.0 netmask 255.255.255.0 {{ }}
host {NODE_NAME} {{
  hardware ethernet {NODE_MAC}; fixed-address {NODE_IP}; option host-name "{NODE_NAME}";
}}
""".replace("option ipxe-encap code 175 = encapsulate ipxe;\noption space ipxe code width 1 "
            "length width 1;\n",
            "option space ipxe;\noption ipxe-encap code 175 = encapsulate ipxe;\n"))
        (self.base / "dhcpd.leases").touch()
        self.child("dhcpd", [
            "dhcpd", "-f", "-4", "-q", "-cf", str(config), "-lf", str(self.base / "dhcpd.leases"),
            "-pf", str(self.base / "dhcpd.pid"), "walt-net",
        ])

    def start_node(self, memory: int = 512) -> ChildService:
        """Power the node on; its console goes to `console`."""
        script = self.base / "node.ipxe"
        script.write_text(
            "#!ipxe\nset user-class walt.node.pc-x86-64\n"
            "ifconf --configurator dhcp || reboot\n"
            "chain http://${next-server}/boot/start.ipxe || reboot\n"
        )
        self._start = time.monotonic()
        self.timeline.clear()
        return self.child("qemu", [
            PC.program, "-nodefaults", "-machine", f"{PC.machine},accel=tcg",
            "-cpu", PC.emulated_cpu, "-m", str(memory),
            "-nographic", "-no-reboot", "-monitor", "none", "-serial", "stdio", "-vga", "none",
            "-kernel", "/usr/lib/ipxe/ipxe.lkrn", "-initrd", str(script),
            "-smbios", "type=1,manufacturer=QEMU",
            "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n0,mac={NODE_MAC},romfile=",
        ], on_line=self._on_console)

    def _on_console(self, line: str) -> None:
        self.console.append(line)
        self.mark(line.strip()[:100])

    async def close(self) -> None:
        """Stop and remove all of it."""
        for child in reversed(self.children):
            await child.stopService()
        for port in reversed(self.ports):
            await port.stopListening()
        for peer in list(self.peers):
            peer.transport.abortConnection()
        await deferLater(self.reactor, 0.1, lambda: None)
        await self.runner.run(["ip", "netns", "del", self.name], network="host", check=False)
        for point in mounted_below(self.base):  # the file system of images
            await self.runner.run(
                ["umount", "--lazy", str(point)], network="host", check=False
            )
        shutil.rmtree(self.base, ignore_errors=True)
