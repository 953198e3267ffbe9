"""Run with `python -m bench.vpn`, as root: the tunnel against `ssh -w`, same run, by turns."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.system.live import Program
from tests.system.load import figure, run_bench
from tests.system.vpn_lab import HOST, OUTSIDE, VpnLab

SECONDS = 4.0
ROUNDS = 3
TARGET, LEAST = 0.6, 200.0  # of ssh -w; Mbit/s
# Sends for some seconds; the other side says how many bits, and datagrams, arrived a second.
RECEIVE = """
import socket, sys, time
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "tcp":
    one = socket.create_server((address, port))
    print("ready", flush=True)
    peer, _ = one.accept()
    start, size = time.monotonic(), 0
    while data := peer.recv(1 << 18):
        size += len(data)
    print(size * 8 / 1e6 / (time.monotonic() - start))
else:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((address, port))
    one.settimeout(3)
    print("ready", flush=True)
    one.recv(100)
    start, count = time.monotonic(), 0
    last = start
    try:
        while True:
            one.recv(100)
            count, last = count + 1, time.monotonic()
    except TimeoutError:
        pass
    print(count / (last - start))
"""
SEND = """
import socket, sys, time
kind, address, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
end, data = time.monotonic() + seconds, bytes(1 << 18)
if kind == "tcp":
    with socket.create_connection((address, port), 10) as one:
        while time.monotonic() < end:
            one.sendall(data)
else:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect((address, port))
    while time.monotonic() < end:
        for _ in range(50):
            one.send(b"x" * 18)  # frames of 60 bytes
        time.sleep(0.001)
"""


class Case:
    """What the lab of the tests needs of a test."""

    def __init__(self) -> None:
        self.cleanups: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def addCleanup(self, function: Callable[..., Any], *words: Any, **options: Any) -> None:
        """Do something at the end, the last first."""
        self.cleanups.append((function, words, options))

    def assertEqual(self, first: Any, second: Any, message: Any = None) -> None:
        """Stop when the lab is not as it should be."""
        if first != second:
            raise AssertionError(f"{first!r} is not {second!r}: {message}")

    async def clean(self) -> None:
        """Undo everything."""
        while self.cleanups:
            function, words, options = self.cleanups.pop()
            result = function(*words, **options)
            if inspect.isawaitable(result):
                await result


class Bench:
    """A board outside; both tunnels carry the same frames, one after the other."""

    def __init__(self, lab: VpnLab) -> None:
        self.lab = lab
        self._port = 5000

    async def spawn(self, namespace: str, *argv: str) -> tuple[Program, Any]:
        """Start a program that goes on."""
        program = Program()
        words = ["nsenter", f"--net=/run/netns/{namespace}", "--", *argv]
        transport = self.lab.platform.reactor.spawnProcess(program, words[0], words, os.environ)

        async def end() -> None:
            if transport.pid:
                transport.signalProcess("KILL")
            await program.ended

        self.lab.case.addCleanup(end)
        return program, transport

    async def measure(self, kind: str, source: str, target: str, address: str) -> float:
        """Return what arrives a second at an address, from one namespace to another."""
        self._port += 1
        receiver, _ = await self.spawn(
            target, "python3", "-c", RECEIVE, kind, address, str(self._port)
        )

        async def ready() -> bool:
            return b"ready" in receiver.out

        await self.lab.platform.until(ready, "the receiver is ready", 20, 0.05)
        await self.lab.run(
            source, "python3", "-c", SEND, kind, address, str(self._port), str(SECONDS)
        )
        await receiver.ended
        return float(receiver.out.split()[-1])

    async def plain(self) -> None:
        """Open the tunnel of OpenSSH itself, layer 2, between the same machines."""
        base, here = self.lab.platform.base, self.lab.platform.namespace
        for name in ("root-host", "root-key"):
            await self.lab.platform.runner.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(base / name)]
            )
        (base / "root-key.pub").rename(base / "authorized")
        script = (
            'mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f /dev/null'
            ' -o Port=2200 -o HostKey="$0/root-host" -o PermitTunnel=yes -o PermitRootLogin=yes'
            ' -o AuthorizedKeysFile="$0/authorized" -o StrictModes=no -o UsePAM=no -o PidFile=none'
        )
        await self.spawn(here, "unshare", "--mount", "sh", "-c", script, str(base))
        await self.lab.platform.sleep(1)
        await self.spawn(
            self.lab.outside, "ssh", "-F", "/dev/null", "-q", "-T", "-N", "-i",
            str(base / "root-key"), "-o", "StrictHostKeyChecking=no", "-o",
            "UserKnownHostsFile=/dev/null", "-o", "Tunnel=ethernet", "-w", "7:7", "-p", "2200",
            f"root@{OUTSIDE}",
        )
        for namespace, address in ((here, "10.98.0.1/24"), (self.lab.outside, "10.98.0.2/24")):

            async def up(namespace: str = namespace, address: str = address) -> bool:
                done = await self.lab.run(
                    namespace, "ip", "address", "replace", address, "dev", "tap7", check=False
                )
                return done.status == 0

            await self.lab.platform.until(up, "ssh -w has its device", 30)
            await self.lab.ip_of(namespace, "link", "set", "tap7", "up")

    async def run(self) -> None:
        """Measure both, by turns."""
        lab, here, there = self.lab, self.lab.platform.namespace, self.lab.outside
        await lab.start({"/boot/rpi-5-b/boot.img": "image"})
        key, mac = await lab.enrolled()
        lab.tunnel(key, "vpn0", mac)

        async def carries() -> bool:
            await lab.run(there, "ip", "address", "replace", f"{lab.net}.60/24", "dev", "vpn0",
                          check=False)
            return await lab.reaches("vpn0")

        await lab.platform.until(carries, "the tunnel is open", 30)
        await self.plain()
        ways = {
            "tcp to the server": ("tcp", there, here, f"{lab.net}.1", "10.98.0.1"),
            "tcp from the server": ("tcp", here, there, f"{lab.net}.60", "10.98.0.2"),
            "frames of 60 bytes to the server": (
                "udp", there, here, f"{lab.net}.1", "10.98.0.1"
            ),
        }
        for name, (kind, source, target, ours, theirs) in ways.items():
            found: dict[str, list[float]] = {"ours": [], "ssh -w": []}
            for _ in range(ROUNDS):
                for what, address in (("ours", ours), ("ssh -w", theirs)):
                    found[what].append(await self.measure(kind, source, target, address))
            unit = "Mbit/s" if kind == "tcp" else "frames/s"
            mine, other = median(found["ours"]), median(found["ssh -w"])
            figure(f"{name}, tunnel of the VPN", mine, unit, LEAST if kind == "tcp" else None)
            figure(f"{name}, ssh -w", other, unit)
            figure(f"{name}: ratio", mine / other, "", TARGET)


async def main(reactor: Any) -> None:
    """Make the lab, measure, take it away."""
    case = Case()
    try:
        await Bench(VpnLab(case, reactor)).run()
    finally:
        await case.clean()


if __name__ == "__main__":
    print(f"from {HOST} to {OUTSIDE}, {ROUNDS} times {SECONDS:g} s each")
    run_bench(main)
