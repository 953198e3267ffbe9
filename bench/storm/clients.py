"""Clients that fetch a file again and again: python -m bench.storm.clients URL ADDRESS…

One client for each of its own addresses.
They throw away what they receive within the kernel (MSG_TRUNC, tcp(7)), so that the servers are
measured and not the clients. Prints the bytes per second of all of them.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from urllib.parse import urlsplit

SECONDS = 6.0
PIECE = 1 << 20


class Client(threading.Thread):
    """One connection after the other, for SECONDS."""

    def __init__(self, url: str, address: str) -> None:
        super().__init__()
        self._url, self._address = urlsplit(url), address
        self._buffer = bytearray(PIECE)
        self.size = 0
        self.failure = ""

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                self._fetch(end)
        except OSError as error:
            self.failure = str(error)

    def _fetch(self, end: float) -> None:
        host, path = self._url.hostname or "", self._url.path
        server = host, self._url.port or 80
        with socket.create_connection(server, 10, (self._address, 0)) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            if b" 200 " not in connection.recv(4096):
                raise OSError(f"no 200 for {path}")
            while time.monotonic() < end:
                size = connection.recv_into(self._buffer, PIECE, socket.MSG_TRUNC)
                if not size:
                    return
                self.size += size


def main() -> None:
    """Run the clients."""
    clients = [Client(sys.argv[1], address) for address in sys.argv[2:]]
    start = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    failures = {client.failure for client in clients} - {""}
    if failures:
        raise SystemExit("; ".join(failures))
    print(sum(client.size for client in clients) / (time.monotonic() - start))


if __name__ == "__main__":
    main()
