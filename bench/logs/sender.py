"""Sends lines as nodes do: sender.py SERVER-IP MODE LINES ADDRESS...

One thread an address; each sends its share of the lines, then CLOSE, and waits
for the server to close. MODE is NO_TIMESTAMPS or TIMESTAMPS_INSIDE. A line has
100 bytes: sender, number, filling. Prints when the first byte was sent and when the
last connection was closed, in epoch seconds.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

PIECE = 1000


def send(server: str, mode: str, address: str, count: int) -> None:
    """Send the lines of one sender."""
    sender = address.rsplit(".", 1)[1]
    with socket.create_connection((server, 12347), source_address=(address, 0)) as connection:
        connection.sendall(f"0\nbench\n{mode}\n".encode())
        for first in range(0, count, PIECE):
            stamp = f"{time.time():.6f} " if mode != "NO_TIMESTAMPS" else ""
            connection.sendall("".join([
                f"{stamp}{sender} {number:08d} ".ljust(99 + len(stamp), "x") + "\n"
                for number in range(first, min(count, first + PIECE))
            ]).encode())
        connection.sendall(b"CLOSE\n")
        while connection.recv(4096):
            pass


def main(server: str, mode: str, lines: str, *addresses: str) -> None:
    """Run all senders."""
    share = int(lines) // len(addresses)
    threads = [
        threading.Thread(target=send, args=(server, mode, address, share))
        for address in addresses
    ]
    start = time.time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(start, time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
