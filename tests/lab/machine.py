"""Machines of the lab: processes of QEMU that end with the test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol

from walt.common.qemu import ARM, PC

# The processor has no help for guests here: each one is emulated, by two threads at most.
ACCEL = ("-accel", "tcg,thread=multi,tb-size=1024")
CPU = ("-cpu", PC.emulated_cpu)
OVMF = Path("/usr/share/ovmf/OVMF.fd")
UBOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")


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
        self._transport: Any = None

    @property
    def runs(self) -> bool:
        """Whether its power is on."""
        return self._process is not None and not self._process.ended.called

    def power_on(self, argv: Sequence[str]) -> None:
        """Start QEMU."""
        assert not self.runs
        self._process = _Process()
        self._transport = self.reactor.spawnProcess(
            self._process, "setpriv", ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            os.environ, str(self.place),
        )

    def cut(self) -> Deferred[None]:
        """Cut the power; fires when the machine is off."""
        if self._process is None or self._process.ended.called:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        os.kill(self._transport.pid, SIGKILL)
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

    def console(self) -> str:
        """Return what the serial console said since it was switched on."""
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def last_words(self) -> str:
        """Return what QEMU said, and the end of the console."""
        console = self.console()[-1500:]
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
        for path in (self.place / f"cable{self._number}.board", self.serial):
            path.unlink(missing_ok=True)
        self.power_on([
            *self.machine(), *ACCEL, "-nodefaults", "-display", "none",
            *cable("board", self._number, "w"),
        ])

    def machine(self) -> list[str]:
        """Return the program and its options: kind of machine, firmware, interface, console."""
        return [
            "qemu-system-x86_64", "-M", "pc", "-boot", "order=n,reboot-timeout=5000",
            "-device", f"virtio-net-pci,netdev=w,mac={self.mac}", *self.pc(),
        ]

    def pc(self) -> list[str]:
        """Return what all PCs have."""
        return [
            *CPU, "-m", "768", "-serial", f"file:{self.serial.name}",
            "-smbios", "type=1,manufacturer=QEMU",
        ]


class UefiBoard(Board):
    """A PC that boots over the network by its UEFI firmware, without an iPXE of its own."""

    def machine(self) -> list[str]:
        """Return how it is emulated."""
        return [
            "qemu-system-x86_64", "-M", "q35", "-bios", str(OVMF),
            "-device", f"virtio-net-pci,netdev=w,mac={self.mac},romfile=", *self.pc(),
        ]


class UBootBoard(Board):
    """A board with an ARM processor and U-Boot, at whose console one can type."""

    def __init__(self, reactor: Any, place: Path, number: int = 1) -> None:
        super().__init__(reactor, place, number)
        self.mac = f"b8:27:eb:00:01:{number:02x}"

    def machine(self) -> list[str]:
        """Return how it is emulated."""
        return [
            ARM.program, "-M", ARM.machine, "-cpu", ARM.emulated_cpu, "-m", "1024",
            "-bios", str(UBOOT), "-device", f"{ARM.nic},netdev=w,mac={self.mac}",
            "-chardev", f"stdio,id=console,signal=off,logfile={self.serial.name}",
            "-serial", "chardev:console",
        ]

    def type(self, text: str) -> None:
        """Type at its console."""
        self._transport.write(text.encode())
