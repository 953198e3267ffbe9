"""Machines of the lab: processes of QEMU that end with the test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

# The processor has no help for guests here: each one is emulated, by two threads at most.
ACCEL = ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max")


class _Process(ProcessProtocol):
    def __init__(self) -> None:
        self.told = b""
        self.ended: Deferred[None] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.told += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)


class Machine:
    """One emulated machine; its serial console is the file `serial`."""

    def __init__(self, reactor: Any, name: str, place: Path) -> None:
        self.reactor = reactor
        self.name = name
        self.place = place
        self.serial = place / f"{name}.serial"
        self._process: _Process | None = None
        self._pid = 0

    @property
    def runs(self) -> bool:
        """Whether its power is on."""
        return self._process is not None and not self._process.ended.called

    def power_on(self, argv: Sequence[str]) -> None:
        """Start QEMU."""
        assert not self.runs
        self._process = _Process()
        transport = self.reactor.spawnProcess(
            self._process, "setpriv", ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            os.environ, str(self.place),
        )
        self._pid = transport.pid

    def cut(self) -> Deferred[None]:
        """Cut the power; fires when the machine is off."""
        if self._process is None or self._process.ended.called:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        os.kill(self._pid, SIGKILL)
        return self.off()

    def off(self) -> Deferred[None]:
        """Return what fires when the machine is off."""
        assert self._process is not None
        waiting: Deferred[None] = Deferred()

        def ended(result: None) -> None:
            waiting.callback(None)
            return result

        self._process.ended.addCallback(ended)
        return waiting

    def last_words(self) -> str:
        """Return what QEMU said, and the end of the console."""
        console = self.serial.read_text(errors="replace")[-1500:] if self.serial.exists() else ""
        told = self._process.told.decode(errors="replace") if self._process is not None else ""
        return f"{self.name}: {told}\n{console}"


def cable(end: str, number: int, name: str) -> list[str]:
    """Return the options of one end (`server` or `board`) of a cable: a network device `name`.

    Datagrams of unix sockets: nothing listens in a network, either side may end first.
    """
    other = "board" if end == "server" else "server"
    return [
        "-netdev", f"dgram,id={name},local.type=unix,local.path=cable{number}.{end},"
                   f"remote.type=unix,remote.path=cable{number}.{other}",
    ]


class Board(Machine):
    """A PC without disks that boots over the network, by its BIOS."""

    def __init__(self, reactor: Any, place: Path, number: int = 1) -> None:
        super().__init__(reactor, f"board{number}", place)
        self._number = number
        self.mac = f"52:54:00:aa:01:{number:02x}"

    def boot(self) -> None:
        """Push its button."""
        (self.place / f"cable{self._number}.board").unlink(missing_ok=True)
        self.power_on([
            "qemu-system-x86_64", "-M", "pc", *ACCEL, "-m", "768", "-nodefaults",
            "-display", "none", "-boot", "order=n,reboot-timeout=5000",
            "-serial", f"file:{self.serial.name}",
            *cable("board", self._number, "w"),
            "-device", f"virtio-net-pci,netdev=w,mac={self.mac}",
            "-smbios", "type=1,manufacturer=QEMU",
        ])
