"""A node that sends little: probe.py lines|receipts SERVER-IP ADDRESS SECONDS.

`lines` sends the time, one line each 100 ms, on one connection of the stream `probe`.
`receipts` opens a connection each 20 ms, sends one line and CLOSE, and waits for the server
to close: the line is stored. Prints the durations in ms, one a line.
"""

from __future__ import annotations

import socket
import sys
import time

HEAD = b"0\nprobe\nNO_TIMESTAMPS\n"


def _connected(server: str, address: str) -> socket.socket:
    return socket.create_connection((server, 12347), source_address=(address, 0))


def lines(server: str, address: str, seconds: float) -> None:
    """Send the time now and then."""
    with _connected(server, address) as connection:
        connection.sendall(HEAD)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(f"{time.time():.6f}\n".encode())
            time.sleep(0.1)
        connection.sendall(b"CLOSE\n")
        connection.recv(1)


def receipts(server: str, address: str, seconds: float) -> None:
    """Measure how long a line takes to be stored."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        with _connected(server, address) as connection:
            connection.sendall(HEAD + b"line\nCLOSE\n")
            connection.recv(1)
        spent = time.monotonic() - start
        print(spent * 1000)
        time.sleep(max(0.0, 0.02 - spent))


if __name__ == "__main__":
    {"lines": lines, "receipts": receipts}[sys.argv[1]](*sys.argv[2:4], float(sys.argv[4]))
