"""One QEMU machine, with its taps and its disks, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from walt.common.errors import CommandFailed
from walt.common.machines import BOOT_NETWORK, MachineConfig
from walt.common.qemu import (
    architecture,
    command,
    nic_options,
    on_tap,
    secondary_mac,
    tap_name,
)
from walt.common.virtual_disks import prepare
from walt.virtual import links
from walt.virtual.processes import GRACE, die_with_parent, end
from walt.virtual.script import Boot
from walt.virtual.timing import uninterrupted

# Sockets of a Raspberry Pi 3B+, behind its two hubs.
USB_PORTS = ("1.1.2", "1.1.3", "1.2", "1.3")
MAX_WORDS = 2000  # bytes of QEMU's last words


@dataclass(frozen=True)
class Place:
    """Where a machine runs: `accel` is kvm or tcg; directories of its disks and MACs.

    `usb` lends it the USB sockets of this machine; `piped` gives it a pipe as console
    input in place of our standard input.
    """

    accel: str
    disks: Path
    networks: Path
    usb: bool = False
    piped: bool = False


def boot_options(model: str, boot: Boot) -> list[str]:
    """Return QEMU's options for a kernel; its arguments are one word whatever they hold."""
    arguments = f"{boot.arguments} {architecture(model).arguments}".strip()
    initrd = ["-initrd", str(boot.initrds[0])] if boot.initrds else []
    return ["-kernel", str(boot.kernel), *initrd, "-append", arguments]


def usb_options() -> list[str]:
    """Return QEMU's options that lend the USB sockets of a Raspberry Pi 3B+."""
    options = ["-device", "nec-usb-xhci,id=usb"]
    for port in USB_PORTS:
        options += ["-device", f"usb-host,bus=usb.0,hostbus=1,hostport={port}"]
    return options


class Machine:
    """Runs one machine; `say` gets what is worth telling."""

    def __init__(self, config: MachineConfig, place: Place, say: Callable[[str], None]) -> None:
        self._config = config
        self._place = place
        self._say = say
        self._child: Process | None = None

    async def run(self, boot: Boot) -> None:
        """Start the machine and wait for its end, then remove what it needed.

        Raises CommandFailed when it cannot start or fails, Conflict.
        """
        taps = [tap_name(self._config.mac, network.network) for network in self._config.networks]
        terminal = _terminal()
        try:
            argv = await self._command(boot)
            await self._run(argv)
        finally:
            if terminal is not None:  # a killed QEMU leaves it in raw mode
                termios.tcsetattr(sys.stdin, termios.TCSANOW, terminal)
            await uninterrupted(links.remove(taps))

    async def _command(self, boot: Boot) -> list[str]:
        nics: list[str] = []
        config, kind = self._config, architecture(self._config.model)
        for network in config.networks:
            tap = tap_name(config.mac, network.network)
            await links.add_tap(tap, network.network)
            if network.limits and not await links.shape(tap, network.limits):
                self._say(f"no limits on {network.network}: this kernel has no netem or tbf")
            on_walt_net = network.network == BOOT_NETWORK
            own = (
                config.mac if on_walt_net
                else secondary_mac(self._place.networks, network.network)
            )
            nics += nic_options(on_tap(tap), network.network, own, kind.nic)
        disks: list[str] = []
        if config.disks or self._place.disks.exists():
            disks = prepare(self._place.disks, [disk._asdict() for disk in config.disks])
        options = [*boot_options(config.model, boot), *(usb_options() if self._place.usb else [])]
        serial = "stdio" if self._place.piped else "mon:stdio"  # ctrl-c is the guest's
        return command(config, self._place.accel, options, nics, disks, serial)

    async def _run(self, argv: list[str]) -> None:
        try:
            child = await asyncio.create_subprocess_exec(
                *argv, stdin=PIPE if self._place.piped else None, stderr=PIPE,
                start_new_session=True, preexec_fn=die_with_parent,
            )
        except OSError as error:
            raise CommandFailed(f"{argv[0]}: {error.strerror}") from None
        self._child = child
        assert child.stderr is not None
        words = b""
        try:
            while piece := await child.stderr.read(MAX_WORDS):
                words = (words + piece)[-MAX_WORDS:]
            status = await child.wait()
        finally:
            self._child = None
            await uninterrupted(end(child))
        if status > 0:
            text = words.decode(errors="replace").strip()
            raise CommandFailed(f"the machine failed (status {status}): {text}")

    def kill(self) -> None:
        """End the machine, if it runs."""
        child = self._child
        if child is not None and child.returncode is None:
            child.terminate()
            asyncio.get_running_loop().call_later(GRACE, _kill, child)

    def type(self, data: bytes) -> None:
        """Give bytes to its console; they are lost while it does not run."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.write(data)


def _kill(child: Process) -> None:
    if child.returncode is None:
        child.kill()


def _terminal() -> list[int | list[bytes | int]] | None:
    return termios.tcgetattr(sys.stdin) if os.isatty(0) else None
