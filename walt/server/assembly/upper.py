"""The upper floors when the server starts: services, listeners, nodes.

Their modules are many: they are read while the first floor waits (`assembly.reading`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, globalLogPublisher

from walt.server.adapters.tftpd.loaders import install_loaders
from walt.server.adapters.web.accounts import LoopbackAccounts
from walt.server.assembly.base import Base, server_mac
from walt.server.assembly.capture import DaemonLog
from walt.server.assembly.core import build
from walt.server.assembly.images import Images
from walt.server.assembly.listeners import Doors, Listeners, open_all
from walt.server.assembly.logging import worth_telling
from walt.server.assembly.nodes import Nodes
from walt.server.assembly.readiness import until_answering
from walt.server.assembly.undoing import Undos
from walt.server.assembly.web import metrics_of, web_site
from walt.server.runtime.coroutines import spawn, together
from walt.server.runtime.slicing import worked_off
from walt.server.wire.connections import DOORS, Connections
from walt.server.wire.peers import Origins

_log = Logger()

MONITOR_EVERY = 2.0
POWER_EVERY = 10.0
STOP_PATIENCE = 10.0


class Upper:
    """Builds what stands on the first floor, and starts it; `core` has its parts.

    `host_network` and `ui_port` as in `assembly.core.build`.
    """

    def __init__(
        self, base: Base, images: Images, undos: Undos,
        host_network: Callable[[], AbstractContextManager[object]], ui_port: int | None,
    ) -> None:
        self._undos = undos
        self.core = build(base, images, host_network, ui_port)

    async def load(self) -> None:
        """Read what the last run knew of nodes, keys and certificates."""
        core, nodes = self.core, self.core.nodes
        install_loaders(core.base.config.paths.state)
        self._undos.plan("SNMP workers", nodes.switches.workers.stop)
        await together(
            self._load_nodes(), nodes.switches.exploration.load(), core.vpn.prepare(),
            self._start_certificates(),
        )
        nodes.switches.power.load()

    async def _load_nodes(self) -> None:
        nodes = self.core.nodes
        await nodes.status.load()
        await nodes.progress.load()
        await nodes.keys.load()

    async def _start_certificates(self) -> None:
        for checking in await self.core.certificates.start():
            self._undos.plan("checks of certificates", checking.stop)

    async def serve(
        self, host_http: socket.socket | None, host_ui: socket.socket | None,
        accounts: LoopbackAccounts,
    ) -> None:
        """Start the daemons of nodes, and open all listeners; see `listeners.open_all`."""
        core, plan = self.core, self._undos.plan
        plan("log lines", core.base.logs.flush)
        self._capture_own_lines()
        plan("workflows", lambda: core.base.workflows.stop(STOP_PATIENCE))
        await worked_off(core.base.reactor, self._start_services(), 1)
        plan("workers of registries", core.images.stop)
        plan("addresses of entry points", core.vpn.stop)
        await core.vpn.start()
        plan("life of images", core.image_life.stop)
        plan("shells of nodes", core.nodes.questions.stop)
        self._open_listeners(host_http, host_ui, accounts)

    def _start_services(self) -> Iterator[None]:
        """Start the daemons, one with each step: starting a process takes some milliseconds."""
        daemons = self.core.daemons
        self._undos.plan("firewall", daemons.firewall.remove, for_good=True)
        for service in daemons.services:
            service.startService()
            self._undos.plan(service.name or "", service.stopService)
            yield
        self._undos.plan("updates of services", daemons.network.stop)
        for apply in daemons.settled:
            apply()
            yield
        daemons.network.update(devices=self.core.base.registry.present())

    def _capture_own_lines(self) -> None:
        base = self.core.base
        observer = worth_telling(DaemonLog(base.logs, server_mac(base.registry) or ""))
        globalLogPublisher.addObserver(observer)
        self._undos.plan(
            "capture of own lines", partial(globalLogPublisher.removeObserver, observer)
        )

    def _open_listeners(
        self, host_http: socket.socket | None, host_ui: socket.socket | None,
        accounts: LoopbackAccounts,
    ) -> None:
        core, config, reactor = self.core, self.core.base.config, self.core.base.reactor
        if config.remote_clients == "open":
            _log.warn(
                "security.remote-clients is `open`: whoever reaches ports 12345 and 12347 may"
                " do anything on this platform"
            )
        connections = Connections(DOORS, core.kind)
        certificates = core.certificates
        certificates.access.ended.observe(connections.end)
        doors = Doors(
            Origins(config.subnet, certificates.access), connections, certificates.tls,
            reactor, config.remote_clients == "open", metrics_of(core, connections),
        )
        listeners = Listeners(reactor)
        self._undos.plan("listeners", listeners.stopService)
        site = web_site(core, doors.metrics)
        open_all(listeners, core, doors, site, host_http, host_ui, accounts)

    async def start_nodes(self) -> None:
        """Prepare what nodes mount, take over those that run; return when nodes may boot."""
        nodes, reactor = self.core.nodes, self.core.base.reactor
        self._undos.plan("nodes", self._stop_nodes)
        await nodes.provisioning.start()
        await deferLater(reactor, 0)  # what looks at thousands of nodes has a turn of its own
        monitor = LoopingCall(_contained, nodes.monitor.check)
        monitor.clock = reactor
        monitor.start(MONITOR_EVERY, now=False)
        self._undos.plan("boot monitor", monitor.stop)
        self._start_power(nodes)
        nodes.virtual.start_all()
        self._undos.plan("virtual nodes", nodes.virtual.stop_all)
        self._undos.plan("exposed ports", nodes.exposed.stop)
        await nodes.configuration.restore_exposed()
        await deferLater(reactor, 0)
        await self.core.daemons.dhcpd.tell_former()
        await until_answering(reactor, self.core.daemons.essential())

    async def learn(self) -> None:
        """Learn from the boots that the database knows."""
        await self.core.nodes.progress.learn()

    def migrate(self, missing: Sequence[str]) -> None:
        """Look for images that the database alone knows where an older WalT had them."""
        migration = self.core.image_life.operations.migration
        if missing and migration.possible:
            spawn(migration.run(missing), "migrating images of an older version")

    def _start_power(self, nodes: Nodes) -> None:
        """Power what the last run left off; see to it that power comes back, and is saved."""
        nodes.saving.start()

        async def check() -> None:
            await nodes.switches.power.keep_on()
            await nodes.saving.check()

        keeper = LoopingCall(lambda: spawn(check(), "looking after the power of ports"))
        keeper.clock = self.core.base.reactor
        keeper.start(POWER_EVERY, now=True)
        self._undos.plan("power of ports", keeper.stop)

    async def _stop_nodes(self) -> None:
        core = self.core
        await core.nodes.provisioning.suspend()
        if self._undos.keep_nodes:
            return
        await core.nodes.status.let_go()
        await core.daemons.network.links_to_static()
        await core.nodes.provisioning.withdraw()


def _contained(work: Callable[[], None]) -> None:
    # A LoopingCall stops for good at the first exception.
    try:
        work()
    except Exception:
        _log.failure("a periodic task failed")
