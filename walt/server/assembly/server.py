"""The life of the server: ordered start, orderly stop, stop that keeps the nodes."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from walt.common.errors import WaltError, in_words
from walt.server.adapters.network.namespace import NetworkNamespace
from walt.server.adapters.web.accounts import LoopbackAccounts
from walt.server.assembly import preflight, privileges
from walt.server.assembly.base import build_base
from walt.server.assembly.ground import Ground
from walt.server.assembly.host_sockets import ui_socket, web_socket
from walt.server.assembly.readiness import notify
from walt.server.assembly.reading import Reading
from walt.server.assembly.undoing import Undos
from walt.server.config.model import ServerConfig
from walt.server.runtime import memory, turns
from walt.server.runtime.coroutines import spawn, together
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor

if TYPE_CHECKING:
    from twisted.internet.base import ReactorBase

    from walt.server.assembly.upper import Upper

_log = Logger()

OPEN_FILES = 16384


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
        self._undos = Undos(reactor)
        self._starting: Deferred[None] | None = None
        self._upper: Upper | None = None
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
        """Start floor by floor; each does at the same time what waits for other processes."""
        config = self._config
        preflight.check(config)
        _raise_open_files()
        privileges.drop()
        signal.signal(signal.SIGUSR2, self._on_keep_nodes)
        signal.signal(signal.SIGHUP, self._on_reload)
        host_http, host_ui = web_socket(config), ui_socket(config.services.http_ui_port)
        accounts = LoopbackAccounts()  # of the network of the host, as these
        ui_port = host_ui.getsockname()[1] if host_ui is not None else None
        namespace = self._enter_namespace()
        launcher = Launcher(None if namespace is None else namespace.host_path)
        base = build_base(self._reactor, config, launcher)
        self._undos.plan("workers", base.workers.stop)

        ground, reading = Ground(base, self._undos), Reading(self._reactor)
        # PostgreSQL, `ip`, ssh-keygen, podman: while they work, the code of the rest is read.
        await together(
            ground.networks_and_devices(), ground.keys(), ground.open_images(reading.images),
            reading.floors(),
        )
        from walt.server.assembly.upper import Upper

        assert ground.images is not None
        host = nullcontext if namespace is None else namespace.host
        upper = self._upper = Upper(base, ground.images, self._undos, host, ui_port)
        await upper.load()
        await upper.serve(host_http, host_ui, accounts)
        memory.built(filling=True)
        notify("STATUS=preparing what nodes mount")
        await upper.start_nodes()
        memory.built()  # what derives from nodes, too
        giving = LoopingCall(memory.give_back)
        giving.clock = self._reactor
        giving.start(memory.EVERY)
        self._undos.plan("memory that is free", giving.stop)
        notify("READY=1")
        _log.info("the WalT server is ready at {ip}", ip=str(config.server_ip))
        for later, what in (
            (upper.learn(), "learning from past boots"), (reading.rest(), "reading more code"),
        ):
            self._undos.plan(what, spawn(_unless_stopped(later), what).cancel)
        upper.migrate(ground.missing)
        self.ready.callback(None)

    def _enter_namespace(self) -> NetworkNamespace | None:
        name = self._config.namespace
        if name is None:
            return None
        namespace = NetworkNamespace(name, self._config.paths.runtime / "namespace")
        namespace.create_and_enter()
        self._undos.plan("namespace", namespace.remove)
        return namespace

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
        self._undos.keep_nodes = True
        self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Stop all that was started, the last first; each failure is logged."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        notify("STOPPING=1")
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        if self._upper is not None:
            self._upper.core.nodes.registration.stop()
        await self._undos.undo_all()
        _log.info("the WalT server has stopped")


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
