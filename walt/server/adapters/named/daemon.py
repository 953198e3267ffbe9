"""named as a supervised child that follows its configuration (design §8)."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.files import write_atomic, write_if_changed
from walt.server.adapters.named.probe import ask_serial
from walt.server.domain.network_services.dns import (
    FORWARD_ZONE,
    FORWARD_ZONE_FILE,
    DnsConfig,
    next_serial,
    older_serial,
    render_named_conf,
    same_beside_serial,
    serial_of,
    zone_of_file,
    zones,
)
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.pacing import Pacer
from walt.server.runtime.accounts import give_directory
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.daemon import Daemon
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.waiting import Waiters
from walt.server.runtime.watching import Disobeys, Patience

_log = Logger()

USER = "bind"
# named(8) says so when the zones are in memory, at start and after a reload.
LOADED = "all zones loaded"
# What an administrator has to see; the rest of its output tells each failed look-up.
_TROUBLE = (
    "could not", "fatal error", "not loaded due to errors", "loading configuration:",
    "loading from master file", "reloading configuration failed",
)
_STAMP = re.compile(r"^\S+ [0-9:.]+ ")  # date and time before each line
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
class NamedService(Daemon[DnsConfig]):
    """Run named with the configuration given to `apply`, which fires when named has it.

    `directory` holds named.conf and the zones, `runtime` is where named may
    write. At most one reload is under way; changes in the meantime are merged.
    Probes ask from `place`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        user: str = USER, place: Place = contextlib.nullcontext,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(
            reactor, launcher, named_spec(directory, user), runtime / "child.pid",
            on_line=self._line, remind=self._reload, patience=patience,
        )
        self._reactor, self._place = reactor, place
        self._directory, self._runtime, self._user = directory, runtime, user
        self._loading: Waiters[None] = Waiters()
        self._written: dict[str, int] = {}  # serial in the file of each zone
        self._texts: dict[str, str] = {}  # of each zone file, with serial 0
        self._due: dict[str, int] = {}  # the one that named must have, until it showed it
        self._words: deque[str] = deque(maxlen=20)  # its complaints since it last loaded
        self._pacer = Pacer(reactor, self._write, self._reload, gap=0.5)
        self.child.observe(self._on_process)

    def startService(self) -> None:
        """Start named, or wait for its first configuration."""
        self._pacer.resume()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End named; fires when it is gone."""
        self._pacer.stop()
        self._loaded()
        return super().stopService()

    def _follow(self, old: DnsConfig, config: DnsConfig) -> Deferred[None]:
        return self._pacer.changed()

    def _prepare(self, config: DnsConfig) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        give_directory(self._runtime, self._user, mode=0o755)
        self._write()

    def _launch(self, config: DnsConfig) -> None:
        super()._launch(config)
        self._pacer.started()
        # A signal before named handles it would end it: the start counts as a load.
        self._pacer.hold(self._when_loaded())

    def _write(self) -> None:
        assert self._config is not None
        texts = zones(self._config, 0)
        now = self._reactor.seconds()
        written = {}
        for name, text in texts.items():
            path, zone = self._directory / name, zone_of_file(name)
            if self._texts.get(name) == text and path.exists():
                written[zone] = self._written[zone]
                continue
            try:
                old = path.read_text()
            except FileNotFoundError:
                old = ""
            serial = serial_of(old)
            if serial is None or not same_beside_serial(old, text):
                serial = next_serial(now, old)
                self._texts.pop(name, None)
                write_atomic(path, text.replace("    0 ; serial", f"    {serial} ; serial"))
            written[zone] = serial
            self._texts[name] = text
            self._written[zone] = serial
        write_if_changed(
            self._directory / "named.conf",
            render_named_conf(self._config, self._directory, self._runtime),
        )
        self._written = written
        self._texts = texts
        for path in self._directory.glob("walt.*.zone"):
            if path.name not in texts and path.name != FORWARD_ZONE_FILE:
                path.unlink()

    def _on_process(self, alive: bool) -> None:
        if alive:
            self._expect()

    def _expect(self) -> None:
        """From now on named must show what is written: it starts, or it reads it again."""
        self._words.clear()
        self._due = dict(self._written)

    def _reload(self) -> Deferred[None]:
        self._expect()
        if not self.child.reload():
            return succeed(None)  # it reads everything when its supervisor restarts it
        return self._when_loaded()

    def _when_loaded(self) -> Deferred[None]:
        done = self._loading.wait()
        timer = self._reactor.callLater(LONGEST_RELOAD, self._loaded)

        def finished(_: None) -> None:
            if timer.active():
                timer.cancel()

        return done.addCallback(finished)

    def _loaded(self) -> None:
        self._loading.release(None)

    def _line(self, line: str) -> None:
        if LOADED in line:
            self._loaded()
        if any(words in line for words in _TROUBLE):
            self._words.append(_STAMP.sub("", line))
            _log.warn("named: {line}", line=line)
        else:
            _log.debug("named: {line}", line=line)

    async def _probe(self) -> None:
        assert self._config is not None
        due = self._due if not self._loading else {}
        for zone in (FORWARD_ZONE, *(due.keys() - {FORWARD_ZONE})):
            soa = await ask_serial(
                self._reactor, str(self._config.server), zone, place=self._place
            )
            if due is not self._due or zone not in due:
                continue  # it was told something new meanwhile
            if soa.serial is None:
                raise Disobeys(self._saying(f"does not serve zone {zone}: {soa.refusal()}", zone))
            if older_serial(soa.serial, due[zone]):
                raise Disobeys(self._saying(
                    f"has serial {soa.serial} of zone {zone}, not {due[zone]}", zone
                ))
            if zone != FORWARD_ZONE:
                del due[zone]

    def _saying(self, problem: str, zone: str) -> str:
        words = [line for line in self._words if f"zone {zone}/IN" in line] or [*self._words]
        return f"{problem}; it says: {' / '.join(words[-2:])}" if words else problem
