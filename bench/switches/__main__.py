"""Run with `python -m bench.switches`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tests.contracts.test_switches import SYSTEM
from tests.system.load import figure, run_bench
from tests.system.snmp_agents import Agents, free_port
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.switches.ports import SnmpTarget
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.workers import WorkerPool

SWITCHES, PORTS = 50, 24
ROUNDS = 4  # so that the worker has seen 200 switches
MEMORY = 60  # MiB


class Case:
    """What agents of tests are cleaned up by."""

    def __init__(self) -> None:
        self.cleanups: list[tuple[Any, tuple[Any, ...]]] = []

    def addCleanup(self, function: Any, *arguments: Any) -> None:
        """Remember what to do at the end."""
        self.cleanups.append((function, arguments))


def record(number: int) -> str:
    """Return the tables of a switch with neighbours, power, and an address at each port."""
    rows = [SYSTEM, f"1.0.8802.1.1.2.1.3.3.0|4|switch-{number}"]
    for port in range(1, PORTS + 1):
        mac = f"02{number:04x}00{port:04x}"
        decimal = ".".join(str(one) for one in bytes.fromhex(mac))
        rows += [
            f"1.3.6.1.2.1.2.2.1.2.{port}|4|g{port}", f"1.3.6.1.2.1.2.2.1.3.{port}|2|6",
            f"1.3.6.1.2.1.2.2.1.6.{port}|4x|{mac}", f"1.3.6.1.2.1.31.1.1.1.1.{port}|4|g{port}",
            f"1.3.6.1.2.1.17.1.4.1.2.{port}|2|{port}",
            f"1.0.8802.1.1.2.1.3.7.1.2.{port}|2|5", f"1.0.8802.1.1.2.1.3.7.1.3.{port}|4|g{port}",
            f"1.3.6.1.2.1.105.1.1.1.3.1.{port}|2|1", f"1.3.6.1.2.1.105.1.1.1.6.1.{port}|2|3",
            f"1.3.6.1.2.1.17.7.1.2.2.1.2.1.{decimal}|2|{port}",
            f"1.3.6.1.2.1.17.7.1.2.2.1.3.1.{decimal}|2|3",
        ]
    return "\n".join(rows)


def memory(workers: WorkerPool) -> float:
    """Return the resident memory of the worker, in MiB."""
    (worker,) = workers._workers
    transport: Any = worker.transport
    text = Path(f"/proc/{transport.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


async def main(reactor: Any) -> None:
    """Print the figures."""
    case = Case()
    names = [f"sw{number}" for number in range(SWITCHES)]
    workers = WorkerPool(reactor, Launcher(), size=1, network="host", unprivileged=["snmp"])
    switches = SnmpSwitches(reactor, workers, patience=10.0, retries=3)
    try:
        agents = Agents(case, {name: record(number) for number, name in enumerate(names)})
        bare = await ProcessRunner(reactor).run(
            [sys.executable, "-m", "bench.switches.bare", str(agents.port), *names], timeout=300
        )
        alone, rows = (float(one) for one in bare.stdout.split())
        targets = [SnmpTarget("127.0.0.1", 2, name, agents.port) for name in names]
        await switches.read(targets[:1])  # the worker is there
        times = []
        for _ in range(ROUNDS):
            start = time.monotonic()
            found = await switches.read(targets)
            times.append(time.monotonic() - start)
            if any(one.failure is not None or len(one.ports) != PORTS for one in found):
                raise RuntimeError("a switch was not read whole")
        best = min(times)
        figure(f"{SWITCHES} switches, {rows:.0f} rows: bare pysnmp", alone, "s")
        figure("  explored", best, "s")
        figure("  ratio", best / alone, "", 1.5)
        figure("memory of the worker after 200 switches", memory(workers), "MiB", MEMORY)
        quick = SnmpSwitches(reactor, workers, patience=3.0, retries=0)
        dead = SnmpTarget("127.0.0.1", 2, "sw0", free_port())
        done: dict[int, float] = {}
        start = time.monotonic()
        await quick.read(
            [dead, targets[0]], (), lambda place: done.update({place: time.monotonic() - start})
        )
        figure("a switch beside a dead one", done[1], "s", done[0])
    finally:
        workers.stop()
        for function, arguments in reversed(case.cleanups):
            function(*arguments)


if __name__ == "__main__":
    run_bench(main)
