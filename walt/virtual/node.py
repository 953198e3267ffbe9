"""The life of a virtual node: delay, network, boot emulation, machine, and again."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walt.common.errors import Invalid, WaltError, in_words
from walt.common.machines import RANDOM_DELAY, MachineConfig, machine_config, parse_boot_delay
from walt.common.qemu import architecture
from walt.virtual import api, links
from walt.virtual.accel import choose
from walt.virtual.control import Command, Conf, Input, KillVm
from walt.virtual.dhcp import leased
from walt.virtual.fetch import ServerFiles, joined
from walt.virtual.machine import Machine, Place
from walt.virtual.options import Options, check_address
from walt.virtual.processes import run
from walt.virtual.script import Boot, Interpreter, known
from walt.virtual.sockets import Server

AFTER_FAILURE = 2.0  # seconds
COMMAND_PATIENCE = 600.0  # seconds that the command after a reboot gets


@dataclass(frozen=True)
class Addresses:
    """What the node is called and where; `server` is how to reach the server."""

    ip: str
    netmask: str
    gateway: str
    hostname: str
    server: Server


class VirtualNode:
    """One node; `say` gets its messages."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._conf: dict[str, Any] = dict(options.conf)
        self._of_server: Mapping[str, Any] = {}
        self._machine: Machine | None = None
        self._accel = ""

    async def live(self) -> None:
        """Start the machine again and again, until cancelled."""
        while True:
            try:
                await self._turn()
                await self._after_reboot()
            except (WaltError, OSError) as error:
                self._say(in_words(error))
                await asyncio.sleep(AFTER_FAILURE)

    def kill_machine(self) -> None:
        """End the machine, if it runs; the next one starts."""
        if self._machine is not None:
            self._machine.kill()

    def obey(self, command: Command) -> None:
        """Do what a managing program asks; EXIT is its caller's. Raises Invalid."""
        if isinstance(command, Input):
            if self._machine is not None:
                self._machine.type(command.data)
        elif isinstance(command, KillVm):
            self.kill_machine()
        elif isinstance(command, Conf):
            wanted = {**self._conf, command.setting: command.value}
            check_address("gateway", wanted.get("gateway", ""))
            self._machine_config("checked", wanted)
            self._conf = wanted

    def _settings(self) -> dict[str, Any]:
        """Return what was given here, and else what the server says."""
        return {**self._of_server, **self._conf}

    def _machine_config(self, name: str, conf: Mapping[str, Any]) -> MachineConfig:
        return machine_config(name, self._options.mac, self._options.model, conf)

    async def _turn(self) -> None:
        await self._delay()
        with tempfile.TemporaryDirectory(prefix="walt-virtual-node-") as name:
            directory = Path(name)
            await links.wait_for_bridge(self._say)
            async with self._network(directory) as addresses:
                config = self._machine_config(addresses.hostname, self._settings())
                boot = await self._boot_emulation(addresses, directory)
            if not self._accel:
                kind = architecture(config.model)
                self._accel = await choose(
                    self._options.accel, kind, directory, boot.kernel
                )
                self._say(f"the machine uses accelerator {self._accel}")
            self._say(f"starting node {config.name} ({addresses.ip})")
            self._machine = Machine(config, self._place(), self._say)
            try:
                await self._machine.run(boot)
            finally:
                self._machine = None
            self._say("the machine ended")

    def _place(self) -> Place:
        options = self._options
        return Place(
            self._accel, options.disks_path, options.networks_path, options.usb, options.managed
        )

    async def _delay(self) -> None:
        delay = parse_boot_delay(self._settings().get("boot.delay", "random"))
        if delay is None:
            await asyncio.sleep(random.SystemRandom().uniform(*RANDOM_DELAY))
        else:
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def _network(self, directory: Path) -> AsyncIterator[Addresses]:
        """Give the addresses of the node, and a way to the server for the time of a block."""
        options = self._options
        if options.udhcpc:
            async with leased(options.mac, options.model, directory) as (lease, namespace):
                yield await self._registered(Addresses(
                    options.ip or lease.ip, options.netmask or lease.netmask,
                    options.gateway or lease.router, options.hostname or lease.hostname,
                    Server(options.server_ip or lease.server, namespace),
                ))
        else:
            yield await self._registered(Addresses(
                options.ip, options.netmask, options.gateway, options.hostname,
                Server(options.server_ip),
            ))

    async def _registered(self, found: Addresses) -> Addresses:
        """Return the addresses with what the server adds to them. Raises Invalid."""
        options = self._options
        name = found.hostname or f"vm-{options.mac.replace(':', '')}"
        if options.managed:
            gateway = self._conf.get("gateway", found.gateway)
            return Addresses(found.ip, found.netmask, gateway, name, found.server)
        info = await api.register(
            found.server, options.model, found.ip, options.mac, found.hostname
        )
        self._of_server = self._valid(info.conf)
        netmask = found.netmask or info.netmask
        if not netmask:
            raise Invalid("the server does not know this node yet: no default image for it?")
        return Addresses(
            found.ip, netmask, found.gateway or info.gateway, options.hostname or info.name or name,
            found.server,
        )

    def _valid(self, conf: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of the server, none when they make no machine."""
        try:
            self._machine_config("checked", conf)
        except WaltError as error:
            self._say(f"settings of the server ignored: {error}")
            return {}
        return conf

    async def _boot_emulation(self, addresses: Addresses, directory: Path) -> Boot:
        options = self._options
        files = ServerFiles(addresses.server, options.mac, addresses.ip, directory)
        boot = await Interpreter(
            files,
            known(
                model=options.model, mac=options.mac, ip=addresses.ip, netmask=addresses.netmask,
                gateway=addresses.gateway, hostname=addresses.hostname,
                server=addresses.server.address,
            ),
            self._say, asyncio.sleep,
        ).run()
        return Boot(boot.kernel, boot.arguments, joined(boot.initrds))

    async def _after_reboot(self) -> None:
        if self._options.on_vm_reboot:
            self._say(f"running {self._options.on_vm_reboot[0]}")
            await run(self._options.on_vm_reboot, limit=COMMAND_PATIENCE)
