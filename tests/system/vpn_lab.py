"""A platform with a VPN, and boards of it, in network namespaces."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, Program
from walt.server.runtime.process import ProcessResult

MAC, NAME = "d8:3a:dd:00:00:05", "pi5"
ID = "vpn_d83add000005"
OUTSIDE = "10.99.0.1"  # the server, in the network outside
HOST = "10.99.0.2"  # somebody there
PORT = 2222  # of the server's sshd
IMAGE = "waltplatform/rpi-5-b-default"


class VpnLab:
    """The server's machine is a namespace of the test's; so are the board's, and the world's."""

    def __init__(self, case: Any, reactor: Any) -> None:
        self.case = case
        self.platform = LivePlatform(reactor, own_namespace=False)
        self.net = self.platform.net
        self.http_entrypoint = OUTSIDE
        self._prepared = False

    @property
    def ip(self) -> str:
        """The address of the board in walt-net."""
        return f"{self.net}.50"

    def config(self, mode: str = "permissive", extra: str = "") -> str:
        """Return lines of server.conf."""
        return (
            f"security: {{names: [walt.example.org]}}\n"
            f"vpn: {{enabled: true, ssh-entrypoint: '{OUTSIDE}:{PORT}', ssh-port: {PORT},\n"
            f"      http-entrypoint: {self.http_entrypoint}, boot-mode: {mode}}}\n{extra}"
        )

    async def start(self, files: dict[str, str | Path], mode: str = "permissive") -> None:
        """Start the server; its image for boards has these files."""
        platform = self.platform
        if not self._prepared:
            await self.prepare()
        platform.write_config(self.config(mode))
        await platform.add_image(IMAGE, files, models="rpi-5-b")
        await platform.start()

    async def prepare(self) -> None:
        """Make networks and the default image."""
        self._prepared = True
        await self.add_namespace(self.platform.namespace)
        self.case.addCleanup(self.platform.close)
        await self.ip_of(self.platform.namespace, "link", "set", "lo", "up")
        await self.world()
        await self.platform.import_image()

    async def leave(self) -> None:
        """Take the board off the cable of walt-net."""
        await self.ip_of(self.platform.namespace, "link", "del", "cable")

    async def add_namespace(self, name: str) -> None:
        """Make a namespace that goes with the test."""
        await self.platform.runner.run(["ip", "netns", "add", name])
        self.case.addCleanup(
            self.platform.runner.run, ["ip", "netns", "del", name], check=False
        )

    async def ip_of(self, namespace: str, *words: str) -> None:
        """Run ip(8) in a namespace."""
        await self.platform.runner.run(["ip", "-n", namespace, *words])

    async def world(self) -> None:
        """Cable the server's machine to a network outside, where another machine is."""
        here, there = self.platform.namespace, self.outside
        await self.add_namespace(there)
        await self.ip_of(
            here, "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", there
        )
        for name, address in ((here, OUTSIDE), (there, HOST)):
            await self.ip_of(name, "address", "add", f"{address}/24", "dev", "wan")
            await self.ip_of(name, "link", "set", "wan", "up")
            await self.ip_of(name, "link", "set", "lo", "up")

    @property
    def outside(self) -> str:
        """The namespace of the network outside."""
        return f"{self.platform.namespace}o"

    @property
    def inside(self) -> str:
        """The namespace of a board on the cable of walt-net."""
        return f"{self.platform.namespace}i"

    async def board_inside(self, mac: str = MAC) -> None:
        """Put the board on the cable of walt-net; dhcpd has told of it."""
        here = self.platform.namespace
        await self.add_namespace(self.inside)
        await self.ip_of(
            here, "link", "add", "cable", "type", "veth", "peer", "name", "eth0", "address", mac,
            "netns", self.inside,
        )
        await self.ip_of(here, "link", "set", "cable", "master", "walt-net", "up")
        await self.ip_of(self.inside, "link", "set", "eth0", "up")
        await self.ip_of(self.inside, "link", "set", "lo", "up")
        await self.ip_of(self.inside, "address", "add", f"{self.ip}/24", "dev", "eth0")
        await self.ip_of(self.inside, "route", "add", "default", "via", f"{self.net}.1")

    async def register(self, mac: str = MAC, name: str = NAME, ip: str = "") -> None:
        """Have the board known as a node."""
        done = await self.platform.event(
            "commit", "--force-name", "walt.node.rpi-5-b", "", ip or self.ip, mac, name, "0",
            "unknown",
        )
        self.case.assertEqual(done.status, 0, done.stderr)

        async def known() -> bool:
            return name in await self.platform.ok("node", "show", "--all")

        await self.platform.until(known, f"{name} is a node", 60)

    async def run(self, namespace: str, *argv: str, check: bool = True,
                  timeout: float = 60) -> ProcessResult:
        """Run a program in a namespace."""
        return await self.platform.runner.run(
            ["nsenter", f"--net=/run/netns/{namespace}", "--", *argv], check=check,
            timeout=patient(timeout),
        )

    async def http(self, namespace: str, path: str, *options: str, server: str = "") -> str:
        """Return the status and the body of an answer."""
        done = await self.run(
            namespace, "curl", "--silent", "--path-as-is", "--max-time", "60",
            "--header", "Prefer: errors=text-only", "--write-out", "\n%{http_code}", *options,
            f"http://{server or f'{self.net}.1'}/walt-vpn/{path}",
        )
        body, _, status = done.stdout.decode(errors="replace").rpartition("\n")
        return f"{status} {body}"

    async def new_key(self, name: str = "board") -> Path:
        """Make the key of a board, as it does itself; return its path."""
        path = self.platform.base / name
        await self.platform.runner.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(path)]
        )
        return path

    async def enrol(self, key: Path, namespace: str = "", query: str = "") -> str:
        """Post a key; return status and text."""
        return await self.http(
            namespace or self.inside, f"enroll{query}", "--form", f"ssh-pubkey=@{key}.pub"
        )

    async def enrolled(self) -> tuple[Path, str]:
        """Enrol a board; return its key, and its MAC of the VPN."""
        await self.board_inside()
        await self.register()
        key = await self.new_key()
        self.case.assertEqual(await self.enrol(key), "200 OK\n")
        await self.credentials(key)
        return key, (await self.http(self.inside, "node-conf/vpn-mac")).removeprefix("200 ")

    def ssh(self, key: Path, *options: str, user: str = "walt-vpn") -> list[str]:
        """Return the words of ssh from outside, up to the command."""
        return [
            "ssh", "-F", "/dev/null", *options, "-q", "-T", "-i", str(key),
            "-o", f"CertificateFile={key}-cert.pub", "-o", "IdentitiesOnly=yes",
            "-o", f"UserKnownHostsFile={self.platform.base}/known_hosts",
            "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            "-p", str(PORT), f"{user}@{OUTSIDE}",
        ]

    def tunnel(self, key: Path, device: str, mac: str, *options: str,
               namespace: str = "") -> tuple[Program, Any]:
        """Open a tunnel from outside; return its process."""
        program = Program()
        argv = [
            "nsenter", f"--net=/run/netns/{namespace or self.outside}", "--", sys.executable,
            "-m", "walt.vpn.tunnel", "--device", device, "--mac", mac, *options, *self.ssh(key),
        ]
        transport = self.platform.reactor.spawnProcess(
            program, argv[0], argv, {**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.case.addCleanup(lambda: transport.pid and transport.signalProcess("KILL"))
        return program, transport

    async def reaches(self, device: str, namespace: str = "") -> bool:
        """Tell whether the server answers through a device."""
        done = await self.run(
            namespace or self.outside, "ping", "-c", "1", "-W", "1", "-I", device,
            f"{self.net}.1", check=False,
        )
        return done.status == 0

    async def credentials(self, key: Path) -> None:
        """Fetch what a board keeps in its EEPROM: beside its key."""
        status, _, certificate = (
            await self.http(self.inside, "node-conf/ssh-pubkey-cert")
        ).partition(" ")
        self.case.assertEqual(status, "200")
        Path(f"{key}-cert.pub").write_text(certificate + "\n")
        _, _, known = (
            await self.http(self.inside, "node-conf/ssh-entrypoint-host-keys")
        ).partition(" ")
        (self.platform.base / "known_hosts").write_text(known)
