"""The first floor when the server starts: networks, the database, the devices, images."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import create_database, migrate
from walt.server.adapters.postgres.probe import ask_encryption
from walt.server.adapters.postgres.restore import load_pending
from walt.server.assembly.base import Base, server_device
from walt.server.assembly.undoing import Undos
from walt.server.runtime.child import ChildService, end_left_over
from walt.server.runtime.coroutines import together
from walt.server.runtime.watching import Watch

if TYPE_CHECKING:
    from walt.server.assembly.images import Images

_log = Logger()


class Ground:
    """Starts what everything else stands on; each coroutine may run beside the others.

    `images` is there when they are open, `missing` names those that the database knows alone.
    """

    def __init__(self, base: Base, undos: Undos) -> None:
        self._base = base
        self._undos = undos
        self._loaded: Deferred[None] = Deferred()  # fires when the devices are known
        self.images: Images | None = None
        self.missing: list[str] = []

    async def networks_and_devices(self) -> None:
        """Set the networks up; start the database, and read from it what devices there are."""
        if self._base.cluster is not None:
            await together(self._devices(), self._networks())
        else:  # a network of ours may lead to the database
            await self._networks()
            await self._devices()
        await self._fix_server_entry()

    async def keys(self) -> None:
        """Make or read the keys of the platform."""
        await self._base.keys.prepare()
        self._base.keys.write_known_hosts()

    async def open_images(self, code: Deferred[None]) -> None:
        """Mount images, remove what a killed server left of them, and see which there are.

        `code` fires when their modules are read.
        """
        volumes = self._base.volumes
        self._undos.plan("file systems for nodes", volumes.close, for_good=True)
        await volumes.open()
        await code
        from walt.server.assembly.images import build_images

        images = self.images = build_images(self._base)
        await images.sweep()
        self.missing = await images.service.refresh(
            forget=not images.former, catalog=self._loaded
        )

    async def _networks(self) -> None:
        base = self._base
        for plan in base.links.no_longer_wanted(base.config.networks):
            await base.links.down(plan)
        for plan in base.link_plans:
            plan.check()
            # Planned first: one that is cut off is undone, too.
            self._undos.plan(
                f"network {plan.name}", partial(base.links.down, plan), for_good=True
            )
            await base.links.up(plan)
        self._undos.plan("taps", base.taps.delete_left_overs)
        await base.taps.delete_left_overs()

    async def _devices(self) -> None:
        await self._start_database()
        await together(self._base.registry.load(), self._logs())
        self._loaded.callback(None)

    async def _start_database(self) -> None:
        base, config, plan = self._base, self._base.config, self._undos.plan
        if base.cluster is not None:
            pid_file = config.paths.service_runtime("postgres.pid")
            end_left_over(pid_file, signal.SIGQUIT)
            await base.cluster.prepare()
            child = ChildService(
                base.reactor, base.launcher, base.cluster.spec(), pid_file=pid_file
            )
            Watch(
                base.reactor, child, partial(ask_encryption, base.reactor, base.cluster.socket)
            )
            child.startService()
            base.health.database = child
            plan("postgres", child.stopService)
            maintenance = Database(base.reactor, base.cluster.maintenance_dsn)
            await create_database(maintenance)
        plan("database connections", base.database.close)
        await load_pending(base.runner, base.database, config.paths.state)
        # What was loaded from a file is kept by it.
        await migrate(base.database, keep_former=base.cluster is None)

    async def _logs(self) -> None:
        base, plan = self._base, self._undos.plan
        await base.log_store.prepare()
        await base.logs.start()
        await base.log_upkeep.start()
        plan("upkeep of the logs", base.log_upkeep.stop)
        if base.log_archive is not None:
            target = base.log_archive.files.target
            if target.in_the_clear:
                _log.warn(
                    "logs.archive.endpoint of server.conf is http: whoever is on the way to"
                    " {target} reads and changes archived log lines", target=target,
                )
            plan("archive of the logs", base.log_archive.stop)
            base.log_archive.archiving.start()

    async def _fix_server_entry(self) -> None:
        links, registry = await self._base.links.links(), self._base.registry
        mac = str(links["walt-net"]["address"])
        wanted = server_device(self._base.config, mac, registry)
        wrong = [
            device for device in registry.all()
            if device.mac != mac
            and (device.ip == wanted.ip or device.name == wanted.name or device.type == "server")
        ]
        if wrong:
            await registry.forget(*wrong, keep_logs=True)
        if registry.get(mac) != wanted:
            await registry.put(wanted)
