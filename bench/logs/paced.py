"""Sends lines at a steady rate: paced.py SERVER-IP LINES-PER-SECOND SECONDS ADDRESS...

Each line is the time at which it was sent, and filling, 100 bytes in all.
"""

from __future__ import annotations

import socket
import sys
import time

TICK = 0.01  # seconds


def main(server: str, rate: str, period: str, *addresses: str) -> None:
    """Send from all addresses in turn."""
    sockets = [
        socket.create_connection((server, 12347), source_address=(address, 0))
        for address in addresses
    ]
    for connection in sockets:
        connection.sendall(b"0\nbench\nNO_TIMESTAMPS\n")
    ticks = int(int(period) / TICK)
    each = int(int(rate) * TICK / len(sockets))
    start = time.monotonic()
    for tick in range(ticks):
        for connection in sockets:
            line = f"{time.time():.6f} ".ljust(99, "x") + "\n"
            connection.sendall(line.encode() * each)
        time.sleep(max(0.0, start + (tick + 1) * TICK - time.monotonic()))
    for connection in sockets:
        connection.sendall(b"CLOSE\n")
        connection.recv(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
