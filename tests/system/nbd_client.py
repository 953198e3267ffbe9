"""An NBD client of the subset that nodes use (spec node-protocols §4.12), run as a program.

Arguments: address, port, directory of the areas. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time

GO, INFO_EXPORT, INFO_BLOCK_SIZE = 7, 0, 3
READ, WRITE, DISCONNECT = 0, 1, 2


class Client:
    """One connection; `size` is None when the export was refused."""

    def __init__(self, address: str, port: int, name: bytes) -> None:
        self._socket = socket.create_connection((address, port), timeout=10)
        self._file = self._socket.makefile("rwb")
        magic, self.flags = struct.unpack(">16sH", self._take(18))
        assert magic == b"NBDMAGICIHAVEOPT"
        self.size: int | None = None
        self.blocks: list[int] = []
        asked = struct.pack(f">I{len(name)}sHH", len(name), name, 1, INFO_BLOCK_SIZE)
        self._send(struct.pack(">I8sII", 3, b"IHAVEOPT", GO, len(asked)) + asked)
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._take(20))
            data = self._take(length)
            if kind != 3:
                break
            (info,) = struct.unpack(">H", data[:2])
            if info == INFO_EXPORT:
                (self.size,) = struct.unpack(">Q", data[2:10])
            elif info == INFO_BLOCK_SIZE:
                self.blocks = list(struct.unpack(">III", data[2:14]))
        self.accepted = kind == 1

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ConnectionError("closed")
        return data

    def _send(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def request(self, kind: int, offset: int, length: int, data: bytes = b"") -> bytes | int:
        """Return what was read, or the error number."""
        cookie = os.urandom(8)
        self._send(
            struct.pack(">IHH8sQI", 0x25609513, 0, kind, cookie, offset, length) + data
        )
        magic, error, back = struct.unpack(">II8s", self._take(16))
        assert (magic, back) == (0x67446698, cookie)
        return int(error) if error or kind != READ else self._take(length)

    def close(self, polite: bool) -> None:
        """Say goodbye, or just leave."""
        if polite:
            self._send(struct.pack(">IHH8sQI", 0x25609513, 0, DISCONNECT, b"bye-bye!", 0, 0))
        self._file.close()
        self._socket.close()


def blocks_used(directory: str) -> int:
    """Return the 512-byte blocks of the deleted files below a directory that are held open."""
    total = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue
        for link in links:
            path = f"/proc/{process}/fd/{link}"
            try:
                if os.readlink(path).startswith(f"{directory}/"):
                    total += os.stat(path).st_blocks
            except OSError:
                continue
    return total


def main() -> None:
    """Two areas at once, refusals, the area of a client that leaves."""
    address, port, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    large, small = (Client(address, port, name) for name in (b"swap-16G", b"swap-1G"))
    told = {
        "flags": large.flags, "sizes": [large.size, small.size], "blocks": large.blocks,
        "zeros": large.request(READ, (16 << 30) - 4096, 4096) == bytes(4096),
        "written": large.request(WRITE, 8192, 1 << 20, b"x" * (1 << 20)),
        "read": large.request(READ, 8192, 1 << 20) == b"x" * (1 << 20),
        "other": small.request(READ, 8192, 4096) == bytes(4096),
        "beyond": small.request(READ, 1 << 30, 4096),
        "files": os.listdir(directory),
        "used": 2048 <= blocks_used(directory) < 4096,
    }
    for name in (b"swap-0G", b"swap-99999G", b"../../etc/passwd", b"", b"swap-1G\n", b"\xff"):
        try:
            accepted = Client(address, port, name).accepted
        except ConnectionError:
            accepted = False
        told.setdefault("accepted", []).append(accepted)
    with socket.create_connection((address, port), timeout=10) as rude:
        rude.sendall(os.urandom(4096))
        rude.settimeout(10)
        try:
            while rude.recv(4096):
                pass
        except ConnectionError:
            pass
    told["still"] = large.request(READ, 8192, 4096) == b"x" * 4096
    large.close(polite=False)
    small.close(polite=True)
    end = time.monotonic() + 10
    while blocks_used(directory) and time.monotonic() < end:
        time.sleep(0.05)
    told["left"] = blocks_used(directory)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
