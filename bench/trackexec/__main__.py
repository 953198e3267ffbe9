"""Run with `python -m bench.trackexec`, as root: calls of a server with and without a record."""

from __future__ import annotations

import statistics
import time
from typing import Any

from tests.system.live import LivePlatform
from tests.system.load import AmpClient, Load, figure, run_bench
from walt import __version__

COUNT = 1000
ROUNDS = 5


async def rate(client: AmpClient) -> float:
    """Return calls of `cs.nodes.show` that are answered in a second, sent all at once."""
    start = time.perf_counter()
    for answer in [client.call("cs.nodes.show", all="True") for _ in range(COUNT)]:
        await answer
    return COUNT / (time.perf_counter() - start)


async def main(reactor: Any) -> None:
    """Print the figures; both servers run, and take turns."""
    platforms = [LivePlatform(reactor, net=f"192.168.{181 + number}") for number in range(2)]
    for number, platform in enumerate(platforms):
        platform.namespace += f"-{number}"
        platform.write_config()
    record = platforms[1].base / "l" / "trackexec"
    record.mkdir()
    try:
        loads = []
        for platform in platforms:
            await platform.start()
            loads.append(Load(platform))
        clients = [await load.connect() for load in loads]
        for client in clients:
            await client.call(
                "hello", program="bench", version=__version__, protocol="1", username="alice"
            )
        rates: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for number, client in enumerate(clients):
                rates[number].append(await rate(client))
        plain, recorded = map(statistics.median, rates)
        figure("cs.nodes.show", plain, "calls/s")
        figure("cs.nodes.show, recorded", recorded, "calls/s")
        figure("  the ratio", recorded / plain, "", 0.4)
        size = sum(path.stat().st_size for path in record.rglob("*") if path.is_file())
        figure("the record", size / 1e6, "MB")
        for load, client in zip(loads, clients, strict=True):
            load.close(client)
    finally:
        for platform in platforms:
            await platform.close()


if __name__ == "__main__":
    run_bench(main)
