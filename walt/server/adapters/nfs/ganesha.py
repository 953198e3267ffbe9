"""NFSv4 by nfs-ganesha, a child of the server, for kernels without an NFS server.

Exports change one by one, by ganesha's D-Bus interface; what it has after a start is asked
and compared. A ganesha that does not do what it is told within its time is started again:
nodes wait for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable
from walt.common.files import make_hidden, write_if_changed
from walt.server.adapters.nfs import ganesha_config as config
from walt.server.adapters.nfs.exports import (
    LINKS_ID,
    NODES,
    Export,
    ExportNumbers,
    Followed,
    Links,
    links_export,
)
from walt.server.adapters.nfs.ganesha_orders import Orders
from walt.server.adapters.nfs.ganesha_process import ganesha_spec
from walt.server.adapters.nfs.links import LinkTree
from walt.server.adapters.nfs.probe import ask_nothing
from walt.server.domain.images.exports import ExportPlan
from walt.server.domain.images.interfaces import INfsExporter
from walt.server.runtime.asking import Place
from walt.server.runtime.child import ChildService, end_left_over
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.dbus import Gone
from walt.server.runtime.kept import Health
from walt.server.runtime.process import Launcher, ProcessRunner
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.slicing import slices, worked_off
from walt.server.runtime.watching import NoAnswer, Watch

_log = Logger()

STOPPED = "the server stops"
TRIES = 3  # starts before the nodes concerned are given up, until the next update
AT_ONCE = 16  # small files written in one turn of the reactor
LINKS_AT_ONCE = 32  # links made or read in one turn
MANY = 256  # exports and links derived in one turn, exports given with one order


@implementer(INfsExporter)
class GaneshaExporter(Service):
    """Run ganesha.nfsd and give it the plan.

    `directory` holds its configuration and recovery state (state directory), `runtime` its
    pid file and socket; the links that nodes follow are in `links`, what is exported is below
    `trees`, which are on shared mounts: the daemon sees little else. `address` is the server's
    in walt-net, whose network is `subnet`. `reactor` gives spawnProcess, listenUNIX and
    callLater. The daemon starts with the first plan. Probes ask from `place`.
    """

    name = "nfs"

    def __init__(
        self, reactor: IReactor, launcher: Launcher, runner: ProcessRunner, *, directory: Path,
        runtime: Path, links: Path, trees: Sequence[Path], address: str, subnet: IPv4Network,
        program: str = "/usr/bin/ganesha.nfsd", place: Place = contextlib.nullcontext,
    ) -> None:
        self._reactor = reactor
        self._runner = runner
        self._program, self._place = program, place
        self._directory, self._runtime = directory, runtime
        self._address = address
        self._config = directory / "ganesha.conf"
        self._recovery = directory / "recovery"
        self._records = directory / "exports"
        self._several = directory / "several.conf"
        self._pid_file = directory / "ganesha.pid"  # where ganesha cannot write
        self._own_pid_file = runtime / "ganesha.own.pid"
        self._links = LinkTree(links)
        self._links_export = links_export(links, subnet)
        self._version = 0
        self._numbers: ExportNumbers | None = None
        self._plan: ExportPlan | None = None
        self._exports = Followed()
        self._wanted: dict[int, Export] = {}
        self._names = Links()
        self._unlinked: set[str] | None = None  # MACs whose links may be others; None: all
        self._written: dict[int, Export] | None = None  # in the configuration of its next start
        self._held: dict[int, Export] = {}  # what ganesha exports
        self._recorded: set[int] = set()  # numbers that have a file
        self._lock = DeferredLock()
        self._working: Deferred[Mapping[str, str]] | None = None
        self._given_up = False
        self._asked = False  # whether `_held` was compared since ganesha has started
        self._place_of_view = runtime / "view"
        socket = runtime / "ganesha.bus"
        self.orders = Orders(reactor, socket, lambda: len(self._wanted), self._on_up)
        spec = ganesha_spec(
            program, self._config, pid_file=self._own_pid_file, socket=socket,
            view=self._place_of_view, read=[directory], write=[self._recovery, runtime],
            trees=[links, *trees],
        )
        self.child = ChildService(
            reactor, launcher, spec, on_line=self.orders.line, pid_file=self._pid_file,
            prepare=self._before_start,
        )
        self.watch = Watch(reactor, self.child, self._probe, settling=lambda: self.start_limit)

    @property
    def start_limit(self) -> float:
        """Return the seconds within which it has to start with the present exports."""
        return self.orders.start_limit

    @property
    def health(self) -> Health:
        """Return whether it runs and answers, since when, and how often it was restarted."""
        return self.child.health

    # -- life ---------------------------------------------------------------

    def startService(self) -> None:
        """Allow the daemon to run: it starts with the first plan."""
        super().startService()
        for directory in (
            self._directory, self._recovery, self._records, self._runtime, self._place_of_view,
        ):
            directory.mkdir(parents=True, exist_ok=True)
        end_left_over(self._pid_file, signal.SIGKILL)
        self._own_pid_file.unlink(missing_ok=True)
        self.orders.listen()

    async def _stop(self) -> None:
        await self._end()
        await self.orders.stop()

    def stopService(self) -> Deferred[None]:
        """End the daemon; fires when it is gone."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _end(self) -> Deferred[None]:
        if self.child.running:
            return self.child.stopService()
        return succeed(None)

    def give_up(self) -> None:
        """See INfsExporter. An order that ganesha works on is not waited for."""
        self._given_up = True
        if self._working is not None:
            self._working.cancel()

    async def withdraw(self) -> None:
        """Export nothing any more."""
        self._plan = None
        await self._end()

    # -- a plan -------------------------------------------------------------

    async def apply(self, plan: ExportPlan) -> Mapping[str, str]:
        """Export exactly what the plan says; see INfsExporter."""
        async with self._lock:
            if plan == self._plan and self._in_force():
                return {}
            if self._given_up:
                return dict.fromkeys((node.mac for node in plan.nodes), STOPPED)
            self._working = Deferred.fromCoroutine(self._bring_about(plan))
            try:
                return await self._working
            except CancelledError:
                if not self._given_up:
                    raise
                return dict.fromkeys((node.mac for node in plan.nodes), STOPPED)
            finally:
                self._working = None

    async def _bring_about(self, plan: ExportPlan) -> Mapping[str, str]:
        if self._numbers is None:
            await self._prepare()
        await self._take(plan)
        return await self._follow()

    def _in_force(self) -> bool:
        return self._asked and not self._lacking() and self._held.keys() == self._wanted.keys()

    def _lacking(self) -> list[int]:
        """Return the numbers of what ganesha does not export, or not as it is wanted."""
        held = self._held
        return sorted(
            number for number, export in self._wanted.items() if held.get(number) is not export
        )

    async def _prepare(self) -> None:
        """Find out what a former server left, and which ganesha this is."""
        known = {}
        async for some in slices(self._reactor, [*self._records.iterdir()], AT_ONCE):
            for path in some:
                with path.open(encoding="utf-8", errors="replace") as lines:
                    key = config.recorded_key(lines)
                if key is not None and path.stem.isdecimal():
                    known[key] = int(path.stem)
                    self._recorded.add(int(path.stem))
        found = await self._runner.run([self._program, "-v"], check=False)
        self._version = config.major_version(found.stdout.decode(errors="replace"))
        self._numbers = ExportNumbers(known)

    async def _take(self, plan: ExportPlan) -> None:
        """Make the plan the wanted one: numbers, files, directories."""
        assert self._numbers is not None
        self._plan = None
        await worked_off(self._reactor, self._exports.take(plan), MANY)
        await self._pause()
        exports, numbers = self._exports.by_key, self._numbers.present
        if self._unlinked is not None:
            self._unlinked |= self._exports.touched
        added = exports.keys() - numbers.keys()
        gone = {key: numbers[key] for key in numbers.keys() - exports.keys()}
        await self._pause()
        hidden = (exports[key].path for key in added if exports[key].writable)
        await worked_off(self._reactor, map(make_hidden, hidden), AT_ONCE)
        await worked_off(self._reactor, self._numbers.change(gone, added, self._held), MANY)
        for number in gone.values():
            self._wanted.pop(number, None)
        new = [
            (number, export) for key, export in exports.items()
            if self._wanted.get(number := numbers[key]) is not export
        ]
        async for some in slices(self._reactor, new, AT_ONCE):
            for number, export in some:
                write_if_changed(self._record(number), config.record(number, export), 0o600)
                self._wanted[number] = export
                self._recorded.add(number)
        self._plan = plan

    def _record(self, number: int) -> Path:
        return self._records / f"{number}.conf"

    def _pause(self) -> Deferred[None]:
        return deferLater(self._reactor, 0, lambda: None)

    async def _follow(self) -> Mapping[str, str]:
        """Bring ganesha in line with what is wanted; return why not, by MAC."""
        reason = "the NFS server is not running"
        for _ in range(TRIES):
            if not self.running:
                break
            try:
                if not self.child.running:
                    await self._set_links()
                    await self._write_config()
                    self.child.startService()
                await self.orders.until_up()
                failures = await self._change()
            except Gone:
                # Its next process need not wait for a pause, if it is not there already.
                if self.child.running and self.child.pid is None:
                    await self.child.restart()
            except Unavailable as error:
                reason = f"the NFS server does not accept a change: {error}"
                if not self.running or not self.child.running:
                    break
                _log.error("{reason}; starting it again", reason=reason)
                await self.child.restart()
            else:
                return self._by_node(failures)
        return self._by_node(dict.fromkeys(self._lacking(), reason))

    def _by_node(self, failures: Mapping[int, str]) -> dict[str, str]:
        """Return why nodes cannot mount what is theirs, by MAC: exports failed, by number."""
        if not failures or self._numbers is None:
            return {}
        found = {}
        exports, numbers = self._exports.exports, self._numbers.present
        for mac, key in (*exports.images.items(), *exports.persist.items()):
            number, node = numbers.get(key), self._exports.node(mac)
            if number is None or number not in failures or node is None:
                continue  # one without a number: its plan was given up before it got one
            held = self._held.get(number)
            if held is None or not held.serves(node.ip):
                found[mac] = failures[number]
        return found

    async def _change(self) -> dict[int, str]:
        """Export, link, remove; return why exports are refused, by number."""
        if not self._asked:
            exported = await self.orders.exported()
            self._held = {
                number: export for number, export in self._held.items() if number in exported
            }
            self._asked, self._unlinked = True, None
        failures = {}
        lacking = self._lacking()
        trees = {self._wanted[number].path for number in lacking}
        await worked_off(self._reactor, map(self._check_view, trees), AT_ONCE)
        if len(lacking) > 1:
            await self._export_many(lacking)
        # What was not taken with others is told why.
        for number in self._lacking():
            wanted = self._wanted[number]
            try:
                await self.orders.export(self._record(number))
            except CommandFailed as error:
                told = str(error).splitlines()[0]
                failures[number] = told.replace("Details:", "Details are in the server's log.")
                _log.error("NFS export of {key}: {error}", key=wanted.key, error=str(error))
            else:
                self._held[number] = wanted
        await self._set_links()
        for number in sorted(self._held.keys() - self._wanted.keys()):
            try:
                await self.orders.remove(number)
            except CommandFailed as error:
                _log.warn("NFS export {number}: {error}", number=number, error=str(error))
                self._asked = False  # the next time it is compared, and removed if it is there
            else:
                del self._held[number]
        await self._pause()
        left = sorted(self._recorded - self._wanted.keys())
        async for some in slices(self._reactor, left, AT_ONCE):
            for number in some:
                self._record(number).unlink(missing_ok=True)
                self._recorded.discard(number)
        return failures

    async def _export_many(self, numbers: Sequence[int]) -> None:
        """Give some hundreds of exports with one order: one takes much longer than they do.

        It answers how many it has taken. If that is not all, each is given again by itself.
        """
        for start in range(0, len(numbers), MANY):
            some = {number: self._wanted[number] for number in numbers[start:start + MANY]}
            texts = [config.export(number, export) for number, export in some.items()]
            write_if_changed(self._several, "".join(texts), 0o600)
            with contextlib.suppress(CommandFailed):
                if await self.orders.export(self._several) == (config.taken(len(some)),):
                    self._held.update(some)

    def _check_view(self, path: Path) -> None:
        """Raise Unavailable when the daemon does not see what the server has mounted at a path.

        A program that makes all mounts of the machine private cuts its view off: the next
        process gets a new one.
        """
        try:
            here = os.stat(path)
            there = os.stat(f"/proc/{self.child.pid}/root{path}")
        except FileNotFoundError:
            return  # it is told by the order
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise Unavailable(f"it does not see what is mounted at {path}")

    async def _set_links(self) -> None:
        if self._plan is None:
            return
        numbers = self._numbers.present if self._numbers is not None else {}
        if self._asked:
            numbers = {
                key: number for key, number in numbers.items() if number in self._held
            }
        stale, self._unlinked = self._unlinked, None  # all, unless this comes to its end
        macs = self._names.macs | self._exports.macs if stale is None else stale
        await self._pause()
        nodes = [node for mac in macs if (node := self._exports.node(mac)) is not None]
        gone = [mac for mac in macs if self._exports.node(mac) is None]
        exports = self._exports.exports
        await self._pause()
        await worked_off(
            self._reactor, self._names.change(gone, nodes, exports, numbers), MANY
        )
        await self._pause()
        await worked_off(self._reactor, self._links.apply(self._names.tree, stale), LINKS_AT_ONCE)
        # What is refused now may be there the next time.
        self._unlinked = {
            mac for keys in (exports.images, exports.persist)
            for mac in macs if mac in keys and keys[mac] not in numbers
        }

    # -- the daemon ---------------------------------------------------------

    async def _probe(self) -> None:
        """Ask whether it serves nodes, and whether it takes orders."""
        await ask_nothing(self._reactor, self._address, place=self._place)
        try:
            await self.orders.try_one()
        except CommandFailed:
            return  # that is an answer
        except Unavailable as error:
            raise NoAnswer(str(error)) from error

    def _before_start(self) -> None:
        """Have written what it exports from its first moment: nodes never find less than they had.
        """
        self.orders.begins()
        self._asked = False
        self._unlinked = None
        if self._written is not None:
            self._held, self._written = self._written, None
            return
        self._held = {}
        write_if_changed(self._config, "".join(self._texts(self._held)), 0o600)

    async def _write_config(self) -> None:
        """Write that before it starts: thousands of exports take more than a turn."""
        held: dict[int, Export] = {}
        texts: list[str] = []
        await worked_off(self._reactor, map(texts.append, self._texts(held)), MANY)
        await self._pause()
        write_if_changed(self._config, "".join(texts), 0o600)
        self._written = held
        await self._pause()

    def _texts(self, held: dict[int, Export]) -> Iterator[str]:
        """Yield the texts of its configuration; `held` gets the exports in it."""
        yield config.core(self._address, self._recovery, self._version)
        yield config.export(LINKS_ID, self._links_export, NODES)
        for number, export in config.present(self._wanted):
            held[number] = export
            yield config.export(number, export)

    def _on_up(self) -> None:
        if not self._lock.locked:
            # Nobody waits for it: it was started again after it had ended by itself.
            spawn(self._catch_up(), "comparing the exports of the NFS server")

    async def _catch_up(self) -> None:
        async with self._lock:
            # One that was told to end may say that it is up: it must not be started again.
            if not self._given_up and not self._in_force():
                await self._follow()
