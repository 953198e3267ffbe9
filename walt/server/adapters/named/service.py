"""named as a supervised child that follows its configuration (design §8)."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.files import write_atomic, write_if_changed
from walt.server.domain.services.dns import (
    FORWARD_ZONE_FILE,
    DnsConfig,
    next_serial,
    render_named_conf,
    same_beside_serial,
    zones,
)
from walt.server.domain.services.pacing import Pacer
from walt.server.domain.services.ports import IConfigurable
from walt.server.runtime.child import ChildService, ChildSpec, Health, end_left_over
from walt.server.runtime.process import Launcher

_log = Logger()

USER = "bind"
# named(8) says so when the zones are in memory, at start and after a reload.
LOADED = "all zones loaded"
# What an administrator has to see; the rest of its output tells each failed look-up.
_TROUBLE = ("could not", "fatal error", "not loaded due to errors", "loading configuration:")
LONGEST_RELOAD = 10.0  # seconds after which a reload counts as done


def named_spec(directory: Path, user: str = USER) -> ChildSpec:
    """Return how named is run: in the foreground, as `user` from the start.

    A daemon that changes its user itself would survive a killed server.
    """
    return ChildSpec(
        "named",
        ("named", "-g", "-4", "-n", "1", "-c", str(directory / "named.conf")),
        cwd="/",
        credentials=(
            "--reuid", user, "--regid", user, "--init-groups",
            "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service",
        ),
    )


@implementer(IConfigurable)
class NamedService(Service):
    """Run named with the configuration given to `apply`.

    `directory` holds named.conf and the zones, `runtime` is where named may
    write. At most one reload is under way; changes in the meantime are merged.
    """

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path,
        user: str = USER,
    ) -> None:
        self.setName("named")
        self._reactor = reactor
        self._directory, self._runtime, self._user = directory, runtime, user
        self._config: DnsConfig | None = None
        self._pid_file = runtime / "child.pid"
        self._loading: list[Deferred[None]] = []
        self.child = ChildService(
            reactor, launcher, named_spec(directory, user), on_line=self._line,
            pid_file=self._pid_file,
        )
        self._pacer = Pacer(reactor, self._write, self._reload, gap=0.5)

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it was restarted."""
        return self.child.health

    def startService(self) -> None:
        """Start named, or wait for its first configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        self._pacer.resume()
        if self._config is not None:
            self._launch()

    def stopService(self) -> Deferred[None]:
        """End named; fires when it is gone."""
        super().stopService()
        self._pacer.stop()
        self._loaded()
        return self.child.stopService() if self.child.running else succeed(None)

    def apply(self, config: DnsConfig) -> Deferred[None]:
        """Make `config` the wanted one; fires when named answers with it."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        if old is None:
            self._launch()
            return succeed(None)
        return self._pacer.changed()

    def _launch(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._runtime.mkdir(parents=True, exist_ok=True)
        shutil.chown(self._runtime, self._user, self._user)
        self._write()
        self.child.startService()
        self._pacer.started()
        # A signal before named handles it would end it: the start counts as a load.
        self._pacer.hold(self._when_loaded())

    def _write(self) -> None:
        assert self._config is not None
        texts = zones(self._config, 0)
        now = self._reactor.seconds()
        for name in texts:
            path = self._directory / name
            try:
                old = path.read_text()
            except FileNotFoundError:
                old = ""
            if not same_beside_serial(old, texts[name]):
                serial = next_serial(now, old)
                write_atomic(path, texts[name].replace("    0 ; serial", f"    {serial} ; serial"))
        write_if_changed(
            self._directory / "named.conf",
            render_named_conf(self._config, self._directory, self._runtime),
        )
        for path in self._directory.glob("walt.*.zone"):
            if path.name not in texts and path.name != FORWARD_ZONE_FILE:
                path.unlink()

    def _reload(self) -> Deferred[None]:
        if not self.child.signal("HUP"):
            return succeed(None)  # it reads everything when its supervisor restarts it
        return self._when_loaded()

    def _when_loaded(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._loading.append(done)
        timer = self._reactor.callLater(LONGEST_RELOAD, self._loaded)

        def finished(_: None) -> None:
            if timer.active():
                timer.cancel()

        return done.addCallback(finished)

    def _loaded(self) -> None:
        loading, self._loading = self._loading, []
        for one in loading:
            one.callback(None)

    def _line(self, line: str) -> None:
        if LOADED in line:
            self._loaded()
        if any(words in line for words in _TROUBLE):
            _log.warn("named: {line}", line=line)
        else:
            _log.debug("named: {line}", line=line)
