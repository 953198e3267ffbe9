"""Run with `python -m bench.switches`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.system.load import figure, run_bench
from tests.system.snmp_agents import free_port
from walt.server.adapters.snmp.switches import SnmpSwitches
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.workers import WorkerPool

SWITCHES, PORTS = 50, 24
ROUNDS = 4  # so that the worker has seen 200 switches
MEMORY = 60  # MiB


def memory(workers: WorkerPool) -> float:
    """Return the resident memory of the worker, in MiB."""
    (worker,) = workers._workers
    transport: Any = worker.transport
    text = Path(f"/proc/{transport.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


async def main(reactor: Any) -> None:
    """Print the figures."""
    workers = WorkerPool(reactor, Launcher(), size=1, network="host", unprivileged=["snmp"])
    switches = SnmpSwitches(workers, patience=10.0, retries=3)
    agents = subprocess.Popen(
        [sys.executable, "-m", "bench.switches.agents", str(SWITCHES), str(PORTS)],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        assert agents.stdout is not None
        ports = [int(agents.stdout.readline()) for _ in range(SWITCHES)]
        bare = await ProcessRunner(reactor).run(
            [sys.executable, "-m", "bench.switches.bare", *map(str, ports)], timeout=200
        )
        alone, rows = (float(word) for word in bare.stdout.split())
        targets = [SnmpTarget("127.0.0.1", 2, "lab", port) for port in ports]
        await switches.read(targets[:1])  # the worker is there
        times = []
        for _ in range(ROUNDS):
            start = time.monotonic()
            found = await switches.read(targets)
            times.append(time.monotonic() - start)
            if any(survey.failure is not None or len(survey.ports) != PORTS for survey in found):
                raise RuntimeError("a switch was not read whole")
        best = min(times)
        figure(f"{SWITCHES} switches, {rows:.0f} rows: bare pysnmp", alone, "s")
        figure("  explored", best, "s")
        figure("  ratio", best / alone, "", 1.5)
        figure("memory of the worker after 200 switches", memory(workers), "MiB", MEMORY)
        quick = SnmpSwitches(workers, patience=3.0, retries=0)
        dead = SnmpTarget("127.0.0.1", 2, "lab", free_port())
        done: dict[int, float] = {}
        start = time.monotonic()
        await quick.read(
            [dead, targets[0]], (),
            lambda place, told: done.update({place: time.monotonic() - start}),
        )
        figure("a switch beside a dead one", done[1], "s", done[0])
    finally:
        workers.stop()
        agents.kill()
        agents.wait(timeout=10)


if __name__ == "__main__":
    run_bench(main)
