"""The life of the server: ordered start, orderly stop, stop that keeps the nodes."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogPublisher

from walt.common.errors import WaltError, in_words
from walt.server.adapters.network.namespace import NetworkNamespace
from walt.server.adapters.postgres.connection import Database
from walt.server.adapters.postgres.migrate import create_database, migrate
from walt.server.adapters.postgres.probe import ask_encryption
from walt.server.adapters.postgres.restore import load_pending
from walt.server.adapters.tftpd.loaders import install_loaders
from walt.server.adapters.web.accounts import LoopbackAccounts
from walt.server.assembly import preflight, privileges
from walt.server.assembly.base import Base, server_device, server_mac
from walt.server.assembly.capture import DaemonLog
from walt.server.assembly.core import Core, build
from walt.server.assembly.daemons import Health
from walt.server.assembly.listeners import Doors, Listeners, open_all
from walt.server.assembly.logging import worth_telling
from walt.server.assembly.nodes import Nodes
from walt.server.assembly.readiness import notify, until_answering
from walt.server.assembly.ui import ui_socket
from walt.server.assembly.web import metrics_of, web_site
from walt.server.config.model import ServerConfig
from walt.server.runtime import memory, turns
from walt.server.runtime.child import ChildService, end_left_over
from walt.server.runtime.coroutines import spawn, together
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.slicing import slices
from walt.server.runtime.watching import Watch
from walt.server.wire.connections import DOORS, Connections
from walt.server.wire.peers import Origins

if TYPE_CHECKING:
    from twisted.internet.base import ReactorBase

_log = Logger()

OPEN_FILES = 16384
MONITOR_EVERY = 2.0
POWER_EVERY = 10.0
STOP_PATIENCE = 10.0
UNDO_LIMIT = 60.0  # seconds that stopping one thing may take

Undo = Callable[[], Any]


class WaltServer(Service):
    """Starts everything in order; what was started is stopped in reverse order.

    SIGTERM and SIGINT stop for good: nodes are sent to the static boot files.
    SIGUSR2 stops and keeps the nodes: they wait for the next server (design §8).
    SIGHUP does nothing but tell that server.spec is read at each mount (spec server §1.8).
    """

    name = "walt-server"

    def __init__(self, reactor: IReactor, config: ServerConfig) -> None:
        self._reactor = reactor
        self._config = config
        self._undos: list[tuple[str, Undo, bool]] = []
        self._starting: Deferred[None] | None = None
        self._keep_nodes = False
        self._core: Core | None = None
        self.ready: Deferred[None] = Deferred()

    # -- start -----------------------------------------------------------

    def startService(self) -> None:
        """Start; a failure ends the process with status 1 and one clear message."""
        super().startService()
        if turns.VARIABLE in os.environ:
            place = Path(os.environ.pop(turns.VARIABLE))
            turns.record_turns(cast("ReactorBase", self._reactor), place)
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not self.running and failure.check(CancelledError, WaltError):
            _log.info("stopped before the start was over")
            return
        if failure.check(WaltError):
            text = str(failure.value)
            _log.error("the server cannot start: {text}", text=text)
        else:
            text = f"unexpected failure: {in_words(failure.value)}"
            _log.failure("the server cannot start", failure)
        # twistd turns sys.stderr into log lines; this is for the person who starts the server.
        print(f"walt-server: {text}", file=sys.__stderr__)
        # A SystemExit raised in the reactor is swallowed: end from atexit (design §8).
        atexit.register(_exit_failed)
        if self._reactor.running:
            self._reactor.stop()

    async def _start(self) -> None:
        config = self._config
        preflight.check(config)
        _raise_open_files()
        privileges.drop()
        signal.signal(signal.SIGUSR2, self._on_keep_nodes)
        signal.signal(signal.SIGHUP, self._on_reload)
        host_http, host_ui = self._host_http_socket(), ui_socket(config.services.http_ui_port)
        accounts = LoopbackAccounts()  # of the network of the host, as these
        ui_port = host_ui.getsockname()[1] if host_ui is not None else None
        namespace = self._enter_namespace()
        if namespace is None:
            core = build(self._reactor, config, Launcher(), ui_port=ui_port)
        else:
            launcher = Launcher(namespace.host_path)
            core = build(self._reactor, config, launcher, namespace.host, ui_port)
        self._core = core
        self._undo("workers", core.base.workers.stop)
        self._undo("file systems for nodes", core.base.volumes.close, for_good=True)
        await core.base.volumes.open()

        for plan in core.base.links.no_longer_wanted(config.networks):
            await core.base.links.down(plan)
        for plan in core.base.link_plans:
            await core.base.links.up(plan)
            self._undo(
                f"network {plan.name}", partial(core.base.links.down, plan), for_good=True
            )
        await core.base.taps.delete_left_overs()
        self._undo("taps", core.base.taps.delete_left_overs)
        # Podman takes as long as the database to answer.
        await together(self._load_devices(core), core.image_life.sweep())
        await core.base.keys.prepare()
        core.base.keys.write_known_hosts()
        install_loaders(config.paths.state)
        await core.nodes.status.load()
        await core.nodes.progress.load()
        await core.nodes.keys.load()
        self._undo("SNMP workers", core.nodes.switches.workers.stop)
        await core.nodes.switches.exploration.load()
        core.nodes.switches.power.load()
        migration = core.image_life.operations.migration
        missing = await core.images.service.refresh(forget=not migration.possible)

        self._undo("log lines", core.base.logs.flush)
        self._capture_own_lines(core)
        self._undo("workflows", lambda: core.base.workflows.stop(STOP_PATIENCE))
        await core.vpn.prepare()
        await self._start_services(core)
        self._undo("workers of registries", core.images.stop)
        self._undo("addresses of entry points", core.vpn.stop)
        await core.vpn.start()
        self._undo("life of images", core.image_life.stop)
        self._undo("shells of nodes", core.nodes.questions.stop)
        for checking in await core.certificates.start():
            self._undo("checks of certificates", checking.stop)
        self._open_listeners(core, host_http, host_ui, accounts)
        memory.built()
        notify("STATUS=preparing what nodes mount")
        await self._start_nodes(core)
        await until_answering(self._reactor, core.daemons.essential())
        memory.built()  # what derives from nodes, too
        giving = LoopingCall(memory.give_back)
        giving.clock = self._reactor
        giving.start(memory.EVERY)
        self._undo("memory that is free", giving.stop)
        notify("READY=1")
        _log.info("the WalT server is ready at {ip}", ip=str(config.server_ip))
        learning = spawn(_unless_stopped(core.nodes.progress.learn()), "learning from past boots")
        self._undo("learning from past boots", learning.cancel)
        if missing and migration.possible:
            spawn(migration.run(missing), "migrating images of an older version")
        self.ready.callback(None)

    def _undo(self, what: str, undo: Undo, *, for_good: bool = False) -> None:
        """Plan what stops something; `for_good`: not when nodes are kept for the next server."""
        self._undos.append((what, undo, for_good))

    def _enter_namespace(self) -> NetworkNamespace | None:
        name = self._config.namespace
        if name is None:
            return None
        namespace = NetworkNamespace(name, self._config.paths.runtime / "namespace")
        namespace.create_and_enter()
        self._undo("namespace", namespace.remove)
        return namespace

    def _host_http_socket(self) -> socket.socket | None:
        """Open the web pages' port of the host before entering the namespace (D13)."""
        port = self._config.services.http_host_port
        if self._config.namespace is None or port == 0:
            return None
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(50)
        except OSError as error:
            listening.close()
            _log.warn(
                "web pages are not available at 127.0.0.1:{port}: {error}",
                port=port, error=error.strerror,
            )
            return None
        listening.setblocking(False)
        return listening

    async def _load_devices(self, core: Core) -> None:
        """Start the database; read from it what devices there are."""
        await self._start_database(core.base, core.daemons.health)
        await core.base.registry.load()
        await self._fix_server_entry(core)

    async def _start_database(self, base: Base, health: Health) -> None:
        if base.cluster is not None:
            pid_file = self._config.paths.service_runtime("postgres.pid")
            end_left_over(pid_file, signal.SIGQUIT)
            await base.cluster.prepare()
            child = ChildService(
                self._reactor, base.launcher, base.cluster.spec(), pid_file=pid_file
            )
            Watch(
                self._reactor, child, partial(ask_encryption, self._reactor, base.cluster.socket)
            )
            child.startService()
            health.daemons.append(child)
            self._undo("postgres", child.stopService)
            maintenance = Database(self._reactor, base.cluster.maintenance_dsn)
            await create_database(maintenance)
        self._undo("database connections", base.database.close)
        await load_pending(base.runner, base.database, self._config.paths.state)
        # What was loaded from a file is kept by it.
        await migrate(base.database, keep_former=base.cluster is None)
        await base.log_store.prepare()
        await base.logs.start()
        await base.log_upkeep.start()
        self._undo("upkeep of the logs", base.log_upkeep.stop)
        if base.log_archive is not None:
            target = base.log_archive.files.target
            if target.in_the_clear:
                _log.warn(
                    "logs.archive.endpoint of server.conf is http: whoever is on the way to"
                    " {target} reads and changes archived log lines", target=target,
                )
            self._undo("archive of the logs", base.log_archive.stop)
            base.log_archive.archiving.start()

    async def _fix_server_entry(self, core: Core) -> None:
        links, registry = await core.base.links.links(), core.base.registry
        mac = str(links["walt-net"]["address"])
        wanted = server_device(self._config, mac, registry)
        wrong = [
            device for device in registry.all()
            if device.mac != mac
            and (device.ip == wanted.ip or device.name == wanted.name or device.type == "server")
        ]
        if wrong:
            await registry.forget(*wrong, keep_logs=True)
        if registry.get(mac) != wanted:
            await registry.put(wanted)

    async def _start_services(self, core: Core) -> None:
        daemons = core.daemons
        self._undo("firewall", daemons.firewall.remove, for_good=True)
        for service in daemons.services:
            service.startService()
            self._undo(service.name or "", service.stopService)
        self._undo("updates of services", daemons.network.stop)
        for apply in daemons.settled:
            apply()
        daemons.network.update(devices=core.base.registry.present())

    def _capture_own_lines(self, core: Core) -> None:
        observer = worth_telling(DaemonLog(core.base.logs, server_mac(core.base.registry) or ""))
        globalLogPublisher.addObserver(observer)
        self._undo("capture of own lines", partial(globalLogPublisher.removeObserver, observer))

    def _open_listeners(
        self, core: Core, host_http: socket.socket | None, host_ui: socket.socket | None,
        accounts: LoopbackAccounts,
    ) -> None:
        config = self._config
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
            self._reactor, config.remote_clients == "open", metrics_of(core, connections),
        )
        listeners = Listeners(self._reactor)
        self._undo("listeners", listeners.stopService)
        site = web_site(core, doors.metrics)
        open_all(listeners, core, doors, site, host_http, host_ui, accounts)

    async def _start_nodes(self, core: Core) -> None:
        nodes = core.nodes
        self._undo("nodes", lambda: self._stop_nodes(core))
        await nodes.provisioning.start()
        monitor = LoopingCall(_contained, nodes.monitor.check)
        monitor.clock = self._reactor
        monitor.start(MONITOR_EVERY, now=False)
        self._undo("boot monitor", monitor.stop)
        self._start_power(nodes)
        nodes.virtual.start_all()
        self._undo("virtual nodes", nodes.virtual.stop_all)
        self._undo("exposed ports", nodes.exposed.stop)
        await nodes.configuration.restore_exposed()
        known = {device.mac for device in core.base.registry.all()}
        holders = await core.daemons.dhcpd.lease_holders()
        async for some in slices(self._reactor, holders):
            for holder in some:
                nodes.leases.leased(holder)
                if holder.mac not in known:
                    nodes.registration.leased(holder)

    def _start_power(self, nodes: Nodes) -> None:
        """Power what the last run left off; see to it that power comes back, and is saved."""
        nodes.saving.start()

        async def check() -> None:
            await nodes.switches.power.keep_on()
            await nodes.saving.check()

        keeper = LoopingCall(lambda: spawn(check(), "looking after the power of ports"))
        keeper.clock = self._reactor
        keeper.start(POWER_EVERY, now=True)
        self._undo("power of ports", keeper.stop)

    # -- stop ------------------------------------------------------------

    def _on_keep_nodes(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._stop_and_keep_nodes)

    def _on_reload(self, number: int, frame: Any) -> None:
        # Nothing of it is kept in memory.
        self._reactor.callFromThread(
            _log.info, "{spec} applies to what is mounted from now on", spec=self._config.spec
        )

    def _stop_and_keep_nodes(self) -> None:
        _log.info("stopping, and keeping the nodes for the next server")
        self._keep_nodes = True
        self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Stop all that was started, the last first; each failure is logged."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        notify("STOPPING=1")
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        if self._core is not None:
            self._core.nodes.registration.stop()
        while self._undos:
            what, undo, for_good = self._undos.pop()
            if for_good and self._keep_nodes:
                continue
            try:
                await self._limited(undo())
            except TimeoutError:
                _log.error(
                    "stopping {what} took more than {limit} s: going on without it",
                    what=what, limit=UNDO_LIMIT,
                )
            except Exception:
                _log.failure("stopping {what}", what=what)
        _log.info("the WalT server has stopped")

    async def _limited(self, result: Deferred[Any] | Coroutine[Any, Any, Any] | None) -> None:
        """Wait for what an undo returned, not for ever: a stop always ends."""
        if result is None:
            return
        waiting = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
        await waiting.addTimeout(UNDO_LIMIT, self._reactor)

    async def _stop_nodes(self, core: Core) -> None:
        await core.nodes.provisioning.suspend()
        if self._keep_nodes:
            return
        await core.nodes.status.let_go()
        await core.daemons.network.links_to_static()
        await core.nodes.provisioning.withdraw()


def _exit_failed() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _unless_stopped(work: Coroutine[Any, Any, None]) -> None:
    with suppress(CancelledError):
        await work


def _contained(work: Callable[[], None]) -> None:
    # A LoopingCall stops for good at the first exception.
    try:
        work()
    except Exception:
        _log.failure("a periodic task failed")

