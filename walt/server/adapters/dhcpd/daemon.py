"""dhcpd as a supervised child that follows its configuration (design D2, §8)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import in_words
from walt.common.files import write_if_changed
from walt.common.leases import Sighting
from walt.server.adapters.dhcpd.account import USER
from walt.server.adapters.dhcpd.probe import ask_information
from walt.server.domain.events import Source
from walt.server.domain.network_services.dhcp import DhcpConfig, only_calm_changes, render
from walt.server.domain.network_services.interfaces import IConfigurable
from walt.server.domain.network_services.lease_events import (
    LeaseAssembler,
    acknowledged,
    is_lease_line,
    offered,
)
from walt.server.domain.network_services.lease_file import parse_leases
from walt.server.domain.network_services.pacing import Pacer
from walt.server.runtime.accounts import give_directory, give_file, read_file
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildSpec
from walt.server.runtime.daemon import Daemon
from walt.server.runtime.process import Launcher
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.slicing import slices
from walt.server.runtime.watching import Patience

_log = Logger()

# dhcpd writes a banner, reads its configuration, then says which file it was. When it
# gives up it says why, adds a paragraph on bugs, and a last word.
BANNER = ("Internet Systems Consortium", "Copyright ", "All rights reserved", "For info,")
CONFIGURED = "Config file:"
PARAGRAPH = "If you think you have received this message due to a bug"
LAST_WORD = "exiting."
MANY_LINES = 100  # more than it writes before it has read its configuration


def complaint(lines: Sequence[str]) -> str:
    """Return, of the last lines that dhcpd wrote, why it gave up."""
    said = list(lines)
    refused = LAST_WORD in said and said[0].startswith(BANNER[0]) and not any(
        line.startswith(CONFIGURED) for line in said
    )
    for number, line in enumerate(said):
        if line.startswith(PARAGRAPH):
            said = said[:number]
            break
    dull = (*BANNER, CONFIGURED, LAST_WORD)
    words = " / ".join([line for line in said if line and not line.startswith(dull)][-4:])
    return f"it refuses its configuration: {words}" if refused else words


LEASES = Path("leases/dhcpd.leases")  # dhcpd writes new ones beside it, and renames them
MOST_LEASES = 256 << 20  # bytes of its file
CAPABILITIES = "+net_bind_service,+net_raw"  # port 67, answers to hosts without an address


def dhcpd_spec(directory: Path, interface: str = "walt-net") -> ChildSpec:
    """Return how dhcpd is run: in the foreground, by an account with two capabilities.

    `directory` holds dhcpd.conf and LEASES.
    """
    return ChildSpec(
        "dhcpd",
        (
            "dhcpd", "-f", "-d", "-4", "--no-pid", "-cf", str(directory / "dhcpd.conf"),
            "-lf", str(directory / LEASES), interface,
        ),
        credentials=(
            "--reuid", USER, "--regid", USER, "--clear-groups",
            "--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES,
            "--bounding-set", f"-all,{CAPABILITIES}",
        ),
    )


@implementer(IConfigurable)
class DhcpdService(Daemon[DhcpConfig]):
    """Run dhcpd with the configuration given to `apply`.

    `directory` holds its configuration and leases, `runtime` its pid file;
    `leases` tells who got each committed lease, `former` who has one of before the start
    (see `tell_former`), `addresses` of the MAC of each client that gets its
    address, by a lease or by its own entry, `offers` of MAC and address of each client that is
    offered one; `interface` is the one it serves. `apply`
    fires when dhcpd answers with the configuration, or refused it: then the former one that
    worked counts until the next change. Probes ask from `place`.
    """

    def __init__(
        self, reactor: IReactor, launcher: Launcher, *, directory: Path, runtime: Path,
        interface: str = "walt-net", place: Place = contextlib.nullcontext,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(
            reactor, launcher, dhcpd_spec(directory, interface), runtime / "dhcpd.pid",
            on_line=self._line, explain=complaint, on_answer=self._answers, patience=patience,
        )
        self._reactor, self._place, self._interface = reactor, place, interface
        self._directory = directory
        self.leases: Source[Sighting] = Source()
        self.former: Source[Sighting] = Source()
        self.addresses: Source[str] = Source()
        self.offers: Source[str, str] = Source()
        self._assembler = LeaseAssembler()
        # Texts of dhcpd.conf: in the file, read by the process, one that worked.
        self._text = self._running = self._proven = ""
        self._lines: list[str] | None = None  # written so far while it reads its file
        self._pacer = Pacer(reactor, self._write, self._restart)
        self.child.observe(self._on_process)

    def startService(self) -> None:
        """Start dhcpd, or wait for its first configuration."""
        self._pacer.resume()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End dhcpd; fires when it is gone."""
        self._pacer.stop()
        return super().stopService()

    def _follow(self, old: DhcpConfig, config: DhcpConfig) -> Deferred[None]:
        return self._pacer.changed(calm=only_calm_changes(old, config))

    async def tell_former(self) -> None:
        """Tell who holds leases by the file of dhcpd: a crash may have lost their events.

        There may be thousands: some are told in each turn of the reactor.
        """
        async for some in slices(self._reactor, await self._lease_holders()):
            for holder in some:
                self.former.tell(holder)

    async def _lease_holders(self) -> list[Sighting]:
        try:
            raw = read_file(self._directory / LEASES, MOST_LEASES)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.error(
                "leases of before this start are not known: {error}", error=in_words(error)
            )
            return []
        return await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), parse_leases, raw.decode("latin-1")
        )

    def _prepare(self, config: DhcpConfig) -> None:
        leases = self._directory / LEASES
        former = self._directory / LEASES.name
        if former.exists():  # of a server that had it here
            leases.parent.mkdir(parents=True, exist_ok=True)
            former.replace(leases)
        give_directory(leases.parent, USER, mode=0o755)
        give_file(leases, USER)
        self._write()

    def _launch(self, config: DhcpConfig) -> None:
        super()._launch(config)
        self._pacer.started()

    def _write(self) -> None:
        assert self._config is not None
        self._put(render(self._config))

    def _put(self, text: str) -> None:
        write_if_changed(self._directory / "dhcpd.conf", text)
        self._text = text

    async def _restarted(self) -> None:
        await self.child.restart()
        await self.watch.answered()

    def _restart(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._restarted())

    def _on_process(self, alive: bool) -> None:
        if alive:
            self._running, self._lines = self._text, []

    def _answers(self) -> None:
        self._proven = self._running

    def _reading(self, line: str) -> None:
        """Take a line that dhcpd writes before it has read its configuration."""
        assert self._lines is not None
        if line.startswith(CONFIGURED) or len(self._lines) == MANY_LINES:
            self._lines = None
            return
        if line.strip():
            self._lines.append(line.strip())
        if line.strip() != LAST_WORD:
            return
        reason, self._lines = complaint(self._lines), None
        newest = self._running == self._text  # no other one was written meanwhile
        if newest and self._proven not in ("", self._running):
            _log.error(
                "dhcpd, {reason}: the former one stays in use until the next change", reason=reason
            )
            try:
                self._put(self._proven)
            except OSError:
                _log.failure("going back to the former configuration of dhcpd")

    async def _probe(self) -> None:
        assert self._config is not None
        await ask_information(
            self._reactor, str(self._config.interface.ip), self._interface, place=self._place
        )

    def _line(self, line: str) -> None:
        if self._lines is not None:
            self._reading(line)
        if not is_lease_line(line):
            if line.startswith("DHCP"):
                _log.debug("dhcpd: {line}", line=line)
                mac = acknowledged(line)
                if mac is not None:
                    self.addresses.tell(mac)
                offer = offered(line)
                if offer is not None:
                    self.offers.tell(*offer)
            elif line.strip():
                self.child.log_line(line)
            return
        self._pacer.activity()
        holder = self._assembler.feed(line)
        if holder is not None:
            try:
                self.leases.tell(holder)
            except Exception:
                _log.failure("handling the lease of {mac}", mac=holder.mac)
