"""Run with `python -m bench.rpc`, as root: calls of the live server and of a bare AMP server."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol

from tests.system.live import ROOT, LivePlatform
from tests.system.load import AmpClient, Load, figure, run_bench

COUNT = 2000
Call = Callable[[], Deferred[Any]]


class _Echo(ProcessProtocol):
    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        if not self.ready.called:
            self.ready.callback(None)


async def sequential(call: Call) -> float:
    """Return the median time of a call, in µs, one after the other."""
    spent = []
    for _ in range(COUNT):
        start = time.perf_counter()
        await call()
        spent.append((time.perf_counter() - start) * 1e6)
    return statistics.median(spent)


async def pipelined(call: Call) -> float:
    """Return how many calls a second are answered, sent all at once."""
    start = time.perf_counter()
    for answer in [call() for _ in range(COUNT)]:
        await answer
    return COUNT / (time.perf_counter() - start)


async def main(reactor: Any) -> None:
    """Print the figures."""
    platform = LivePlatform(reactor)
    load = Load(platform)
    path = f"{platform.base}/echo"
    bare = _Echo()
    process = reactor.spawnProcess(
        bare, sys.executable, [sys.executable, "-m", "bench.rpc.echo", path],
        {"PYTHONPATH": str(ROOT)},
    )
    try:
        await platform.start()
        await bare.ready
        client = await load.connect()
        echo: AmpClient = await UNIXClientEndpoint(reactor, path).connect(
            Factory.forProtocol(AmpClient)
        )

        def ours() -> Deferred[Any]:
            # A known device: no change, so that the call itself is measured.
            return client.call(
                "ss.devices.register", vci="", uci="", mac="02:00:00:00:00:01",
                ip="192.168.181.9",
            )

        def light() -> Deferred[Any]:
            return client.call(
                "hello", program="bench", version="11.0", protocol="1", username="alice"
            )

        def theirs() -> Deferred[Any]:
            return echo.call("echo", one="02:00:00:00:00:01", two="192.168.181.9")

        await ours()
        for name, measure, unit in (
            ("sequential call, median", sequential, "µs"), ("pipelined calls", pipelined, "/s"),
        ):
            reference = await measure(theirs)
            figure(f"{name}, bare AMP", reference, unit)
            for what, call in (("hello", light), ("registration of a known device", ours)):
                value = await measure(call)
                figure(f"{name}, {what}", value, unit)
                ratio = reference / value if unit == "µs" else value / reference
                figure("  rate against bare AMP (75 %)", 100 * ratio, "%")
        for connection in (client, echo):
            load.close(connection)
    finally:
        process.signalProcess("TERM")
        await platform.close()
    assert not Path(platform.base).exists()


if __name__ == "__main__":
    run_bench(main)
