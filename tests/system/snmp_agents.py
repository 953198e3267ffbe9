"""Simulated switches: a real snmpsim process that serves records on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tests.system.netns import short_dir
from walt.server.adapters.network.namespace import inside

NAMELESS = "self"  # how snmpsim calls the context without a name
_READY = "walt-ready"
# GET of 1.3.6.1.2.1.1.2.0 with community `walt-ready`, by SNMPv2c (RFC 3416, BER).
_PDU = bytes.fromhex("a019020101020100020100300e300c06082b060102010102000500")
_BODY = bytes.fromhex("020101") + b"\x04\x0a" + _READY.encode() + _PDU
_QUESTION = b"\x30" + bytes([len(_BODY)]) + _BODY


class Agents:
    """One process, in a network namespace or here; a community is the name of its record.

    Users of version 3, whom `options` make, get the record named NAMELESS.
    """

    def __init__(
        self, case: Any, records: Mapping[str, str | Path], options: Sequence[str] = (), *,
        space: Path | None = None, addresses: Sequence[str] = ("127.0.0.1",),
        port: int | None = None,
    ) -> None:
        self._address = addresses[0]
        directory = short_dir(case)
        data, cache = directory / "data", directory / "cache"
        data.mkdir()
        for name, record in {**records, _READY: "1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.1"}.items():
            place = data / f"{name}.snmprec"
            if isinstance(record, Path):
                place.write_bytes(record.read_bytes())
            else:
                place.write_text("\n".join(_sorted(record)) + "\n", encoding="latin-1")
        self.port = free_port() if port is None else port
        argv = [
            str(Path(sys.executable).parent / "snmpsim-command-responder"),
            f"--cache-dir={cache}", "--log-level=error",
            f"--logging-method=file:{directory}/log", *options, f"--data-dir={data}",
            *(f"--agent-udpv4-endpoint={one}:{self.port}" for one in addresses),
        ]
        # A child is where its parent was.
        place: AbstractContextManager[None] = nullcontext() if space is None else inside(space)
        with place, (directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                argv, env={**os.environ, "SNMPSIM_ALLOW_ROOT": "true"},
                stdout=output, stderr=subprocess.STDOUT,
            )
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._said = directory / "output"
        case.addCleanup(self.stop)
        self._wait(asking)

    def _wait(self, asking: socket.socket) -> None:
        end = time.monotonic() + 120
        with asking:
            asking.settimeout(0.3)
            asking.connect((self._address, self.port))
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    asking.send(_QUESTION)
                    asking.recv(1500)
                    return
                except OSError:
                    time.sleep(0.1)
        raise RuntimeError(f"snmpsim did not start: {self._said.read_text()[-2000:]}")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(timeout=10)


def free_port() -> int:
    """Return a UDP port of loopback that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _sorted(record: str) -> list[str]:
    """Return the lines of a record as snmpsim wants them."""
    lines = [line.strip() for line in record.splitlines() if line.strip()]
    return sorted(lines, key=lambda line: tuple(map(int, line.partition("|")[0].split("."))))
