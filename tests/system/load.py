"""Load for a live server: AMP calls in a pipeline, memory, readiness, database."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from tests.system.live import LivePlatform
from walt.common import ampbox
from walt.server.adapters.postgres.connection import Database

Box = dict[bytes, bytes]


class Refused(Exception):
    """The server answered with an error: its code and its sentence."""


class AmpClient(Protocol):
    """Any number of calls at once on one connection."""

    def __init__(self) -> None:
        self._decoder = ampbox.Decoder()
        self._waiting: dict[bytes, Deferred[Box]] = {}
        self._number = 0
        self.told: list[Box] = []  # what the server said meanwhile

    def call(self, command: str, **values: str) -> Deferred[Box]:
        """Send one command; fires with the answer, or fails with Refused."""
        self._number += 1
        ask = b"%x" % self._number
        answer = self._waiting[ask] = Deferred()
        box = {b"_ask": ask, b"_command": command.encode()}
        box.update((key.encode(), value.encode()) for key, value in values.items())
        assert self.transport is not None
        self.transport.write(ampbox.encode(box))
        return answer

    def dataReceived(self, data: bytes) -> None:
        for box in self._decoder.feed(data):
            if b"_answer" in box:
                self._waiting.pop(box[b"_answer"]).callback(box)
            elif b"_error" in box:
                code, text = box[b"_error_code"], box[b"_error_description"]
                self._waiting.pop(box[b"_error"]).errback(
                    Refused(f"{code.decode()}: {text.decode(errors='replace')}")
                )
            else:
                self.told.append(box)

    def connectionLost(self, reason: Any = None) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.errback(Refused("the server closed the connection"))


_ETHERNET = re.compile(r"hardware ethernet ([0-9a-f:]{17})")


class _Readiness(DatagramProtocol):
    def __init__(self) -> None:
        self.messages: list[tuple[float, str]] = []

    def datagramReceived(self, data: bytes, address: Any) -> None:
        self.messages.append((time.monotonic(), data.decode()))


class Load:
    """What benches and fault tests do to a LivePlatform."""

    def __init__(self, platform: LivePlatform) -> None:
        self.platform = platform
        self.reactor = platform.reactor
        self.database = Database(
            self.reactor, f"host={platform.runtime}/postgres dbname=walt user=root", size=1
        )
        self._hosts: tuple[tuple[int, int], set[str]] = (0, 0), set()

    async def connect(self) -> AmpClient:
        """Return a connection to the RPC socket."""
        client: AmpClient = await UNIXClientEndpoint(
            self.reactor, f"{self.platform.runtime}/rpc.sock"
        ).connect(Factory.forProtocol(AmpClient))
        return client

    @staticmethod
    def close(client: AmpClient) -> None:
        """Close a connection."""
        assert client.transport is not None
        client.transport.loseConnection()

    async def register(self, numbers: range, uci: str = "walt.node.pc-x86-64") -> None:
        """Register one device for each number, all at once."""
        await self.record({mac_of(number): self.address_of(number) for number in numbers}, uci)

    async def record(
        self, addresses: Mapping[str, str], uci: str = "walt.node.pc-x86-64"
    ) -> None:
        """Register devices, whose addresses are given by their MACs, all at once."""
        client = await self.connect()
        calls = [
            client.call("ss.devices.register", vci="", uci=uci, mac=mac, ip=ip)
            for mac, ip in addresses.items()
        ]
        try:
            for call in calls:
                await call
        finally:
            self.close(client)

    def address_of(self, number: int) -> str:
        """Return an address of walt-net for a device number."""
        first = self.platform.net.split(".")
        value = (int(first[2]) << 8) + 256 + number
        return f"{first[0]}.{first[1]}.{value >> 8}.{value & 255}"

    async def recorded(self, kind: str = "node") -> int:
        """Return how many devices of a type the database holds."""
        rows = await self.database.query("SELECT count(*) FROM devices WHERE type = %s", (kind,))
        return int(rows[0][0])

    def hosts(self) -> set[str]:
        """Return the MACs of the host declarations of dhcpd.conf.

        The file is read when it is another one: who waits for it takes no time from the server.
        """
        try:
            with (self.platform.state / "services/dhcpd/dhcpd.conf").open() as file:
                about = os.fstat(file.fileno())
                version = about.st_ino, about.st_mtime_ns
                if version != self._hosts[0]:
                    self._hosts = version, set(_ETHERNET.findall(file.read()))
        except FileNotFoundError:
            return set()
        return self._hosts[1]

    async def started(self, limit: float = 60.0) -> float:
        """Start the server; return the seconds until it said READY=1."""
        return (await self.stages_of_start(limit))[1]

    async def stages_of_start(self, limit: float) -> tuple[float, float]:
        """Start the server; return the seconds until it mounts images, and until READY=1."""
        path = f"{self.platform.base}/notify"
        readiness = _Readiness()
        port = self.reactor.listenUNIXDatagram(path, readiness)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            start = time.monotonic()
            self.platform.spawn()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        try:
            while not any(text == "READY=1" for _, text in readiness.messages):
                server = self.platform.server
                assert server is not None
                if server.status is not None or time.monotonic() - start > limit:
                    raise AssertionError(self.platform.log.read_text(errors="replace")[-3000:])
                await self.platform.sleep(0.01)
            waits = next(at for at, text in readiness.messages if text.startswith("STATUS=prep"))
            ready = next(at for at, text in readiness.messages if text == "READY=1")
            return waits - start, ready - start
        finally:
            await port.stopListening()
            Path(path).unlink(missing_ok=True)

    def memory(self) -> float:
        """Return the proportional set size of the server's Python processes, in MiB."""
        total = 0
        for pid in [self.platform.pid, *descendants(self.platform.pid)]:
            try:
                if "python" not in os.readlink(f"/proc/{pid}/exe"):
                    continue
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(text.split("\nPss:", 1)[1].split()[0])
        return total / 1024


async def add_senders(
    platform: LivePlatform, addresses: Sequence[str], prefix: str = "02:00:00:00:01"
) -> list[str]:
    """Register devices at addresses, which the network of the server gets itself.

    Return how a program is started there. `prefix` begins their MACs.
    """
    inside = ["nsenter", f"--net=/run/netns/{platform.namespace}", "--"]
    for number, address in enumerate(addresses):
        await platform.event(
            "commit", "", "walt.node.pc-x86-64", address, f"{prefix}:{number:02x}", "", "0",
            "unknown",
        )
    batch = "".join(f"address replace {one}/24 dev walt-net\n" for one in addresses)
    await platform.runner.run([*inside, "ip", "-batch", "-"], stdin=batch.encode())
    return inside


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += [int(child), *descendants(int(child))]
    return found


def mac_of(number: int) -> str:
    """Return the MAC of a device number."""
    return f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def wall_times(argv: list[str], env: dict[str, str], times: int = 15) -> float:
    """Return the median wall time of a program, in milliseconds."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
        spent.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent)


def walt_command(*words: str) -> list[str]:
    """Return the command line of a walt command, as its script runs it."""
    code = "import sys; from walt.client.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, *words]


def bare_interpreter() -> float:
    """Return the median wall time of an interpreter that does nothing, in milliseconds."""
    return wall_times([sys.executable, "-c", "pass"], {"PATH": os.environ["PATH"]})


def figure(name: str, value: float, unit: str, target: float | None = None) -> None:
    """Print one measured figure, with its ratio to a target."""
    text = f"{name:58} {value:9.2f} {unit}"
    if target is not None:
        text += f"   target {target:g}, ratio {value / target:.2f}"
    print(text, flush=True)


def run_bench(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine of a bench to its end; its failure is the exit status."""
    from twisted.internet import reactor
    from twisted.internet.task import react

    # What is installed has its bytecode: servers must not compile themselves at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    react(lambda _: Deferred.fromCoroutine(main(reactor)), [])
