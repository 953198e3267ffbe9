"""What bare pysnmp takes to walk the same tables: `python -m bench.switches.bare PORT…`."""

from __future__ import annotations

import asyncio
import sys
import time

from pysnmp.hlapi.v3arch.asyncio import (
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    bulk_walk_cmd,
)

from walt.server.adapters.snmp.switches import ROOTS

REPETITIONS = 25


async def walk(engine: SnmpEngine, port: int) -> int:
    """Walk all tables of one agent; return the number of rows."""
    transport = await UdpTransportTarget.create(("127.0.0.1", port), timeout=10, retries=3)
    rows = 0
    for root in ROOTS:
        async for failure, _, _, binds in bulk_walk_cmd(
            engine, CommunityData("lab", mpModel=1), transport, ContextData(), 0, REPETITIONS,
            ObjectType(ObjectIdentity(root)), lexicographicMode=False, lookupMib=False,
        ):
            if failure is not None:
                raise RuntimeError(f"{port}: {failure}")
            rows += len(binds)
    return rows


async def main() -> None:
    """Print seconds and rows."""
    engine = SnmpEngine()
    start = time.monotonic()
    rows = await asyncio.gather(*(walk(engine, int(port)) for port in sys.argv[1:]))
    print(time.monotonic() - start, sum(rows))


if __name__ == "__main__":
    asyncio.run(main())
