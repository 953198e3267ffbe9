"""dhcpd as a supervised child that follows its configuration (design D2, §8)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.files import write_if_changed
from walt.server.domain.services.dhcp import DhcpConfig, only_calm_changes, render
from walt.server.domain.services.lease_events import (
    LeaseAssembler,
    LeaseEvent,
    is_lease_line,
)
from walt.server.domain.services.lease_file import parse_leases, unregistered
from walt.server.domain.services.pacing import Pacer
from walt.server.domain.services.ports import IConfigurable
from walt.server.runtime.child import ChildService, ChildSpec, Health, end_left_over
from walt.server.runtime.process import Launcher

_log = Logger()


def dhcpd_spec(directory: Path, interface: str = "walt-net") -> ChildSpec:
    """Return how dhcpd is run: in the foreground, with two capabilities only.

    `directory` holds dhcpd.conf and dhcpd.leases.
    """
    return ChildSpec(
        "dhcpd",
        (
            "dhcpd", "-f", "-d", "-4", "--no-pid", "-cf", str(directory / "dhcpd.conf"),
            "-lf", str(directory / "dhcpd.leases"), interface,
        ),
        credentials=("--bounding-set", "-all,+net_bind_service,+net_raw"),
    )


@implementer(IConfigurable)
class DhcpdService(Service):
    """Run dhcpd with the configuration given to `apply`.

    `directory` holds its configuration and leases, `runtime` its pid file;
    `on_lease` gets the event of each committed lease; `interface` is the one it
    serves. The first of `apply` and `startService` waits for the other one.
    """

    def __init__(
        self, reactor: Any, launcher: Launcher, *, directory: Path, runtime: Path,
        on_lease: Callable[[LeaseEvent], None], interface: str = "walt-net",
    ) -> None:
        self.setName("dhcpd")
        self._directory = directory
        self._on_lease = on_lease
        self._assembler = LeaseAssembler()
        self._config: DhcpConfig | None = None
        self._pid_file = runtime / "dhcpd.pid"
        self.child = ChildService(
            reactor, launcher, dhcpd_spec(directory, interface), on_line=self._line,
            pid_file=self._pid_file,
        )
        self._pacer = Pacer(reactor, self._write, self.child.restart)

    @property
    def health(self) -> Health:
        """Return whether it runs, since when, and how often it was restarted."""
        return self.child.health

    def startService(self) -> None:
        """Start dhcpd, or wait for its first configuration."""
        super().startService()
        end_left_over(self._pid_file, signal.SIGKILL)
        self._pacer.resume()
        if self._config is not None:
            self._launch()

    def stopService(self) -> Deferred[None]:
        """End dhcpd; fires when it is gone."""
        super().stopService()
        self._pacer.stop()
        return self.child.stopService() if self.child.running else succeed(None)

    def apply(self, config: DhcpConfig) -> Deferred[None]:
        """Make `config` the wanted one; fires when dhcpd runs with it."""
        old, self._config = self._config, config
        if not self.running or config == old:
            return succeed(None)
        if old is None:
            self._launch()
            return succeed(None)
        return self._pacer.changed(calm=only_calm_changes(old, config))

    def lost_leases(self, known_macs: Container[str]) -> list[LeaseEvent]:
        """Return an event for each committed lease whose device is not recorded.

        To be registered at start: a crash may have lost their events.
        """
        try:
            raw = (self._directory / "dhcpd.leases").read_bytes()
        except FileNotFoundError:
            return []
        return unregistered(parse_leases(raw.decode("latin-1")), known_macs)

    def _launch(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        (self._directory / "dhcpd.leases").touch()
        self._write()
        self.child.startService()
        self._pacer.started()

    def _write(self) -> None:
        assert self._config is not None
        write_if_changed(self._directory / "dhcpd.conf", render(self._config))

    def _line(self, line: str) -> None:
        if not is_lease_line(line):
            if line.startswith("DHCP"):
                _log.debug("dhcpd: {line}", line=line)
            elif line.strip():
                _log.info("dhcpd: {line}", line=line)
            return
        self._pacer.activity()
        event = self._assembler.feed(line)
        if event is not None:
            try:
                self._on_lease(event)
            except Exception:
                _log.failure("handling the lease event of {mac}", mac=event.mac)
